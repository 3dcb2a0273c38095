package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// maxRelayBody and maxLogsBody bound what other managers may send.
	maxRelayBody = 64 << 20
	maxLogsBody  = 64 << 10
	// slowWrite is how long a manager may take to read a piece of a log; heldWrite is the
	// same where no more than a window is on its way, so that nothing else suffers: its
	// client may read page by page, and logs that are merged wait for each other.
	slowWrite = 30 * time.Second
	heldWrite = time.Hour
)

// Handler serves what managers ask each other: POST /v1/relay, on the leader,
// POST /v1/logs, POST /v1/engine and POST /v1/origin. The caller has checked that the client is a manager.
func (d *Dispatcher) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/relay", d.serveRelay)
	mux.HandleFunc("POST /v1/logs", d.serveLogs)
	mux.HandleFunc("POST /v1/engine", d.serveEngine)
	mux.HandleFunc("POST /v1/origin", d.serveOrigin)
	return mux
}

func (d *Dispatcher) serveRelay(w http.ResponseWriter, r *http.Request) {
	var relay cluster.Relay
	if !readBody(w, r, maxRelayBody, &relay) {
		return
	}
	if !sentBy(r, relay.Manager) {
		http.Error(w, "a relay must be the sender's own", http.StatusForbidden)
		return
	}
	answer, err := d.leading().take(r.Context(), relay)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if len(answer.Leases)+len(answer.Missing) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	data, err := cluster.Encode(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/cbor")
	_, _ = w.Write(data) // Who doesn't read it has no lease.
}

// sentBy tells whether a request came from that manager, as its certificate says; tests' have none.
func sentBy(r *http.Request, managerID string) bool {
	return r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName == managerID
}

func (d *Dispatcher) serveLogs(w http.ResponseWriter, r *http.Request) {
	var body logsBody
	if !readBody(w, r, maxLogsBody, &body) {
		return
	}
	s := d.session(body.NodeID)
	if s == nil {
		http.Error(w, "no session of this node here", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	out := &chunkWriter{w: w, control: http.NewResponseController(w), patience: slowWrite}
	if body.Options.Window > 0 {
		out.patience = heldWrite
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		out.beat(ctx, d.config.Heartbeat, cancel)
	}()
	err := s.readLogs(ctx, body.TaskID, body.Options, func(lines []cluster.LogLine) error {
		return out.write(cluster.LogChunk{Lines: lines})
	})
	cancel(nil)
	<-beating
	last := cluster.LogChunk{Done: true}
	if err != nil {
		last.Err = err.Error()
	}
	if err := out.write(last); err != nil && r.Context().Err() == nil {
		d.config.Log.Debug("send a log to another manager", "node", body.NodeID, "task", body.TaskID, "err", err)
	}
}

// chunkWriter sends chunks of a log as frames, each at once.
type chunkWriter struct {
	patience time.Duration

	mu      sync.Mutex // guards the fields below
	w       io.Writer
	control *http.ResponseController
}

func (c *chunkWriter) write(chunk cluster.LogChunk) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := time.Now().Add(c.patience) // A deadline of the network's is by the machine's clock.
	if err := c.control.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("send a log: %w", err)
	}
	if err := cluster.WriteFrame(c.w, chunk); err != nil {
		return err
	}
	if err := c.control.Flush(); err != nil {
		return fmt.Errorf("send a log: %w", err)
	}
	return nil
}

// beat sends empty chunks, so that the reader knows that this manager lives.
func (c *chunkWriter) beat(ctx context.Context, every time.Duration, fail context.CancelCauseFunc) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := c.write(cluster.LogChunk{}); err != nil {
			fail(err)
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// readBody decodes a request's body, and answers itself when it can't.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, v any) bool {
	err := cluster.ReadBody(http.MaxBytesReader(w, r.Body, limit), v)
	if err == nil {
		return true
	}
	status := http.StatusBadRequest
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	http.Error(w, err.Error(), status)
	return false
}
