package manager

import (
	"errors"
	"net"
	"sync"
)

// lines is a listener that can break all connections it accepted. A process whose disk
// hangs can't end: the kernel keeps its connections open until the disk answers, and
// everybody else waits for it. So it breaks them itself.
type lines struct {
	net.Listener

	mu     sync.Mutex // guards the fields below
	broken bool
	open   map[*line]bool
}

type line struct {
	net.Conn
	of *lines
}

func newLines(listener net.Listener) *lines {
	return &lines{Listener: listener, open: map[*line]bool{}}
}

// Accept gives the next connection.
func (l *lines) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	accepted := &line{conn, l}
	l.open[accepted] = true
	return accepted, nil
}

// Close closes the connection.
func (c *line) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// cut refuses new connections and breaks those that there are.
func (l *lines) cut() {
	l.mu.Lock()
	open := l.open
	l.broken, l.open = true, nil
	l.mu.Unlock()
	l.Listener.Close()
	for c := range open {
		c.Conn.Close()
	}
}
