package api

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"skep/cluster/telemetry"
)

// patience is how long a client may take nothing at all of what is written to it, before the
// connection is cut: until then it holds memory here. That a stream has nothing to say is no
// matter, however long. A connection that was taken over (attach, exec) has no limit, as a
// terminal that was stopped has none; it holds two small buffers, and there are no more than
// MaxConnections.
type patience struct {
	answer time.Duration
	// stream is for logs, events and what the engine writes: a pager takes nothing as long
	// as its user reads a page.
	stream time.Duration
}

var defaultPatience = patience{answer: 30 * time.Second, stream: 10 * time.Minute}

// writePiece is how much is written under one deadline: who takes that much goes on.
const writePiece = 64 << 10

// tracked remembers whether anything was written, and cuts a client off that takes nothing.
type tracked struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience patience

	wrote   bool
	status  int           // 0 for what wasn't said: 200
	late    bool          // nothing was taken in time
	limit   time.Duration // the patience there is now
	began   time.Time
	written int64
	slowest int64 // bytes in a second over all; 0 for any
	// streams counts it while it is a stream.
	streams   telemetry.Level
	streaming bool
	over      atomic.Bool
}

func newTracked(w http.ResponseWriter, p patience) *tracked {
	t := &tracked{ResponseWriter: w, control: http.NewResponseController(w), patience: p, limit: p.answer, began: time.Now()}
	t.extend()
	return t
}

// waitAsForStream gives the client the time that clients of streams have.
func waitAsForStream(w http.ResponseWriter) {
	if t, ok := w.(*tracked); ok {
		t.limit = t.patience.stream
		if !t.streaming {
			t.streaming = true
			t.streams.Add(1)
		}
	}
}

// ended is called when the answer is over.
func (t *tracked) ended() {
	if t.streaming {
		t.streaming = false
		t.streams.Add(-1)
	}
}

// streamKind is what a stream at a path is counted as.
func streamKind(path string) string {
	switch first := firstPart(path); {
	case first == "events":
		return "events"
	case (first == "services" || first == "tasks") && strings.HasSuffix(path, "/logs"):
		return "logs"
	case swarmPaths[first]:
		return "other"
	}
	return "engine"
}

// atLeastAs wants the client to take so many bytes in a second from now on, over all.
func atLeastAs(w http.ResponseWriter, slowest int64) {
	if t, ok := w.(*tracked); ok {
		t.began, t.written, t.slowest = time.Now(), 0, slowest
	}
}

// extend sets the deadline of what is written next. It is the connection's, so it is by its
// clock and not by ours. Not every writer has deadlines: tests' have none.
func (t *tracked) extend() {
	deadline := time.Now().Add(t.limit)
	if t.slowest > 0 {
		whole := t.began.Add(t.limit + time.Duration(float64(t.written)/float64(t.slowest)*float64(time.Second)))
		if whole.Before(deadline) {
			deadline = whole
		}
	}
	_ = t.control.SetWriteDeadline(deadline)
	if t.over.Load() {
		_ = t.control.SetWriteDeadline(time.Now())
	}
}

// cutOff ends what is being written, and lets nothing more be. Any goroutine may call it
// while the request lasts.
func cutOff(w http.ResponseWriter) {
	if t, ok := w.(*tracked); ok {
		t.over.Store(true)
		_ = t.control.SetWriteDeadline(time.Now())
	}
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	t.wrote, t.status = true, status
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tracked) Write(data []byte) (int, error) {
	t.wrote = true
	done := 0
	for {
		piece := data[done:min(done+writePiece, len(data))]
		t.extend()
		n, err := t.ResponseWriter.Write(piece)
		done, t.written = done+n, t.written+int64(n)
		var timeout net.Error
		t.late = t.late || errors.As(err, &timeout) && timeout.Timeout()
		if err != nil || done >= len(data) {
			return done, err
		}
	}
}

// FlushError is for http.ResponseController.
func (t *tracked) FlushError() error {
	t.extend()
	return t.control.Flush()
}

// Unwrap lets http.ResponseController through: hijack and deadlines.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
