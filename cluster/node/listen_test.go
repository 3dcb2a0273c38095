package node

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"skep/agent/simulate"
)

// TestListen_WebPagesAreRefusedByTCP: a browser on this machine can reach tcp://127.0.0.1, and
// is told by any name what to send there. It can't reach a unix socket.
func TestListen_WebPagesAreRefusedByTCP(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	n, err := New(Config{DataDir: filepath.Join(dir, "data"), Hosts: []string{"tcp://" + address, "unix://" + socket}, Driver: simulate.New(simulate.Config{}), Hostname: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-n.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the node isn't ready")
	}
	for _, test := range []struct {
		network, at, host string
		want              int
	}{
		{"tcp", address, address, http.StatusOK},
		{"tcp", address, "evil.example", http.StatusForbidden},
		{"unix", socket, "evil.example", http.StatusOK},
	} {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, test.network, test.at)
		}}}
		response, err := client.Get("http://" + test.host + "/_ping")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != test.want {
			t.Errorf("by %s a request for %s is answered %d; want %d", test.network, test.host, response.StatusCode, test.want)
		}
	}
}
