package api

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// The limits of a listener. Streams may last for ever, so neither reading nor
// writing as a whole has one: a body that is read here has bodyTimeout, the engine
// guards its own, and for what is written see patience.
const (
	ReadHeaderTimeout = 10 * time.Second
	IdleTimeout       = 2 * time.Minute
	MaxHeaderBytes    = 64 << 10
	MaxConnections    = 1024

	bodyTimeout     = 30 * time.Second
	shutdownTimeout = 3 * time.Second
)

// Serve serves handler on listener within the limits above until ctx ends. Then
// it takes no more requests, lets those under way finish for a short while,
// and cuts the rest off. The listener is closed when it returns.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return serve(ctx, listener, handler, ReadHeaderTimeout, MaxConnections)
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler, headerTimeout time.Duration, connections int) error {
	// Streams end with the server: their requests' contexts descend from base.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	limited := newLimited(listener, connections)
	server := &http.Server{
		Handler:           handler,
		ConnState:         limited.note,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
	}
	done := make(chan error, 1)
	go func() {
		done <- server.Serve(limited)
	}()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	grace := time.AfterFunc(shutdownTimeout/3, cut) // short requests first; then streams are told to end
	defer grace.Stop()
	if err := server.Shutdown(wait); err != nil {
		_ = server.Close() // what is left doesn't end by itself: there is nothing else to do
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// limited is a listener with so many connections at most. One more takes the place of the one
// that has been idle for longest: clients keep connections for later, and may forget them. When
// all are being answered it waits.
type limited struct {
	net.Listener
	most int

	mu   sync.Mutex // guards the fields below
	room *sync.Cond // signalled when there may be room
	open int
	// idle are connections on which nothing is being answered, the oldest first.
	idle   list.List
	closed bool
}

func newLimited(listener net.Listener, most int) *limited {
	l := &limited{Listener: listener, most: most}
	l.room = sync.NewCond(&l.mu)
	return l
}

func (l *limited) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open >= l.most && !l.closed {
		if oldest := l.idle.Front(); oldest != nil {
			l.closeLocked(oldest.Value.(*counted))
			continue
		}
		l.room.Wait()
	}
	if l.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.open++
	return &counted{Conn: conn, of: l}, nil
}

// note hears from the server what becomes of a connection.
func (l *limited) note(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*counted)
	if !ok {
		return
	}
	if state == http.StateIdle {
		_ = c.SetWriteDeadline(time.Time{}) // The last answer's; if it is closed already, all is well.
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busyLocked(c)
	if (state == http.StateNew || state == http.StateIdle) && !c.gone {
		c.idle = l.idle.PushBack(c)
		l.room.Signal()
	}
}

// busyLocked takes a connection from the idle ones, if it is there.
func (l *limited) busyLocked(c *counted) {
	if c.idle != nil {
		l.idle.Remove(c.idle)
		c.idle = nil
	}
}

func (l *limited) closeLocked(c *counted) {
	l.busyLocked(c)
	if !c.gone {
		c.gone = true
		l.open--
		l.room.Signal()
	}
	_ = c.Conn.Close() // It is over either way.
}

func (l *limited) Close() error {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// counted is a connection that gives its place back once.
type counted struct {
	net.Conn
	of *limited

	gone bool          // guarded by of.mu, as idle is
	idle *list.Element // nil while something is being answered
}

func (c *counted) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.closeLocked(c)
	return nil
}

// CloseWrite ends one direction: a hijacked `docker run -i` whose input has ended
// goes on to show output.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}
