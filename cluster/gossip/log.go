package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	logWindow = 10 * time.Second
	logBurst  = 20 // lines per window
	// sayAgain is when what matters is said once more, if it still is so; maxTold is how
	// many such lines are remembered.
	sayAgain = time.Hour
	maxTold  = 256
)

// logWriter turns memberlist's lines ("[WARN] memberlist: ...") into log records.
// Debug lines are dropped. Anybody who can send a packet makes memberlist write a
// line, so it lets only so many through.
//
// Memberlist's levels don't mean what ours do: a probe that was lost is an error to it.
// That nodes come and go is the leader's to say; what memberlist says is for debugging,
// but for what only it knows and somebody can mend (matters), each once in a while.
type logWriter struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex           // guards the fields below
	began   time.Time            // of the present window
	lines   int                  // let through in it
	dropped int                  // not let through in it
	said    map[string]time.Time // what matters, when it was last said
}

func newLogWriter(log *slog.Logger, now func() time.Time) *logWriter {
	return &logWriter{log: log, now: now, said: map[string]time.Time{}}
}

// notEncrypted is what memberlist says at a public address. It doesn't know the guard.
const notEncrypted = "Binding to public address without encryption!"

// Write takes one line; it never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := parseLine(line)
	if level < slog.LevelInfo || text == notEncrypted {
		return len(line), nil
	}
	level = slog.LevelDebug
	if w.matters(text) {
		level = slog.LevelWarn
	}
	if !w.log.Enabled(context.Background(), level) {
		return len(line), nil
	}
	pass, dropped := w.admit()
	if dropped > 0 {
		w.log.Debug("gossip log lines dropped", "count", dropped)
	}
	if pass {
		w.log.Log(context.Background(), level, "gossip", "said", text)
	}
	return len(line), nil
}

// forOperators begin what only memberlist or the guard knows, and somebody can mend.
var forOperators = []string{
	"Was able to connect to",         // by TCP, and not by UDP: a firewall
	"Conflicting address for",        // two nodes with one ID
	"drop packet from",               // another version, another cluster, or an enemy; so are
	"failed to receive",              // those by TCP,
	"Failed to read remote state",    // unless
	"Error accepting TCP connection", // something is wrong with this machine
	"Error reading UDP packet",
}

// passing end the errors of connections that broke, as they do when nodes go.
var passing = []string{"EOF", "connection reset by peer", "broken pipe", "i/o timeout", "use of closed network connection"}

// ports are what differs when the same is said twice.
var ports = regexp.MustCompile(`:\d+\b`)

// matters tells whether the line is for operators, and wasn't said a while ago.
func (w *logWriter) matters(text string) bool {
	begins := func(begin string) bool { return strings.HasPrefix(text, begin) }
	has := func(part string) bool { return strings.Contains(text, part) }
	if !slices.ContainsFunc(forOperators, begins) || slices.ContainsFunc(passing, has) {
		return false
	}
	key := ports.ReplaceAllString(text, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	last, said := w.said[key]
	if said && now.Sub(last) < sayAgain && !now.Before(last) {
		return false
	}
	if len(w.said) >= maxTold {
		clear(w.said)
	}
	w.said[key] = now
	return true
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
