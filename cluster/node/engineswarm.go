package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"skep/cluster"
)

// The machine's Docker Engine may be in a swarm of its own. That one has the ports that
// this node wants, and runs tasks of which this cluster knows nothing.

// engineSwarmLook is how often a node asks its engine.
const engineSwarmLook = time.Minute

// freePorts fails when somebody has a port that the node will need, before anything is
// asked of others.
func (n *Node) freePorts(ctx context.Context, addrs addresses, control bool) error {
	wanted := []string{net.JoinHostPort(addrs.Bind, strconv.Itoa(gossipPort))}
	if control {
		wanted = append(wanted, addrs.Listen)
	}
	for _, addr := range wanted {
		listener, err := n.cfg.Network.Listen(addr)
		if err == nil {
			err = listener.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			continue // Anything else is said where the port is used.
		}
		if nodeID, is, asked := n.api.EngineSwarm(ctx); asked == nil && is {
			return cluster.Errorf(cluster.ErrPrecondition, "the machine's Docker Engine is in a swarm of its own (node %s), which has port %s: "+
				"leave it first, by \"docker -H %s swarm leave\", with --force if it is a manager: the last one takes that swarm with it (%v)", nodeID, addr, n.cfg.Engine, err)
		}
		return fmt.Errorf("another program has a port of this node: %w", err)
	}
	return nil
}

// watchEngineSwarm asks the engine whether it is in a swarm of its own, until ctx ends.
func (m *member) watchEngineSwarm(ctx context.Context) error {
	for {
		nodeID, is, err := m.node.api.EngineSwarm(ctx)
		warning := ""
		if is {
			warning = fmt.Sprintf("its Docker Engine is in a swarm of its own (node %s), of whose tasks this cluster knows nothing: leave that by \"docker -H %s swarm leave\"", nodeID, m.node.cfg.Engine)
		}
		if err == nil {
			m.warn(warning)
		}
		if !cluster.Sleep(ctx, engineSwarmLook) {
			return ctx.Err()
		}
	}
}

// warn says what is wrong with the node though it works; "" for nothing. The agent tells
// the managers.
func (m *member) warn(warning string) {
	m.mu.Lock()
	before := m.warning
	m.warning = warning
	m.mu.Unlock()
	if warning != "" && warning != before {
		m.node.log.Warn("this node works, but "+warning, "node", m.credentials.Identity().NodeID)
	}
}

// warned is what warn said last.
func (m *member) warned() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lack := ""
	switch cfg := &m.node.cfg; {
	case cfg.NoPlane != "":
		lack = "it carries no networks: " + cfg.NoPlane
	case cfg.Plane != nil && cfg.NoEncryption != "":
		lack = "it carries no encrypted networks: " + cfg.NoEncryption
	}
	return cluster.Sentences(m.warning, lack)
}
