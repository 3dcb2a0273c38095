package campaign

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

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
		c := New(Config{HeartbeatTimeout: time.Second, Dial: network.Dial})
		if got := c.refuses(t.Context(), "leader:1"); got != test.want {
			t.Errorf("with a port open for %d more calls: %v; want %v", test.open, got, test.want)
		}
	}
}
