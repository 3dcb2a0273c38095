package peers

import (
	"errors"
	"net"
	"sync"
)

// trackedConns are connections that can be broken all at once.
type trackedConns struct {
	mu     sync.Mutex // guards the fields below
	broken bool
	open   map[*trackedConn]bool
}

// trackedConn is a connection that is known to be open.
type trackedConn struct {
	net.Conn
	of *trackedConns
}

func newTrackedConns() *trackedConns { return &trackedConns{open: map[*trackedConn]bool{}} }

// keep makes conn one of those that are broken with the others; net.ErrClosed when
// they already are.
func (l *trackedConns) keep(conn net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	kept := &trackedConn{conn, l}
	l.open[kept] = true
	return kept, nil
}

// Close closes the connection.
func (c *trackedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// NetConn is the connection itself.
func (c *trackedConn) NetConn() net.Conn { return c.Conn }

// closeAll breaks all of them, now and from now on.
func (l *trackedConns) closeAll() error {
	l.mu.Lock()
	open := l.open
	l.broken, l.open = true, nil
	l.mu.Unlock()
	var errs []error
	for c := range open {
		errs = append(errs, c.Conn.Close())
	}
	return errors.Join(errs...)
}

// trackedListener is a listener that can break all connections it accepted. A process whose disk
// hangs can't end: the kernel keeps its connections open until the disk answers, and
// everybody else waits for it. So it breaks them itself.
type trackedListener struct {
	net.Listener
	tracked *trackedConns
}

// Accept gives the next connection.
func (p trackedListener) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return p.tracked.keep(conn)
}

// closeAll refuses new connections and breaks those that there are.
func (p trackedListener) closeAll() error {
	return errors.Join(p.Listener.Close(), p.tracked.closeAll())
}
