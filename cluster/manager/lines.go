package manager

import (
	"errors"
	"net"
	"sync"
)

// lines are connections that can be broken all at once.
type lines struct {
	mu     sync.Mutex // guards the fields below
	broken bool
	open   map[*line]bool
}

// line is a connection that is known to be open.
type line struct {
	net.Conn
	of *lines
}

func newLines() *lines { return &lines{open: map[*line]bool{}} }

// keep makes conn one of those that are broken with the others; net.ErrClosed when
// they already are.
func (l *lines) keep(conn net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	kept := &line{conn, l}
	l.open[kept] = true
	return kept, nil
}

// Close closes the connection.
func (c *line) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// cut breaks all of them, now and from now on.
func (l *lines) cut() error {
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

// port is a listener that can break all connections it accepted. A process whose disk
// hangs can't end: the kernel keeps its connections open until the disk answers, and
// everybody else waits for it. So it breaks them itself.
type port struct {
	net.Listener
	lines *lines
}

// Accept gives the next connection.
func (p port) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return p.lines.keep(conn)
}

// cut refuses new connections and breaks those that there are.
func (p port) cut() error { return errors.Join(p.Listener.Close(), p.lines.cut()) }
