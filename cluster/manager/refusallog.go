package manager

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

// linePause is how long strangers with a wrong protocol aren't logged after one was: the port
// is open to anybody.
const linePause = time.Minute

// lineLimit lets a line of the log through once in a linePause, and counts the others.
type lineLimit struct {
	mu     sync.Mutex // guards the fields below
	said   time.Time
	unsaid int
}

// due tells whether one more is to be logged, and how many weren't since the last that was.
func (k *lineLimit) due(now time.Time) (unsaid int, due bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if since := now.Sub(k.said); !k.said.IsZero() && since >= 0 && since < linePause {
		k.unsaid++
		return 0, false
	}
	unsaid, k.said, k.unsaid = k.unsaid, now, 0
	return unsaid, true
}

// logProtocolError logs it, unless it did so a moment ago.
func (m *Manager) logProtocolError(addr, speaks string) {
	unsaid, due := m.protocolErrors.due(m.cfg.Now())
	if !due {
		return
	}
	m.log.Warn("refuse a connection to the control port: its client doesn't speak skep's protocols; "+
		"if it is a machine that is to join, say \"skep swarm join\" there: \"docker swarm join\" has Docker's own engine ask, unless DOCKER_HOST names skep's socket",
		"addr", addr, "speaks", speaks, "unsaid", unsaid)
}

// logRefusal logs a refusal: by the leader, unless it did so a moment ago. Another manager's
// database may lag behind, and who is refused there asks the next one.
func (m *Manager) logRefusal(r *http.Request, err error) {
	level := slog.LevelDebug
	var unsaid int
	if _, self, _, _ := m.leads(); self && errors.Is(err, cluster.ErrDenied) {
		var due bool
		if unsaid, due = m.refusedRequests.due(m.cfg.Now()); due {
			level = slog.LevelWarn
		}
	}
	m.log.Log(r.Context(), level, "refuse a request", "addr", r.RemoteAddr, "path", r.URL.Path, "err", err, "unsaid", unsaid)
}

// logTooMany logs that an address asks too often to be let in, unless it did so a moment ago.
func (m *Manager) logTooMany(r *http.Request, err error) {
	if unsaid, due := m.crowdedJoins.due(m.cfg.Now()); due {
		m.log.Warn("refuse joins: too many come from one address", "addr", r.RemoteAddr, "err", err, "unsaid", unsaid)
	}
}

// noteProtocolErrors notes clients whose protocols aren't among those of config; they don't get through
// the handshake, whose error doesn't say what they speak.
func (m *Manager) noteProtocolErrors(config *tls.Config) {
	inner, spoken := config.GetConfigForClient, config.NextProtos
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		known := func(protocol string) bool { return slices.Contains(spoken, protocol) }
		if len(hello.SupportedProtos) > 0 && !slices.ContainsFunc(hello.SupportedProtos, known) {
			m.logProtocolError(hello.Conn.RemoteAddr().String(), fmt.Sprintf("%q", hello.SupportedProtos[:min(len(hello.SupportedProtos), 4)]))
		}
		return inner(hello)
	}
}

// speaksNoTLS tells whether a handshake failed since the client speaks no TLS at all.
func speaksNoTLS(err error) bool {
	var header tls.RecordHeaderError
	return errors.As(err, &header)
}
