package peers

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

// streams is the stream layer of the connections that this manager opens for raft: inbound
// has those that others open. Raft leaves connections open when it ends; Close closes them.
type streams struct {
	addr    net.Addr
	warm    *warmConns
	closed  chan struct{}
	once    sync.Once // closes closed
	tracked *trackedConns
}

var _ raft.StreamLayer = (*streams)(nil)

func newStreams(addr net.Addr, dial func(context.Context, string) (net.Conn, error)) *streams {
	return &streams{addr: addr, warm: newWarmConns(dial), closed: make(chan struct{}), tracked: newTrackedConns()}
}

// Accept waits for Close.
func (s *streams) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

func (s *streams) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.warm.close()
	return s.tracked.closeAll()
}

func (s *streams) Addr() net.Addr { return s.addr }

// Dial connects to a manager that is named together with its address: see dialTarget.
func (s *streams) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if conn := s.warm.take(string(target)); conn != nil {
		return s.tracked.keep(conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.warm.dial(ctx, string(target))
	if err != nil {
		return nil, err
	}
	return s.tracked.keep(conn)
}

// dialRaft opens a connection to the manager that target names; nobody else will do.
func (t *Transport) dialRaft(ctx context.Context, target string) (net.Conn, error) {
	id, addr := splitDialTarget(target)
	want := cluster.Identity{NodeID: id, Role: swarm.NodeRoleManager}
	return Dial(ctx, t.config.Network, addr, t.config.Credentials.OverdueTLS(want, t.config.KnownManager, cluster.ProtocolRaft))
}
