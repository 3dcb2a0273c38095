package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skep/cluster"
)

// TestActor_IsTheSocketsPeer asks who asks, by a socket of this machine, and what the leader
// makes of it when another manager forwards.
func TestActor_IsTheSocketsPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Config: Config{Hostname: "n7"}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, cluster.Actor(s.byUser(r).Context()))
		}))
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	request, err := http.NewRequest(http.MethodGet, "http://skep/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(actorHeader, "somebody else")
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	who, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if want := fmt.Sprintf("uid %d on n7", os.Getuid()); err != nil || string(who) != want {
		t.Errorf("it is %q, %v; want %q", who, err, want)
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	request.Header.Set(actorHeader, "uid 0 on n1\n\xff"+strings.Repeat("x", 1000))
	if who := cluster.Actor(byForwarder(request).Context()); !strings.HasPrefix(who, "uid 0 on n1x") || len(who) > 128 {
		t.Errorf("a forwarded one is %q", who)
	}
}
