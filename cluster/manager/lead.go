package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/scheduler"
	"skep/store"
)

// lead is what a leader does. It returns when leadership ends, or when one of
// its parts fails.
func (m *Manager) lead(ctx context.Context, term uint64) error {
	m.peers.reset()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.store.Lead(ctx, m.raft) })
	g.Go(func() error {
		if err := m.bootstrap(ctx); err != nil {
			return err
		}
		if err := m.leaveOthers(ctx); err != nil {
			return err
		}
		m.setEstablished(term)
		m.log.Info("lead the cluster", "node", m.cfg.NodeID, "term", term)
		g.Go(func() error {
			return scheduler.Run(ctx, scheduler.Config{
				Store: m.store, Now: m.store.Now, Steady: m.cfg.Now, Log: m.log,
				NewID: func() string { return cluster.NewID(m.cfg.Random) },
			})
		})
		g.Go(func() error { return m.dispatch.Lead(ctx) })
		g.Go(func() error { return m.rotate(ctx) })
		g.Go(func() error { return m.finishRoot(ctx) })
		g.Go(func() error { return m.raiseLevel(ctx) })
		return m.voters(ctx)
	})
	return g.Wait()
}

// leadTimeout bounds each step of raft's that a leader waits for.
const leadTimeout = 10 * time.Second

// bootstrap waits until the store takes writes, and writes the objects that a
// new cluster begins with.
func (m *Manager) bootstrap(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	for {
		err := m.store.Update(waiting, func(*store.Tx) error { return nil })
		if err == nil {
			break
		}
		if pause(waiting, time.Millisecond); waiting.Err() != nil {
			return fmt.Errorf("wait for the proposer: %w", err)
		}
	}
	if m.cfg.Bootstrap == nil || m.store.View().Cluster() != nil {
		return nil
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		if tx.Cluster() != nil {
			return nil
		}
		first, node := *m.cfg.Bootstrap.Cluster, *m.cfg.Bootstrap.Node
		if err := tx.Put(&first); err != nil {
			return err
		}
		return tx.Put(&node)
	})
	if err != nil {
		return fmt.Errorf("write the new cluster's first objects: %w", err)
	}
	return nil
}

// leaveOthers makes workers of the other managers, once after the order to go on
// without them: one that comes back learns so, and drops its copy of the database.
func (m *Manager) leaveOthers(ctx context.Context) error {
	if !m.alone {
		return nil
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		var changed []*cluster.Node
		for node := range tx.Nodes() {
			next := *node
			switch {
			case node.ID == m.cfg.NodeID:
				next.ManagerAddr = m.cfg.Addr
			case node.Role == swarm.NodeRoleManager || node.Spec.Role == swarm.NodeRoleManager:
				next.Role, next.Spec.Role, next.ManagerAddr = swarm.NodeRoleWorker, swarm.NodeRoleWorker, ""
			default:
				continue
			}
			changed = append(changed, &next)
		}
		for _, node := range changed {
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make workers of the lost managers: %w", err)
	}
	m.alone = false
	return nil
}

// voters makes raft's voters follow the roles in the store, one change at a
// time, and the roles follow the voters: a manager that is to be a worker gets
// its new role only when it can no longer vote.
func (m *Manager) voters(ctx context.Context) error {
	return m.keepUp(ctx, "make voters follow roles", func() error { return m.stepVoters(ctx, m.store.View()) })
}

// keepUp takes a step at once, after each change of the store, each minute, and a
// second after one that failed, until ctx ends; complaint is what is logged then.
func (m *Manager) keepUp(ctx context.Context, complaint string, step func() error) error {
	changes := m.store.Subscribe()
	defer changes.Close()
	for {
		wait := time.Minute
		if err := step(); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.log.Warn(complaint, "err", err)
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changes.Ready():
			changes.Take()
		case <-timer.C:
		}
		timer.Stop()
	}
}

// voterChange is one step towards voters that follow the roles.
type voterChange struct {
	// Add, Suspend and Remove are changes of raft's configuration; Promote and Demote of
	// a node's role. HandOver is set when the leader itself is to go. Who is suspended
	// has no vote, but is sent the log: see lost.
	Add      *raft.Server
	Suspend  raft.ServerID
	Remove   raft.ServerID
	Promote  string
	Demote   string
	HandOver bool
}

