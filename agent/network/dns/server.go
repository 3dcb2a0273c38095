package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// asked is how many questions may be with other resolvers at once, from all containers: one
	// that floods a resolver which doesn't answer takes no more memory than that.
	asked = 1024
	// patience is how long a resolver is waited for, before the next one is asked.
	patience = 2 * time.Second
	// idle is how long a connection may say nothing, and questions how many it may ask.
	idle, questions = 5 * time.Second, 128
)

// Config is what a Server needs.
type Config struct {
	// Packets and Conns are where questions come in.
	Packets []net.PacketConn
	Conns   []net.Listener
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
	asked chan struct{} // has a place for each question that is with a resolver

	mu sync.Mutex // guards cfg.Random
}

// NewServer returns a server without names.
func NewServer(cfg Config) *Server {
	if cfg.Exchange == nil {
		cfg.Exchange = exchange
	}
	return &Server{cfg: cfg, asked: make(chan struct{}, asked)}
}

// Set has questions answered by n from now on. n isn't to be changed any more.
func (s *Server) Set(n *Names) { s.names.Store(n) }

// Run answers until ctx ends or a listener fails, and closes the listeners.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var servers []*dns.Server
	for _, conn := range s.cfg.Packets {
		servers = append(servers, &dns.Server{PacketConn: conn, UDPSize: largestPacket})
	}
	for _, l := range s.cfg.Conns {
		servers = append(servers, &dns.Server{Listener: l, ReadTimeout: idle, WriteTimeout: idle, IdleTimeout: func() time.Duration { return idle }, MaxTCPQueries: questions})
	}
	ended := make(chan error, len(servers))
	for _, server := range servers {
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) { s.serve(ctx, w, question) })
		go func() { ended <- server.ActivateAndServe() }()
	}
	var failed error
	select {
	case <-ctx.Done():
		failed = ctx.Err()
	case err := <-ended:
		failed = fmt.Errorf("serve names: %w", err)
		ended <- err
	}
	cancel()
	for _, conn := range s.cfg.Packets {
		_ = conn.Close()
	}
	for _, l := range s.cfg.Conns {
		_ = l.Close()
	}
	for range servers {
		<-ended
	}
	return failed
}

// serve answers one question.
func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, question *dns.Msg) {
	from, tcp := whoAsks(w.RemoteAddr())
	reply, ask := Answer(s.names.Load(), from, question, s.shuffle)
	if ask != nil {
		reply = s.forward(ctx, question, ask, tcp)
	}
	if reply == nil {
		return
	}
	fit(question, reply, tcp)
	if err := w.WriteMsg(reply); err != nil {
		s.cfg.Log.Debug("answer a name", "addr", from.String(), "err", err)
	}
}

func whoAsks(addr net.Addr) (from netip.Addr, tcp bool) {
	switch addr := addr.(type) {
	case *net.UDPAddr:
		return addr.AddrPort().Addr().Unmap(), false
	case *net.TCPAddr:
		return addr.AddrPort().Addr().Unmap(), true
	}
	return netip.Addr{}, false
}

func (s *Server) shuffle(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Random.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
}

// forward asks resolvers, one after the other, until one answers.
func (s *Server) forward(ctx context.Context, question *dns.Msg, resolvers []netip.AddrPort, tcp bool) *dns.Msg {
	failure := new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)
	failure.RecursionAvailable = true
	select {
	case s.asked <- struct{}{}:
		defer func() { <-s.asked }()
	default:
		return failure
	}
	network := "udp"
	if tcp {
		network = "tcp"
	}
	for _, resolver := range resolvers {
		ctx, cancel := context.WithTimeout(ctx, patience)
		reply, err := s.cfg.Exchange(ctx, network, question, resolver)
		cancel()
		if err == nil && reply != nil {
			reply.Id = question.Id
			return reply
		}
		s.cfg.Log.Debug("ask a resolver", "addr", resolver.String(), "err", err)
	}
	return failure
}

// exchange asks a resolver.
func exchange(ctx context.Context, network string, question *dns.Msg, resolver netip.AddrPort) (*dns.Msg, error) {
	client := &dns.Client{Net: network, UDPSize: dns.MaxMsgSize}
	reply, _, err := client.ExchangeContext(ctx, question.Copy(), resolver.String())
	if err == nil && reply.Id != question.Id {
		err = errors.New("the answer is to another question")
	}
	return reply, err
}
