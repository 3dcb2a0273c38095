package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"skep/cluster"
)

// A manager that is cloned with its disk is the same manager twice: one ID with two logs
// and two votes could elect two leaders in a term, and acknowledge what only the other one
// has. Dispatch finds a copy by its agent's sessions, which takes some seconds (see
// dispatch/liveness/copies.go); raft must not hear it meanwhile. Two machines have two addresses,
// and each manager sends to one only. So a request of raft's counts if it comes from a
// manager that calls itself by the address where it is known to be; and another address
// becomes known only when nobody else answers as that manager at the one of before. Which
// of the two is the copy nobody can tell: the one that was there first goes on.

// oneMachine fails when a manager that says it is at claimed also answers where it is known
// to be, and isn't the same process there.
func (m *Manager) oneMachine(ctx context.Context, nodeID, known, claimed string) error {
	if known == "" || known == claimed {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	var before, now cluster.ManagerHealth
	var gone, failed error
	var asked sync.WaitGroup
	asked.Go(func() { before, gone = m.account(limited, known) })
	asked.Go(func() { now, failed = m.account(limited, claimed) })
	asked.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("look for manager %s at %s: %w", nodeID, known, ctx.Err()) // Who asked has gone.
	case gone != nil || before.NodeID != nodeID:
		return nil
	case failed != nil:
		return fmt.Errorf("look for manager %s, which answers at %s: %w", nodeID, known, failed)
	case now.NodeID != nodeID:
		return cluster.Errorf(cluster.ErrPrecondition, "manager %s answers at %s, and %s does at %s", nodeID, known, now.NodeID, claimed)
	case before.Start == "" || now.Start == "" || before.Start == now.Start:
		return nil // An older version doesn't tell.
	}
	return cluster.Errorf(cluster.ErrPrecondition, "two machines are manager %s: one at %s, which goes on, and one at %s, which is refused: one is a copy of the other's disk. "+
		"Stop the daemon of the one that isn't wanted, remove its data directory, and join it anew", nodeID, known, claimed)
}

// errVoteFirst is what a manager is told that comes in the place of another machine.
var errVoteFirst = fmt.Errorf("another machine was this manager a moment ago, whose log may have more: its vote is taken before it is let in: %w", cluster.ErrUnavailable)

// believe decides whether a manager is at claimed, which is known to be elsewhere. One that
// comes in the place of another machine may lack what that one acknowledged, so it is as
// one that lost its database: it has no vote until it has caught up. See lost.
func (m *Manager) believe(ctx context.Context, nodeID, known, claimed string) error {
	if err := checkAddr(claimed); err != nil {
		return err
	}
	err := m.oneMachine(ctx, nodeID, known, claimed)
	if errors.Is(err, cluster.ErrPrecondition) {
		m.foundTwin(nodeID, err)
	}
	if err != nil {
		return err
	}
	if _, votes := m.Reachable()[nodeID]; votes && m.waits.wasTwin(nodeID, m.cfg.Now()) {
		return fmt.Errorf("hear manager %s at %s: %w", nodeID, claimed, errVoteFirst)
	}
	return nil
}

// foundTwin notes why a manager isn't believed where it is, and says so when that is new.
func (m *Manager) foundTwin(nodeID string, err error) {
	if m.waits.twin(nodeID, m.cfg.Now(), err) {
		m.log.Error("refuse a manager at another address", "name", m.nameOf(nodeID), "node", nodeID, "err", err)
	}
}

// account is a manager's account of itself, by its address.
func (m *Manager) account(ctx context.Context, addr string) (cluster.ManagerHealth, error) {
	if addr == m.cfg.Addr {
		return m.Health(), nil
	}
	return m.askHealth(ctx, addr)
}
