package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	logWindow = 10 * time.Second
	logBurst  = 20 // lines per window
)

// logWriter turns memberlist's lines ("[WARN] memberlist: ...") into log records.
// Debug lines are dropped. Anybody who can send a packet makes memberlist write a
// line, so it lets only so many through.
type logWriter struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	began   time.Time  // of the present window
	lines   int        // let through in it
	dropped int        // not let through in it
}

func newLogWriter(log *slog.Logger, now func() time.Time) *logWriter {
	return &logWriter{log: log, now: now}
}

// notEncrypted is what memberlist says at a public address. It doesn't know the guard.
const notEncrypted = "Binding to public address without encryption!"

// Write takes one line; it never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := parseLine(line)
	if level < slog.LevelInfo || text == notEncrypted {
		return len(line), nil
	}
	pass, dropped := w.admit()
	if dropped > 0 {
		w.log.Warn("gossip log lines dropped", "count", dropped)
	}
	if pass {
		w.log.Log(context.Background(), level, "gossip", "said", text)
	}
	return len(line), nil
}

// admit tells whether a line may pass, and how many didn't in the window before.
func (w *logWriter) admit() (pass bool, dropped int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.now(); now.Sub(w.began) >= logWindow || now.Before(w.began) {
		dropped = w.dropped
		w.began, w.lines, w.dropped = now, 0, 0
	}
	if w.lines >= logBurst {
		w.dropped++
		return false, dropped
	}
	w.lines++
	return true, dropped
}

func parseLine(line []byte) (slog.Level, string) {
	level := slog.LevelInfo
	line = bytes.TrimSpace(line)
	if tag, rest, ok := bytes.Cut(line, []byte("] ")); ok && bytes.HasPrefix(tag, []byte("[")) {
		switch string(tag[1:]) {
		case "DEBUG":
			level = slog.LevelDebug
		case "WARN":
			level = slog.LevelWarn
		case "ERR", "ERROR":
			level = slog.LevelError
		}
		line = rest
	}
	return level, string(bytes.TrimPrefix(line, []byte("memberlist: ")))
}
