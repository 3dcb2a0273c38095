package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
)

// listen serves handler on a unix socket and returns its path and what ends it.
func listen(t testing.TB, handler http.Handler, headerTimeout time.Duration, connections int) (path string, stop func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "skep.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, listener, handler, headerTimeout, connections) }()
	var result error
	ended := false
	stop = func() error {
		if !ended {
			ended = true
			cancel()
			result = <-done
		}
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return path, stop
}

func dial(t testing.TB, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

func TestServeLimits(t *testing.T) {
	b := newBench(t)
	path, _ := listen(t, b.handler, 200*time.Millisecond, 4)

	// Headers that never end are cut off.
	slow := dial(t, path)
	fmt.Fprintf(slow, "GET /_ping HTTP/1.1\r\nHost: a\r\n")
	began := time.Now()
	if data, err := io.ReadAll(slow); err != nil || strings.Contains(string(data), "200 OK") {
		t.Errorf("%q %v", data, err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("cut off after %s", took)
	}
	// So are headers that are too long.
	long := dial(t, path)
	go fmt.Fprintf(long, "GET /_ping HTTP/1.1\r\nHost: a\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 2*MaxHeaderBytes))
	if line, _ := bufio.NewReader(long).ReadString('\n'); !strings.Contains(line, "431") {
		t.Errorf("%q", line)
	}
	path, _ = listen(t, b.handler, 30*time.Second, 4)
	// No more requests than allowed are served at once; the next waits for one to end.
	var held []net.Conn
	for range 4 {
		conn := dial(t, path)
		fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
		if line, _ := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "200") {
			t.Fatalf("%q", line)
		}
		held = append(held, conn)
	}
	fifth := dial(t, path)
	fmt.Fprintf(fifth, "GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
	fifth.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _ := fifth.Read(make([]byte, 1)); n > 0 {
		t.Error("a connection over the limit was served")
	}
	held[0].Close()
	fifth.SetReadDeadline(time.Now().Add(30 * time.Second))
	if line, _ := bufio.NewReader(fifth).ReadString('\n'); !strings.Contains(line, "200") {
		t.Errorf("%q", line)
	}
}

// TestServe_IdleConnectionsKeepNobodyOut: clients that keep connections without asking, be it ever
// or any more, give way to those that ask.
func TestServe_IdleConnectionsKeepNobodyOut(t *testing.T) {
	b := newBench(t)
	path, _ := listen(t, b.handler, ReadHeaderTimeout, MaxConnections)
	stream := dial(t, path)
	fmt.Fprintf(stream, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
	if line, _ := bufio.NewReader(stream).ReadString('\n'); !strings.Contains(line, "200") {
		t.Fatalf("%q", line)
	}
	var slowest time.Duration
	ping := func() {
		t.Helper()
		began := time.Now()
		conn := dial(t, path)
		fmt.Fprintf(conn, "GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "200") {
			t.Fatalf("%q, %v", line, err)
		}
		slowest = max(slowest, time.Since(began))
	}
	for i := range 2000 {
		if i%4 == 0 {
			ping() // and stay, idle
			continue
		}
		dial(t, path)
	}
	t.Logf("the slowest of 500 pings beside 2000 idle connections took %v", slowest)
	if slowest > 3*time.Second {
		t.Errorf("a ping took %v", slowest)
	}
	// Who is being answered keeps the connection.
	b.server.events.record(events.Message{Type: "node", Action: "update", Scope: "swarm", TimeNano: time.Now().UnixNano()})
	stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	for reader := bufio.NewReader(stream); ; {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if strings.Contains(line, `"update"`) {
			break
		}
	}
}

// TestServe_WaitsForAnyRoom: when all are being answered, the first that is idle, or ends, gives way.
func TestServe_WaitsForAnyRoom(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	path, _ := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-release
		}
	}), time.Minute, 2)
	for range 2 {
		fmt.Fprintf(dial(t, path), "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		<-begun
	}
	third := dial(t, path)
	fmt.Fprintf(third, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _ := third.Read(make([]byte, 1)); n > 0 {
		t.Error("a connection over the limit was served")
	}
	close(release) // the first two stay, idle
	third.SetReadDeadline(time.Now().Add(30 * time.Second))
	if line, err := bufio.NewReader(third).ReadString('\n'); !strings.Contains(line, "200") {
		t.Errorf("%q, %v", line, err)
	}
}

func TestServeEnds(t *testing.T) {
	begun := make(chan struct{})
	path, stop := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done() // a stream without end
	}), time.Second, 4)
	conn := dial(t, path)
	fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket still listens")
	}
}
