package campaign

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestStanding(t *testing.T) {
	servers := []raft.Server{{ID: "c"}, {ID: "a"}, {ID: "b"}, {ID: "d", Suffrage: raft.Nonvoter}}
	for _, test := range []struct {
		self, lost string
		want       int
	}{
		{"a", "b", 0}, {"c", "b", 1}, {"b", "a", 0}, {"c", "a", 1}, {"d", "a", -1}, {"x", "a", -1}, {"a", "a", -1},
	} {
		if got := electionRank(servers, test.self, test.lost); got != test.want {
			t.Errorf("standing of %s without %s is %d; want %d", test.self, test.lost, got, test.want)
		}
	}
}

// closing is the network to a process that ends: its port is still open for the
// first calls.
type closing struct {
	calls, open int
}

func (c *closing) Dial(context.Context, string) (net.Conn, error) {
	if c.calls++; c.calls <= c.open {
		near, far := net.Pipe()
		far.Close()
		return near, nil
	}
	return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
}

func TestRefuses_LooksAgain(t *testing.T) {
	for _, test := range []struct {
		open int
		want bool
	}{{0, true}, {1, true}, {2, true}, {100, false}} {
		network := &closing{open: test.open}
		c := &Campaign{Config: Config{HeartbeatTimeout: time.Second, Dial: network.Dial}}
		if got := c.refuses(t.Context(), "leader:1"); got != test.want {
			t.Errorf("with a port open for %d more calls: %v; want %v", test.open, got, test.want)
		}
	}
}
