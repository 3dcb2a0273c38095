package api

import (
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/docker/api/types"

	"skep/cluster"
)

const (
	// stampFormat is RFC 3339 with nine digits always, so that lines align.
	stampFormat = "2006-01-02T15:04:05.000000000Z07:00"

	detailNode    = "com.docker.swarm.node.id"
	detailService = "com.docker.swarm.service.id"
	detailTask    = "com.docker.swarm.task.id"
)

// logWriter writes log lines as docker clients read them: one frame per line, as
// they prefix what comes in one frame; without a frame for a terminal.
type logWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	query   logQuery
	old     bool // the client is from before the multiplexed content type
}

func newLogWriter(w http.ResponseWriter, query logQuery, old bool) *logWriter {
	return &logWriter{w: w, control: http.NewResponseController(w), query: query, old: old}
}

// begin sends the headers, before there is any line.
func (l *logWriter) begin() {
	contentType := types.MediaTypeRawStream
	if !l.query.tty && !l.old {
		contentType = types.MediaTypeMultiplexedStream
	}
	l.w.Header().Set("Content-Type", contentType)
	l.w.WriteHeader(http.StatusOK)
	_ = l.control.Flush() // if the client has gone, the first write will say so
}

// write sends the lines of one task.
func (l *logWriter) write(part taskLines) error {
	var buffer []byte
	for _, line := range part.lines {
		if (line.Stderr && !l.query.options.Stderr) || (!line.Stderr && !l.query.options.Stdout) {
			continue
		}
		var payload []byte
		if l.query.timestamps {
			payload = append(line.Time.Std().AppendFormat(payload, stampFormat), ' ')
		}
		if l.query.details {
			payload = append(payload, details(part.task, line.Attrs)...)
			payload = append(payload, ' ')
		}
		payload = append(payload, line.Data...)
		if l.query.tty {
			buffer = append(buffer, payload...)
			continue
		}
		head := [8]byte{0: 1}
		if line.Stderr {
			head[0] = 2
		}
		binary.BigEndian.PutUint32(head[4:], uint32(len(payload)))
		buffer = append(append(buffer, head[:]...), payload...)
	}
	if len(buffer) == 0 {
		return nil
	}
	if _, err := l.w.Write(buffer); err != nil {
		return err
	}
	if err := l.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// details lists what is known of a line. The three keys of ours win over the
// log driver's of the same name: the client finds the task by them.
func details(task *cluster.Task, attrs map[string]string) string {
	all := make(map[string]string, len(attrs)+3)
	for key, value := range attrs {
		all[key] = value
	}
	all[detailNode], all[detailService], all[detailTask] = task.NodeID, task.ServiceID, task.ID
	pairs := make([]string, 0, len(all))
	for key, value := range all {
		pairs = append(pairs, url.QueryEscape(key)+"="+url.QueryEscape(value))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
