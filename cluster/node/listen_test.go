package node

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
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

// TestListen_SocketIsForItsGroup: whoever may use it has root's rights.
func TestListen_SocketIsForItsGroup(t *testing.T) {
	other := 1
	for _, group := range []*int{nil, &other} {
		if group != nil && os.Geteuid() != 0 {
			t.Skip("only root may give it to another group")
		}
		path := filepath.Join(t.TempDir(), "sock")
		listener, err := listenAPI("unix://"+path, group)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		want := os.Getegid()
		if group != nil {
			want = *group
		}
		if is := info.Sys().(*syscall.Stat_t); int(is.Gid) != want || info.Mode().Perm() != 0o660 {
			t.Errorf("the socket has mode %v and group %d; want 660 and %d", info.Mode().Perm(), is.Gid, want)
		}
	}
}
