package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// The limits of a listener. Streams may last for ever, so neither reading nor
// writing as a whole has one: a body that is read here has bodyTimeout, and the
// engine guards its own.
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
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	done := make(chan error, 1)
	go func() {
		done <- server.Serve(&limited{Listener: listener, slots: make(chan struct{}, connections), closed: make(chan struct{})})
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

// limited is a listener with so many connections at most; more wait to be
// accepted.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: conn, release: func() { <-l.slots }}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// counted is a connection that gives its slot back once.
type counted struct {
	net.Conn
	release func()
	once    sync.Once
}

func (c *counted) Close() error {
	defer c.once.Do(c.release)
	return c.Conn.Close()
}

// CloseWrite ends one direction: a hijacked `docker run -i` whose input has ended
// goes on to show output.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}
