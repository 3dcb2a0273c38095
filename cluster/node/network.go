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

// LocalIP is the address of this machine by which addr is reached.
func (t tcp) LocalIP(ctx context.Context, addr string) (string, error) {
	conn, err := t.dialer.DialContext(ctx, "udp", addr) // sends nothing
	if err != nil {
		return "", fmt.Errorf("find the route to %s: %w", addr, err)
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}

// localIP is the address of this machine by which addr is reached, on a network that
// has routes.
func (c *Config) localIP(ctx context.Context, addr string) (string, error) {
	routes, ok := c.Network.(interface {
		LocalIP(ctx context.Context, addr string) (string, error)
	})
	if !ok {
		return "", errors.New("a network in memory has no routes")
	}
	return routes.LocalIP(ctx, addr)
}

// localNetwork is the network as a node uses it. Its own control port it reaches directly: what
// it advertises may be a NAT's, which needn't lead back in.
type localNetwork struct {
	Network
	advertised, direct string
}

// home is the network of a node with these addresses.
func (a addresses) home(network Network) localNetwork {
	return localNetwork{network, a.Control, a.direct()}
}

// direct is where the node itself reaches its control port.
func (a addresses) direct() string {
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil {
		return a.Control
	}
	switch ip := net.ParseIP(host); {
	case ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.IsUnspecified():
		host = net.IPv6loopback.String()
	}
	return net.JoinHostPort(host, port)
}

// Dial connects.
func (h localNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if addr == h.advertised {
		addr = h.direct
	}
	return h.Network.Dial(ctx, addr)
}
