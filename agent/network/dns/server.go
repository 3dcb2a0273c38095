package dns

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// asked is how many questions may be with other resolvers at once, from all containers, and
	// askedEach from one: a container that floods a resolver which doesn't answer takes no more
	// memory than that, and leaves others room.
	asked, askedEach = 1024, 128
	// connected is how many connections there may be, and connectedEach from one container.
	connected, connectedEach = 512, 32
	// idle is how long a connection may say nothing, or not read its answers, and questions
	// how many it may ask.
	idle, questions = 5 * time.Second, 128
	// largestQuestion is the most bytes that a question has; what they are about has 255.
	largestQuestion = 4096
)

// Config is what a Server needs.
type Config struct {
	// Exchange asks a resolver, by "udp" or "tcp", until ctx ends. By default it does so
	// by the network.
	Exchange func(ctx context.Context, network string, question *dns.Msg, resolver netip.AddrPort) (*dns.Msg, error)
	// Random is the source of the order of addresses.
	Random *rand.Rand
	Log    *slog.Logger
}

// Server answers questions by the Names that it was given last.
type Server struct {
	cfg   Config
	names atomic.Pointer[Names]
	asked *places // with other resolvers
	conns *places

	mu sync.Mutex // guards cfg.Random
}

// NewServer returns a server without names.
func NewServer(cfg Config) *Server {
	if cfg.Exchange == nil {
		cfg.Exchange = exchange
	}
	return &Server{cfg: cfg, asked: newPlaces(asked, askedEach), conns: newPlaces(connected, connectedEach)}
}

// Set has questions answered by n from now on. n isn't to be changed any more.
func (s *Server) Set(n *Names) { s.names.Store(n) }

// ServePackets answers what comes in by UDP until conn is closed or has a deadline that is over, and
// then waits for the answers that are under way. It fails when conn does.
func (s *Server) ServePackets(conn *net.UDPConn, at Listen) error {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	buf := make([]byte, largestQuestion)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return endOf(err)
		}
		s.question(&underWay, buf[:n], at, from.Addr().Unmap(), false, func(packed []byte) {
			if _, err := conn.WriteToUDPAddrPort(packed, from); err != nil {
				s.cfg.Log.Debug("answer a name", "addr", from.String(), "err", err)
			}
		})
	}
}

// ServeConns answers what comes in by TCP, likewise. Connections are served to their end, which is
// near when nothing is asked any more.
func (s *Server) ServeConns(l *net.TCPListener, at Listen) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return endOf(err)
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !s.conns.take(from) {
			_ = conn.Close()
			continue
		}
		open.Go(func() {
			defer s.conns.give(from)
			s.serveConn(conn, at, from)
		})
	}
}

// endOf is nil for an error that says that somebody ended the work.
func endOf(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// serveConn answers the questions of one connection. One that waits for a resolver holds up
// none of the others.
func (s *Server) serveConn(conn *net.TCPConn, at Listen, from netip.Addr) {
	defer conn.Close()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	var writing sync.Mutex
	out := dns.Conn{Conn: conn}
	var size [2]byte
	buf := make([]byte, largestQuestion)
	for range questions {
		_ = conn.SetReadDeadline(time.Now().Add(idle))
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		n := int(size[0])<<8 | int(size[1])
		if n > len(buf) {
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		s.question(&underWay, buf[:n], at, from, true, func(packed []byte) {
			writing.Lock()
			defer writing.Unlock()
			_ = conn.SetWriteDeadline(time.Now().Add(idle))
			if _, err := out.Write(packed); err != nil {
				_ = conn.Close() // Half an answer may have gone out.
			}
		})
	}
}

// question answers one question, which isn't used any more when it returns. Only what is asked of
// other resolvers is answered later.
func (s *Server) question(underWay *sync.WaitGroup, packed []byte, at Listen, from netip.Addr, tcp bool, write func([]byte)) {
	defer s.survive(from)
	question := new(dns.Msg)
	if err := question.Unpack(packed); err != nil {
		return // Whatever is said to it could be said to somebody else.
	}
	if !at.hears(from) {
		return
	}
	send := func(reply *dns.Msg) {
		fit(question, reply, tcp)
		out, err := reply.Pack()
		if err != nil {
			s.cfg.Log.Debug("answer a name", "addr", from.String(), "err", err)
			return
		}
		write(out)
	}
	reply, ask := Answer(s.names.Load(), from, question, s.shuffle)
	switch {
	case reply != nil:
		send(reply)
	case ask == nil:
	case !s.asked.take(from):
		send(failure(question))
	default:
		underWay.Go(func() {
			defer s.survive(from)
			defer s.asked.give(from)
			send(s.forward(question, ask, tcp))
		})
	}
}

// survive keeps a packet from ending the process, and with it everybody's names.
func (s *Server) survive(from netip.Addr) {
	if p := recover(); p != nil {
		s.cfg.Log.Error("a question made the name server panic", "addr", from.String(), "panic", p, "stack", string(debug.Stack()))
	}
}

func (s *Server) shuffle(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Random.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
}

// places are what there are a bounded number of, for all and for each asker.
type places struct {
	most, mostEach int

	mu    sync.Mutex // guards taken and all
	taken map[netip.Addr]int
	all   int
}

func newPlaces(most, mostEach int) *places {
	return &places{most: most, mostEach: mostEach, taken: make(map[netip.Addr]int)}
}

func (p *places) take(who netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == p.most || p.taken[who] == p.mostEach {
		return false
	}
	p.all++
	p.taken[who]++
	return true
}

func (p *places) give(who netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.taken[who]--; p.taken[who] == 0 {
		delete(p.taken, who)
	}
}
