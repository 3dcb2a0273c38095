package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
)

// followRoles makes raft's voters follow the roles in the store, one change at a
// time, and the roles follow the voters: a manager that is to be a worker gets
// its new role only when it can no longer vote.
func (m *Manager) followRoles(ctx context.Context) error {
	defer m.waits.set(nil)
	seen := newCatchUp(m.cfg.HeartbeatTimeout)
	return m.keepUp(ctx, "make voters follow roles", func() (time.Duration, error) {
		return m.stepVoters(ctx, seen)
	})
}

// voterChange is one step towards voters that follow the roles.
type voterChange struct {
	// Add, Vote, Suspend and Remove are changes of raft's configuration: a new member
	// has no vote at first. Promote and Demote are changes of a node's role. HandOver is
	// set when the leader itself is to go. Who is suspended has no vote, but is sent the
	// log: see lost.
	Add, Vote *raft.Server
	Suspend   raft.ServerID
	Remove    raft.ServerID
	Promote   string
	Demote    string
	HandOver  bool
}

// group is what decides about voters besides the store.
type group struct {
	servers []raft.Server
	// self leads.
	self string
	// answers tells which voters answer the leader, behind why a member without a vote
	// hasn't caught up; one that has isn't in it.
	answers map[string]bool
	behind  map[string]string
	// unaware has the voters that may not know of a member without a vote.
	unaware map[string][]string
}

// member is a server of raft's configuration.
func (g group) member(id string) (server raft.Server, in bool) {
	for _, server := range g.servers {
		if string(server.ID) == id {
			return server, true
		}
	}
	return raft.Server{}, false
}

// at is who has the address in raft's configuration, which has each address once.
func (g group) at(addr raft.ServerAddress) string {
	for _, server := range g.servers {
		if server.Address == addr {
			return string(server.ID)
		}
	}
	return ""
}

// without tells whether the voters that are left when one goes have a quorum, and if
// not, why.
func (g group) without(id string) (why string, enough bool) {
	left, answer := 0, 0
	for _, server := range g.servers {
		if server.Suffrage != raft.Voter || string(server.ID) == id {
			continue
		}
		left++
		if string(server.ID) == g.self || g.answers[string(server.ID)] {
			answer++
		}
	}
	if need := left/2 + 1; answer < need {
		return fmt.Sprintf("of the %d voters left %d would answer, and %d are needed", left, answer, need), false
	}
	return "", true
}

// nextVoterChange decides the next step, or nil when there is none, and says for each
// node that waits, for what. One that waits keeps no other from its step.
func nextVoterChange(view store.View, g group) (change *voterChange, waits map[string]string) {
	waits = map[string]string{}
	for node := range view.Nodes() {
		next, why := nextOf(view, node, g)
		if why != "" {
			waits[node.ID] = why
		}
		if next != nil && change == nil {
			change = next
		}
	}
	for _, server := range g.servers {
		id := string(server.ID)
		if view.Node(id) != nil || id == g.self {
			continue
		}
		if why, enough := g.without(id); server.Suffrage == raft.Voter && !enough {
			waits[id] = "it was removed, and keeps its vote for now: " + why
		} else if change == nil {
			change = &voterChange{Remove: server.ID}
		}
	}
	return change, waits
}

