package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// answer is what a client is told.
type answer struct {
	// Task is the one that answers, Version that of its image.
	Task, Version string
	// Client is the address that the request came from.
	Client string
}

func answerTo(client net.Addr) answer {
	a := answer{Task: os.Getenv("TASK"), Version: os.Getenv("GUEST_VERSION")}
	if a.Task == "" {
		a.Task, _ = os.Hostname()
	}
	if from, err := netip.ParseAddrPort(client.String()); err == nil {
		a.Client = from.Addr().Unmap().String()
	}
	return a
}

// unhealthyFile makes /health say no while it is there; /ill makes it.
const unhealthyFile = "/ill"

// serve answers until ctx ends. Then it takes no more connections, and answers on those that
// it has until the client has closed each, which "Connection: close" tells it to do: so a
// client that is sent elsewhere in time sees no request fail.
func serve(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	port := fs.Int("port", 80, "of both protocols")
	after := fs.Duration("after", 0, "how long it takes until it listens")
	unready := fs.Duration("unready", 0, "how long after its start it is unhealthy")
	proxy := fs.String("proxy", "", "URL whose answer is the answer")
	grace := fs.Duration("grace", 10*time.Second, "how long connections may last after SIGTERM")
	if err := fs.Parse(args); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(*after):
	}
	began := time.Now()
	packets, err := net.ListenPacket("udp", fmt.Sprint(":", *port))
	if err != nil {
		return err
	}
	go echo(packets)

	var stopping atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a, err := answerTo(addr(r.RemoteAddr)), error(nil)
		if *proxy != "" {
			a, err = ask(r.Context(), *proxy+r.URL.Path)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		if d, err := time.ParseDuration(r.URL.Query().Get("takes")); err == nil {
			time.Sleep(min(d, time.Minute))
		}
		_ = json.NewEncoder(w).Encode(a)
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(unhealthyFile); err == nil || time.Since(began) < *unready {
			http.Error(w, "ill", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/ill", func(http.ResponseWriter, *http.Request) { _ = os.WriteFile(unhealthyFile, nil, 0o600) })

	open := &connections{open: map[net.Conn]bool{}, last: began}
	server := http.Server{ConnState: open.state, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		mux.ServeHTTP(w, r)
	})}
	l, err := net.Listen("tcp", fmt.Sprint(":", *port))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stopping.Store(true)
	stopped := time.Now()
	_ = l.Close()
	fmt.Println("told to stop with", open.count(), "connections,", open.idle(stopped), "after the last new one")
	for end := time.Now().Add(*grace); time.Now().Before(end) && open.count() > 0; {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("stopped after", time.Since(stopped), "with", open.count(), "connections")
	return errors.Join(server.Close(), packets.Close())
}

// connections are those that a server has.
type connections struct {
	mu   sync.Mutex // guards the fields below
	open map[net.Conn]bool
	last time.Time // when a client's came that isn't this container itself
}

// idle is how long before then nobody had come.
func (c *connections) idle(then time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return then.Sub(c.last)
}

func (c *connections) state(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		c.open[conn] = true
		if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && !from.Addr().Unmap().IsLoopback() {
			c.last = time.Now()
		}
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// addr is the remote address of a request as a net.Addr.
type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

// echo answers each packet.
func echo(packets net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		_, from, err := packets.ReadFrom(buf)
		if err != nil {
			return
		}
		text, _ := json.Marshal(answerTo(from))
		_, _ = packets.WriteTo(text, from)
	}
}
