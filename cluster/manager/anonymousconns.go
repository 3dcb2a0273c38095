package manager

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// maxStrangers is how many connections may be in their handshake, or come from
	// callers without a certificate, at once. Nodes leave that number with their
	// handshake, so it bounds who may join at the same moment.
	maxStrangers = 256
	// maxFromOne is how many of them may come from one address: many nodes behind one
	// router can start at once, and one machine alone can't take all the places.
	maxFromOne = 64
	// strangerLife is how long one may stay. A handshake and a join take moments; a join
	// that waits for a leader is tried again by its node.
	strangerLife = 30 * time.Second
)

// anonymousConns are the connections to the control port of which nobody knows yet whose
// they are. There is always a place for the next one: the oldest goes for it.
type anonymousConns struct {
	log *slog.Logger

	mu      sync.Mutex       // guards the fields below
	conns   []*anonymousConn // the oldest first
	evicted cluster.Repeats
}

type anonymousConn struct {
	all    *anonymousConns
	conn   net.Conn
	source netip.Addr
	life   *time.Timer
}

// admit counts a connection as a stranger's until it leaves.
func (s *anonymousConns) admit(conn net.Conn) *anonymousConn {
	one := &anonymousConn{all: s, conn: conn, source: sourceOf(conn.RemoteAddr().String())}
	one.life = time.AfterFunc(strangerLife, func() { conn.Close() })
	s.mu.Lock()
	defer s.mu.Unlock()
	if same := func(other *anonymousConn) bool { return other.source == one.source }; count(s.conns, same) >= maxFromOne {
		s.evictLocked(slices.IndexFunc(s.conns, same))
	} else if len(s.conns) >= maxStrangers {
		s.evictLocked(0)
	}
	s.conns = append(s.conns, one)
	return one
}

func (s *anonymousConns) evictLocked(i int) {
	oldest := s.conns[i]
	s.conns = slices.Delete(s.conns, i, i+1)
	oldest.conn.Close()
	if s.evicted.Again() {
		s.log.Warn("close the oldest connection without a certificate: there are too many", "addr", oldest.conn.RemoteAddr().String(), "count", s.evicted)
	}
}

// leave ends the counting: its node is known, or it is gone. It may be called again.
func (s *anonymousConn) leave() {
	s.life.Stop()
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.conns = slices.DeleteFunc(s.all.conns, func(other *anonymousConn) bool { return other == s })
}

func count(conns []*anonymousConn, which func(*anonymousConn) bool) int {
	found := 0
	for _, one := range conns {
		if which(one) {
			found++
		}
	}
	return found
}

// sourceOf is the address that a connection comes from; of IPv6 the /64, since whoever
// has one has all of it.
func sourceOf(remote string) netip.Addr {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr := from.Addr().Unmap()
	if addr.Is6() {
		if prefix, err := addr.WithZone("").Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return addr
}

// answerOnce has a connection without a certificate end with its first answer: whoever
// joins has one question, and nobody else has a reason to stay.
func answerOnce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
