package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/simulate"
	"skep/cluster"
)

// takenPorts is a network on which somebody has a port.
type takenPorts struct {
	tcp
	port string
}

func (n takenPorts) Listen(addr string) (net.Listener, error) {
	if strings.HasSuffix(addr, ":"+n.port) {
		return nil, fmt.Errorf("listen tcp %s: %w", addr, syscall.EADDRINUSE)
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// TestOrders_WithAnEngineInASwarmOfItsOwn says whose the ports are, and asks nobody else
// for anything before.
func TestOrders_WithAnEngineInASwarmOfItsOwn(t *testing.T) {
	state := ""
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/info" {
			fmt.Fprintf(w, `{"Swarm":{"NodeID":"theirs","LocalNodeState":%q}}`, state)
			return
		}
		fmt.Fprint(w, "[]")
	}))
	defer engine.Close()
	for _, port := range []string{"2377", "7946"} {
		n, err := New(Config{
			DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), Hostname: "n1",
			Engine: "tcp://" + engine.Listener.Addr().String(), Network: takenPorts{port: port},
		})
		if err != nil {
			t.Fatal(err)
		}
		n.runCtx = t.Context()
		close(n.ready)
		orders := map[string]func(context.Context) error{
			"init": func(ctx context.Context) error {
				_, err := n.Init(ctx, swarm.InitRequest{AdvertiseAddr: "127.0.0.1"})
				return err
			},
			"restore": func(ctx context.Context) error {
				_, err := n.Restore(ctx, cluster.RestoreRequest{AdvertiseAddr: "127.0.0.1"})
				return err
			},
		}
		if port == "7946" { // A worker has no control port.
			orders["join"] = func(ctx context.Context) error {
				token := cluster.NewJoinToken("0000000000000000000000000000000000000000000000000a", n.cfg.Random)
				return n.Join(ctx, swarm.JoinRequest{AdvertiseAddr: "127.0.0.1", RemoteAddrs: []string{"127.0.0.1:1"}, JoinToken: token.String()})
			}
		}
		for name, order := range orders {
			state = "active"
			if err := order(t.Context()); err == nil || !strings.Contains(err.Error(), "in a swarm of its own (node theirs), which has port 127.0.0.1:"+port) {
				t.Errorf("%s with port %s taken: %v", name, port, err)
			}
			state = "inactive"
			if err := order(t.Context()); err == nil || !strings.Contains(err.Error(), "another program has a port of this node") {
				t.Errorf("%s with port %s taken by another program: %v", name, port, err)
			}
		}
		if n.current() != nil {
			t.Error("it is a member")
		}
	}
}
