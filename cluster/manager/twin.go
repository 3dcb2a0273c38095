package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

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

// twins has the managers that are looked after, since they speak from another address than
// where they are known to be.
type twins struct {
	mu      sync.Mutex // guards looking
	looking map[string]bool
}

// begin tells whether to look after a manager: nobody else does.
func (t *twins) begin(nodeID string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.looking[nodeID] {
		return false
	}
	if t.looking == nil {
		t.looking = map[string]bool{}
	}
	t.looking[nodeID] = true
	return true
}

func (t *twins) end(nodeID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.looking, nodeID)
}

// lookAfter finds out where a manager is that speaks from claimed and is known to be at
// known; raft's configuration says configured. One that moved while this manager was off
// is heard a moment later.
func (m *Manager) lookAfter(nodeID, configured, known, claimed string) {
	if checkAddr(claimed) != nil || !m.twins.begin(nodeID) {
		return
	}
	go func() {
		defer m.twins.end(nodeID)
		if m.believe(context.Background(), nodeID, known, claimed) != nil {
			return
		}
		m.log.Info("a manager is elsewhere", "node", nodeID, "from", known, "to", claimed)
		m.where.note(nodeID, claimed, configured)
	}()
}

// placed refuses a request of raft's by a manager that is known to be elsewhere. One that
// isn't in raft's configuration yet has no place.
func (m *Manager) placed(from string, request any) error {
	header, is := request.(raft.WithRPCHeader)
	if !is || from == m.cfg.NodeID {
		return nil
	}
	claimed := string(header.GetRPCHeader().Addr)
	for _, server := range m.configuration() {
		configured := string(server.Address)
		known := m.where.of(from, configured)
		if string(server.ID) != from || known == claimed {
			continue
		}
		m.lookAfter(from, configured, known, claimed)
		return fmt.Errorf("hear node %s: it speaks from %s and is known to be at %s: %w", from, claimed, known, cluster.ErrUnavailable)
	}
	return nil
}
