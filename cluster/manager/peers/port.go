package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cluster"
)

const (
	// handshakeTimeout is how long a handshake at the control port may take.
	handshakeTimeout = 5 * time.Second
	// IdleTimeout is how long a connection for requests is kept that nobody uses.
	IdleTimeout = 2 * time.Minute
	// acceptRetry is the pause after a connection that couldn't be accepted.
	acceptRetry = 50 * time.Millisecond
)

// Port is a manager's control port, which anybody can reach.
type Port struct {
	trackedListener
	requests  *handoff
	anonymous *anonymousConns // set by Serve
}

// Listen opens the port. Connections wait until Serve.
func Listen(network Network, addr string) (*Port, error) {
	listener, err := network.Listen(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on control port %s: %w", addr, err)
	}
	return &Port{trackedListener: trackedListener{listener, newTrackedConns()}, requests: newHandoff(listener.Addr())}, nil
}

// PortConfig is what a Port works with; all of it is required.
type PortConfig struct {
	TLS *tls.Config
	// Nodes are the IP addresses of known nodes and the control addresses of managers: their
	// connections don't wait among strangers'.
	Nodes func() (nodes, managers []string)
	// Failed is told of a handshake that failed.
	Failed func(conn net.Conn, err error)
	// Route takes a connection when its handshake is done.
	Route func(ctx context.Context, conn *tls.Conn)
	Now   func() time.Time
	Log   *slog.Logger
}

// Serve accepts connections until ctx ends, and returns when Route has for each.
func (p *Port) Serve(ctx context.Context, config PortConfig) error {
	p.anonymous = &anonymousConns{log: config.Log, which: "without a certificate"}
	turns := newHandshakeTurns(&anonymousConns{log: config.Log, which: "that waits for its handshake"}, config.Now)
	nodes := newNodeSources(func() map[netip.Addr]int { return nodeWeights(config.Nodes()) }, config.Now)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return turns.run(ctx) })
	var conns sync.WaitGroup
	g.Go(func() error {
		for {
			plain, err := p.Accept()
			if ctx.Err() != nil {
				if err == nil {
					plain.Close()
				}
				return ctx.Err()
			}
			if err != nil {
				config.Log.Warn("accept on control port", "err", err)
				cluster.Sleep(ctx, acceptRetry)
				continue
			}
			shaken, known := nodes.admit(Source(plain.RemoteAddr().String()))
			conns.Go(func() {
				if !known {
					if !turns.wait(ctx, plain) {
						plain.Close()
						return
					}
					shaken = p.anonymous.admit(plain).leave
				}
				conn := tls.Server(plain, config.TLS)
				shaking, cancel := context.WithTimeout(ctx, handshakeTimeout)
				err := conn.HandshakeContext(shaking)
				cancel()
				shaken()
				if err != nil {
					config.Failed(conn, err)
					conn.Close()
					return
				}
				config.Route(ctx, conn)
			})
		}
	})
	err := g.Wait()
	conns.Wait()
	return err
}

// Requests has the connections that Route said are for requests.
func (p *Port) Requests() net.Listener { return p.requests }

// Request hands a connection to Requests.
func (p *Port) Request(conn net.Conn) { p.requests.deliver(conn) }

// RequestAnonymous is Request for a caller without a certificate, who has a stranger's place
// until it hangs up.
func (p *Port) RequestAnonymous(conn *tls.Conn) {
	p.requests.deliver(&leaving{Conn: conn, left: p.anonymous.admit(conn.NetConn()).leave})
}

// Close refuses new connections; those that there are go on.
func (p *Port) Close() error { return errors.Join(p.Listener.Close(), p.requests.Close()) }

// Break refuses new connections and breaks those that there are.
func (p *Port) Break() error { return p.closeAll() }

// leaving tells when a connection is closed.
type leaving struct {
	net.Conn
	once sync.Once
	left func()
}

// Close closes the connection and tells.
func (l *leaving) Close() error {
	l.once.Do(l.left)
	return l.Conn.Close()
}

// ConnectionState and HandshakeContext make net/http see the TLS connection.
func (l *leaving) ConnectionState() tls.ConnectionState { return l.Conn.(*tls.Conn).ConnectionState() }

// HandshakeContext does nothing: the handshake is done.
func (l *leaving) HandshakeContext(ctx context.Context) error { return nil }

// handoff is a listener whose connections are accepted elsewhere.
type handoff struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (h *handoff) deliver(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		conn.Close()
	}
}

// Accept gives the next connection that was delivered.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr is the control port's address.
func (h *handoff) Addr() net.Addr { return h.addr }