// nextVoterChange decides the next step, or nil when all is as it should be.
func nextVoterChange(view store.View, servers []raft.Server, self string) *voterChange {
	group := map[string]raft.Server{}
	for _, server := range servers {
		group[string(server.ID)] = server
	}
	for node := range view.Nodes() {
		wanted := node.Spec.Role == swarm.NodeRoleManager
		server, in := group[node.ID]
		votes := in && server.Suffrage == raft.Voter
		switch {
		case wanted && node.Role != swarm.NodeRoleManager:
			return &voterChange{Promote: node.ID}
		case wanted && node.ManagerAddr != "" && (!votes || string(server.Address) != node.ManagerAddr):
			return &voterChange{Add: &raft.Server{ID: raft.ServerID(node.ID), Address: raft.ServerAddress(node.ManagerAddr)}}
		case wanted && node.ManagerAddr == "" && votes && node.ID != self:
			return &voterChange{Suspend: server.ID}
		case !wanted && in && node.ID == self:
			return &voterChange{HandOver: true}
		case !wanted && in:
			return &voterChange{Remove: server.ID}
		case !wanted && node.Role == swarm.NodeRoleManager:
			return &voterChange{Demote: node.ID}
		}
	}
	for id, server := range group {
		if view.Node(id) == nil && id != self {
			return &voterChange{Remove: server.ID}
		}
	}
	return nil
}

func (m *Manager) stepVoters(ctx context.Context, view store.View) error {
	for {
		future := m.raft.GetConfiguration()
		if err := future.Error(); err != nil {
			return fmt.Errorf("read raft's configuration: %w", err)
		}
		change := nextVoterChange(view, future.Configuration().Servers, m.cfg.NodeID)
		if change == nil {
			return nil
		}
		if err := m.applyVoterChange(ctx, change, future.Index()); err != nil {
			return err
		}
		view = m.store.View()
	}
}

func (m *Manager) applyVoterChange(ctx context.Context, change *voterChange, prev uint64) error {
	switch {
	case change.Add != nil:
		m.log.Info("add voter", "node", string(change.Add.ID), "addr", string(change.Add.Address))
		return settle(ctx, m.raft.AddVoter(change.Add.ID, change.Add.Address, prev, leadTimeout))
	case change.Suspend != "":
		m.log.Info("suspend voter", "node", string(change.Suspend))
		return settle(ctx, m.raft.DemoteVoter(change.Suspend, prev, leadTimeout))
	case change.HandOver:
		if err := settle(ctx, m.raft.LeadershipTransfer()); err != nil {
			return fmt.Errorf("hand over leadership: %w", err)
		}
		return errHandedOver
	case change.Remove != "":
		m.log.Info("remove voter", "node", string(change.Remove))
		return settle(ctx, m.raft.RemoveServer(change.Remove, prev, leadTimeout))
	case change.Promote != "":
		return m.setRole(ctx, change.Promote, swarm.NodeRoleManager)
	default:
		return m.setRole(ctx, change.Demote, swarm.NodeRoleWorker)
	}
}

// settle waits for what raft was asked to do, for leadTimeout at most and while ctx
// lasts: a leader's work that failed can't be started again before all of it has ended.
func settle(ctx context.Context, asked raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- asked.Error() }()
	ctx, cancel := context.WithTimeoutCause(ctx, leadTimeout, errUnsettled)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errUnsettled means that raft was asked for something and hasn't done it yet.
var errUnsettled = errors.New("raft hasn't done it in time")

var errHandedOver = errors.New("leadership was handed over")

// setRole writes the role that the node's next certificate is for.
func (m *Manager) setRole(ctx context.Context, nodeID string, role swarm.NodeRole) error {
	return m.store.Update(ctx, func(tx *store.Tx) error {
		node := tx.Node(nodeID)
		if node == nil || node.Spec.Role != role || node.Role == role {
			return nil
		}
		changed := *node
		changed.Role = role
		if role == swarm.NodeRoleWorker {
			changed.ManagerAddr = ""
		}
		return tx.Put(&changed)
	})
}
