package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
)

// A manager that the others can't reach would be a voter that never answers: it takes a
// vote from the quorum and gives none. So the leader dials a manager back before it
// believes an address, as Docker does: one that joins before anything is written of it,
// one that was promoted, or has moved, before it is a member of raft's group.

// reach dials back whoever says that its manager is at addr, and wants the peer that
// config wants.
func (m *Manager) reach(ctx context.Context, addr string, config *tls.Config) error {
	conn, err := Dial(ctx, m.cfg.Network, addr, config)
	if err != nil {
		return cluster.Errorf(cluster.ErrPrecondition, "could not connect to prospective new cluster member using its advertised address: %v; "+
			"the leader, at %s, must reach it there: give it an --advertise-addr that the other managers reach, and open its port", err, m.cfg.Addr)
	}
	conn.Close()
	return nil
}

// reachJoiner dials back a node that asks to join as a manager.
func (m *Manager) reachJoiner(ctx context.Context, request JoinRequest) error {
	if err := checkAddr(request.Control); err != nil {
		return err
	}
	config, err := ca.ReachTLS(request.CSR, cluster.ProtocolHTTP)
	if err != nil {
		return err
	}
	return m.reach(ctx, request.Control, config)
}

// reachManager dials back a node that runs a manager.
func (m *Manager) reachManager(ctx context.Context, nodeID, addr string) error {
	if nodeID == m.cfg.NodeID && addr == m.cfg.Addr {
		return nil
	}
	return m.reach(ctx, addr, m.cfg.Credentials.ClientTLS(cluster.Identity{NodeID: nodeID, Role: swarm.NodeRoleManager}, cluster.ProtocolHTTP))
}

const (
	// answerLimit is how long somebody who dials a joining node may take, and maxAnswers
	// how many may do so at once.
	answerLimit = 2 * time.Second
	maxAnswers  = 16
)

// Listening is a joining node's control port: the leader finds there that it is reached.
type Listening struct {
	listener net.Listener
	done     chan struct{}
}

// ListenForLeader has whoever connects to the address find the holder of the TLS configuration's
// key there, until Close.
func ListenForLeader(network Network, listen string, config *tls.Config) (*Listening, error) {
	listener, err := network.Listen(listen)
	if err != nil {
		return nil, fmt.Errorf("listen on control port %s: %w", listen, err)
	}
	a := &Listening{listener: listener, done: make(chan struct{})}
	go a.run(config)
	return a, nil
}

func (a *Listening) run(config *tls.Config) {
	defer close(a.done)
	slots := make(chan struct{}, maxAnswers)
	for {
		conn, err := a.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			cluster.Sleep(context.Background(), 50*time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		go func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
			defer cancel()
			shaken := tls.Server(conn, config)
			_ = shaken.HandshakeContext(ctx) // Whoever fails hears of it.
			shaken.Close()
		}()
	}
}

// Close ends it; the port is free when it returns.
func (a *Listening) Close() error {
	err := a.listener.Close()
	<-a.done
	return err
}
