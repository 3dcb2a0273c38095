package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

// Network is how managers reach each other: TCP, or a network in memory.
type Network interface {
	Listen(addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// dial opens a connection to another manager's control port. Whoever answers must be the
// one whose address it is in raft's configuration, if it is anybody's.
func (t *Transport) dial(ctx context.Context, addr, protocol string) (net.Conn, error) {
	want := cluster.Identity{Role: swarm.NodeRoleManager}
	there := slices.DeleteFunc(t.Servers(), func(s raft.Server) bool { return string(s.Address) != addr })
	if len(there) == 1 { // While managers move, one may be where another was.
		want.NodeID = string(there[0].ID)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	done, err := t.turns.acquire(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial manager %s: %w: %w", addr, cluster.ErrUnreachable, err)
	}
	defer done()
	return Dial(ctx, t.config.Network, addr, t.config.Credentials.ClientTLS(want, protocol))
}

// dialTimeout bounds a connection attempt, handshake included.
const dialTimeout = 2 * time.Second

// Dial opens a TLS connection to a control port. Its errors wrap
// cluster.ErrUnreachable: nothing was sent.
func Dial(ctx context.Context, network Network, addr string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	plain, err := network.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial manager %s: %w: %w", addr, cluster.ErrUnreachable, err)
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("dial manager %s: %w: %w", addr, cluster.ErrUnreachable, err), plain.Close())
	}
	return conn, nil
}
