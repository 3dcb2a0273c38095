package peers

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// maxStrangers is how many connections may wait for their handshake, and how many more
	// may be in it or come from callers without a certificate, at once. Nodes leave that
	// number with their handshake, so it bounds who may join at the same moment.
	maxStrangers = 128
	// maxFromOne is how many of them may come from one address: many nodes behind one
	// router can start at once, and one machine alone can't take all the places.
	maxFromOne = 64
	// strangerLife is how long one may stay. A handshake and a join take moments; a join
	// that waits for a leader is tried again by its node.
	strangerLife = 30 * time.Second
)

// anonymousConns are connections to the control port of which nobody knows yet whose they
// are. There is always a place for the next one: the oldest of the address with most of them
// goes for it, so nobody's goes for those of a crowd elsewhere.
type anonymousConns struct {
	log *slog.Logger
	// which says for the log what they have in common.
	which string

	mu      sync.Mutex       // guards the fields below
	conns   []*anonymousConn // the oldest first
	evicted cluster.Repeats
}

type anonymousConn struct {
	all    *anonymousConns
	conn   net.Conn
	source netip.Addr
	life   *time.Timer
	left   chan struct{} // closed when it left
	// chosen is set before it leaves, if that is for its turn.
	chosen bool
	gone   bool // guarded by all.mu
}

// admit counts a connection as a stranger's until it leaves.
func (s *anonymousConns) admit(conn net.Conn) *anonymousConn {
	one := &anonymousConn{all: s, conn: conn, source: Source(conn.RemoteAddr().String()), left: make(chan struct{})}
	one.life = time.AfterFunc(strangerLife, func() { conn.Close() })
	s.mu.Lock()
	defer s.mu.Unlock()
	from := map[netip.Addr]int{}
	most := one.source
	for _, other := range s.conns {
		if from[other.source]++; from[other.source] > from[most] {
			most = other.source
		}
	}
	switch {
	case from[one.source] >= maxFromOne:
		s.evictLocked(one.source)
	case len(s.conns) >= maxStrangers:
		s.evictLocked(most)
	}
	s.conns = append(s.conns, one)
	return one
}

// evictLocked closes the oldest connection from an address.
func (s *anonymousConns) evictLocked(source netip.Addr) {
	oldest := s.conns[slices.IndexFunc(s.conns, func(one *anonymousConn) bool { return one.source == source })]
	oldest.leaveLocked()
	oldest.conn.Close()
	if s.evicted.Again() {
		s.log.Warn("close the oldest connection "+s.which+": there are too many", "addr", oldest.conn.RemoteAddr().String(), "count", s.evicted)
	}
}

// leave ends the counting: its node is known, or it is gone. It may be called again.
func (s *anonymousConn) leave() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.leaveLocked()
}

func (s *anonymousConn) leaveLocked() {
	if s.gone {
		return
	}
	s.gone = true
	s.life.Stop()
	close(s.left)
	s.all.conns = slices.DeleteFunc(s.all.conns, func(other *anonymousConn) bool { return other == s })
}

// Source is the address that a connection comes from; of IPv6 the /64, since whoever
// has one has all of it.
func Source(remote string) netip.Addr {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return sourceAddr(from.Addr())
}

func sourceAddr(addr netip.Addr) netip.Addr {
	if addr = addr.Unmap(); addr.Is6() {
		if prefix, err := addr.WithZone("").Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return addr
}