// nextOf decides about one node: its next step, or what it waits for, or neither.
func nextOf(view store.View, node *cluster.Node, g group) (change *voterChange, why string) {
	server, in := g.member(node.ID)
	votes := in && server.Suffrage == raft.Voter
	wanted := node.Spec.Role == swarm.NodeRoleManager
	listed := raft.Server{ID: raft.ServerID(node.ID), Address: raft.ServerAddress(node.ManagerAddr)}
	switch {
	case wanted && node.Role != swarm.NodeRoleManager:
		return &voterChange{Promote: node.ID}, ""
	case wanted && node.ManagerAddr == "":
		if votes && node.ID != g.self {
			return &voterChange{Suspend: server.ID}, ""
		}
		return nil, ""
	case wanted && (!in || server.Address != listed.Address):
		if holder := g.at(listed.Address); holder != "" && holder != node.ID {
			return nil, fmt.Sprintf("manager %s still has its address %s", holder, listed.Address)
		}
		if votes {
			return &voterChange{Vote: &listed}, ""
		}
		return &voterChange{Add: &listed}, ""
	case wanted && !votes:
		if why := g.behind[node.ID]; why != "" {
			return nil, "catching up, without a vote until it has: " + why
		}
		if unaware := g.unaware[node.ID]; len(unaware) > 0 {
			return nil, fmt.Sprintf("it gets its vote as soon as manager %s, which votes, knows of it: start that one, or demote it if it is gone", named(view, unaware[0]))
		}
		return &voterChange{Vote: &listed}, ""
	case !wanted && in:
		if why, enough := g.without(node.ID); votes && !enough {
			return nil, "it is to be a worker, and keeps its vote for now: " + why
		}
		if node.ID == g.self {
			return &voterChange{HandOver: true}, ""
		}
		return &voterChange{Remove: server.ID}, ""
	case !wanted && node.Role == swarm.NodeRoleManager:
		return &voterChange{Demote: node.ID}, ""
	}
	return nil, ""
}

// named is a node's host name and ID.
func named(view store.View, id string) string {
	if node := view.Node(id); node != nil {
		return fmt.Sprintf("%s (%s)", node.Description.Hostname, id)
	}
	return id
}

// stepVoters makes all changes that can be made now, and tells when to look again.
func (m *Manager) stepVoters(ctx context.Context, seen *catchUp) (again time.Duration, err error) {
	for {
		future := m.raft.GetConfiguration()
		if err := future.Error(); err != nil {
			return 0, fmt.Errorf("read raft's configuration: %w", err)
		}
		servers := future.Configuration().Servers
		now, last, known := m.cfg.Now(), m.raft.LastIndex(), m.transport.Progress(m.raft.CurrentTerm())
		change, waits := nextVoterChange(m.store.View(), group{
			servers: servers, self: m.cfg.NodeID, answers: seen.answers(now, known),
			behind: seen.look(now, last, servers, known), unaware: seen.unaware(m.cfg.NodeID, last, servers, known),
		})
		m.waits.set(waits)
		if change == nil && len(waits) > 0 {
			return m.cfg.HeartbeatTimeout / 2, nil
		}
		if change == nil {
			return 0, nil
		}
		if err := m.applyVoterChange(ctx, change, future.Index()); err != nil {
			return 0, err
		}
	}
}

func (m *Manager) applyVoterChange(ctx context.Context, change *voterChange, prev uint64) error {
	switch {
	case change.Add != nil:
		m.log.Info("add a manager without a vote", "name", m.nameOf(string(change.Add.ID)), "node", string(change.Add.ID), "addr", string(change.Add.Address))
		return settle(ctx, m.raft.AddNonvoter(change.Add.ID, change.Add.Address, prev, leadTimeout))
	case change.Vote != nil:
		m.log.Info("add voter", "name", m.nameOf(string(change.Vote.ID)), "node", string(change.Vote.ID), "addr", string(change.Vote.Address))
		return settle(ctx, m.raft.AddVoter(change.Vote.ID, change.Vote.Address, prev, leadTimeout))
	case change.Suspend != "":
		m.log.Info("suspend voter", "name", m.nameOf(string(change.Suspend)), "node", string(change.Suspend))
		return settle(ctx, m.raft.DemoteVoter(change.Suspend, prev, leadTimeout))
	case change.HandOver:
		if err := m.handOver(ctx); err != nil {
			return err
		}
		return errHandedOver
	case change.Remove != "":
		m.log.Info("remove voter", "name", m.nameOf(string(change.Remove)), "node", string(change.Remove))
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
