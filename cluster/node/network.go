package node

import (
	"context"
	"errors"
	"fmt"
	"net"

	"skep/cluster/manager"
)

// Network is how nodes reach each other: TCP, or a network in memory.
type Network = manager.Network

// tcp is the real network.
type tcp struct{ dialer net.Dialer }

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (t tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return t.dialer.DialContext(ctx, "tcp", addr)
}

// localIP is the address of this machine by which addr is reached.
func (c *Config) localIP(ctx context.Context, addr string) (string, error) {
	if _, real := c.Network.(tcp); !real {
		return "", errors.New("a network in memory has no routes")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", addr) // sends nothing
	if err != nil {
		return "", fmt.Errorf("find the route to %s: %w", addr, err)
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}
