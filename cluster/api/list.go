package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"skep/cluster"
)

const (
	// listPiece is about how much of a list is encoded before it is sent. A list that is
	// shorter is sent whole.
	listPiece = 32 << 10
	// largeList is from how many objects on a list is large: it takes a tenth of a second
	// of a processor, or more.
	largeList = 10_000
	// largeListBytes is from how many bytes on a list of fewer objects is large too: each task
	// shows its service's whole spec. It is about what largeList tasks have.
	largeListBytes = 32 << 20
	// maxLargeLists is how many large ones are written at once, so that the processors
	// have time for the cluster beside them, and listWait how long the next one waits.
	maxLargeLists = 4
	listWait      = 10 * time.Second
	// slowestList is how many bytes in a second the client of a large list must take over
	// all, beside the patience there is with any: others wait for its place.
	slowestList = 256 << 10
)

// listing is an answer of many objects, which are encoded one by one: they may be hundreds
// of megabytes together, and the client may read slowly.
type listing struct {
	// objects gives them, or an error, after which there is nothing more. Each is encoded
	// before the next is asked for; an appender does that itself.
	objects iter.Seq2[any, error]
	// large means that there are many to go through, even if few are shown.
	large bool
}

// appender appends its JSON, the bytes of json.Encoder without the line break.
type appender interface {
	appendJSON(out []byte) ([]byte, error)
}

// listOf lists what of objects is shown, as show makes it.
func listOf[T, S any](objects iter.Seq[*T], shown func(*T) bool, show func(*T) S) *listing {
	return &listing{large: atLeast(objects, largeList), objects: func(yield func(any, error) bool) {
		var next S // one for all, as it is large
		for object := range objects {
			if !shown(object) {
				continue
			}
			if next = show(object); !yield(&next, nil) {
				return
			}
		}
	}}
}

func atLeast[T any](objects iter.Seq[T], many int) bool {
	count := 0
	for range objects {
		if count++; count >= many {
			return true
		}
	}
	return false
}

// turn waits for a place among the large lists, for a while.
func (s *Server) turn(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.listWait)
	defer cancel()
	select {
	case s.lists <- struct{}{}:
		return func() { <-s.lists }, nil
	case <-ctx.Done():
		return nil, fail(cluster.ErrUnavailable, "%d lists of %d objects or more are being read already: try again in a moment, or ask for fewer objects with filters", cap(s.lists), largeList)
	}
}

// writeList answers with a list. The bytes are those of the whole as one JSON value.
func (s *Server) writeList(ctx context.Context, w http.ResponseWriter, r *http.Request, status int, of *listing) {
	leave := func() {}
	defer func() { leave() }()
	takeTurn := func() (err error) {
		turn, err := s.turn(ctx)
		if err == nil {
			leave = turn
			atLeastAs(w, slowestList)
		}
		return err
	}
	if of.large {
		if err := takeTurn(); err != nil {
			s.writeError(w, r, err)
			return
		}
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	begun, sent, large := false, 0, of.large
	send := func() error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
		}
		n, err := w.Write(buffer.Bytes())
		buffer.Reset()
		if sent += n; err == nil && sent > largeListBytes && !large {
			large = true
			err = takeTurn()
		}
		return errors.Join(err, ctx.Err())
	}
	buffer.WriteByte('[')
	first := true
	for object, err := range of.objects {
		if !first {
			buffer.WriteByte(',')
		}
		first = false
		if a, ok := object.(appender); ok && err == nil {
			var data []byte
			data, err = a.appendJSON(buffer.AvailableBuffer())
			buffer.Write(data)
		} else if err == nil {
			if err = encoder.Encode(object); err == nil {
				buffer.Truncate(buffer.Len() - 1) // The encoder ends each with a line break.
			}
		}
		if err == nil {
			if buffer.Len() < listPiece {
				continue
			}
			if err = send(); err == nil {
				continue
			}
		} else if !begun {
			s.writeError(w, r, fmt.Errorf("write list: %w", err))
			return
		}
		s.Log.Debug("list broke off", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler) // so that the client doesn't take the part it got for the whole
	}
	buffer.WriteString("]\n")
	if !begun {
		w.Header().Set("Content-Length", strconv.Itoa(buffer.Len()))
	}
	if err := send(); err != nil {
		s.Log.Debug("list broke off", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
}
