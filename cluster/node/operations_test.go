package node

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/simulate"
	"skep/cluster"
)

// TestOrders_WaitUntilTheNodeKnowsWhatItIs: the API answers before the node has read its
// files, and an order to a node that is nobody begins with removing what it finds.
func TestOrders_WaitUntilTheNodeKnowsWhatItIs(t *testing.T) {
	n, err := New(Config{DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), Hostname: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.files.keys(), []byte("a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.runCtx = t.Context()
	for name, order := range map[string]func(context.Context) error{
		"init": func(ctx context.Context) error {
			_, err := n.Init(ctx, swarm.InitRequest{ListenAddr: "127.0.0.1", AdvertiseAddr: "127.0.0.1"})
			return err
		},
		"join": func(ctx context.Context) error {
			token := cluster.NewJoinToken("0000000000000000000000000000000000000000000000000a", n.cfg.Random)
			return n.Join(ctx, swarm.JoinRequest{ListenAddr: "127.0.0.1", AdvertiseAddr: "127.0.0.1", RemoteAddrs: []string{"127.0.0.1:1"}, JoinToken: token.String()})
		},
		"leave": func(ctx context.Context) error { return n.Leave(ctx, true) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := order(ctx)
		cancel()
		if !errors.Is(err, errStarting) {
			t.Errorf("%s on a node that is starting: %v", name, err)
		}
		if _, err := os.Stat(n.files.keys()); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
}
