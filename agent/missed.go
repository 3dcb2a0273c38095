package agent

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	"skep/cluster"
)

// missed is what gossip last told of the nodes that it saw. It
// is a hint: what leads to tasks on a node that is missed leads to others of the service meanwhile, if
// there are any. Managers take longer to be sure, and a node without managers would never hear
// of it. A node that gossip never saw isn't missed: that it can't be reached so says nothing.
type missed map[string]sight

// sight is what gossip last told of a node.
type sight struct {
	// since is when gossip began to miss it; zero while it doesn't.
	since time.Time
	// left is set from when it left in order until it is back. It isn't missed, since its containers run on.
	left bool
}

// gone tells whether the node isn't where gossip saw it: then its machine may be dead.
func (s sight) gone() bool { return s.left || !s.since.IsZero() }

// observe is what is missed now that gossip sees these members, and which nodes have nothing led to
// them. A suspect has so long to object. next is when there will be more of them if nothing changes; 0 means never.
// Who isn't a member any more is kept while it is one of nodes.
func (m missed) observe(members []cluster.Member, nodes []cluster.NetworkNode, suspectAfter time.Duration, now time.Time) (latest missed, away map[string]bool, next time.Duration) {
	latest, away = make(missed, len(members)), map[string]bool{}
	miss := func(nodeID string) (since time.Time) {
		if since = m[nodeID].since; since.IsZero() {
			since = now
		}
		latest[nodeID] = sight{since: since}
		return since
	}
	listed := make(map[string]bool, len(members))
	for _, member := range members {
		listed[member.NodeID] = true
		switch _, before := m[member.NodeID]; {
		case member.Left && before:
			latest[member.NodeID] = sight{left: true}
		case member.Left:
		case !member.Suspect:
			latest[member.NodeID] = sight{}
		case before:
			if wait := suspectAfter - now.Sub(miss(member.NodeID)); wait <= 0 {
				away[member.NodeID] = true
			} else if next == 0 || wait < next {
				next = wait
			}
		}
	}
	for _, node := range nodes {
		switch last, before := m[node.ID]; {
		case !before || listed[node.ID]:
		case last.left:
			latest[node.ID] = last
		default:
			miss(node.ID)
			away[node.ID] = true
		}
	}
	return latest, away, next
}

// watchMembers has the plane and the names follow whom gossip misses, and who of them is dead, until ctx ends.
func (a *Agent) watchMembers(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	var knocking sync.WaitGroup
	defer knocking.Wait()
	doors := map[string]context.CancelFunc{} // of those that are doubted
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.cfg.MembersChanged:
		case <-again.C:
		}
		var doubted map[string]netip.Addr
		a.call(func(s *taskSet) {
			var next time.Duration
			if doubted, next = s.observeMembers(); next > 0 {
				again.Reset(next)
			}
		})
		for nodeID, leave := range doors {
			if !doubted[nodeID].IsValid() {
				leave()
				delete(doors, nodeID)
			}
		}
		for nodeID, addr := range doubted {
			if doors[nodeID] == nil && a.cfg.Knock != nil {
				at, leave := context.WithCancel(ctx)
				doors[nodeID] = leave
				knocking.Go(func() { a.knock(at, nodeID, addr) })
			}
		}
	}
}

// observeMembers takes in whom gossip misses now. doubted are all nodes of which it is to be found out whether their
// machines live, and where.
func (s *taskSet) observeMembers() (doubted map[string]netip.Addr, next time.Duration) {
	n, cfg := &s.networks, &s.agent.cfg
	var nodes []cluster.NetworkNode
	if a := n.accounts[""]; a != nil {
		nodes = a.Nodes
	}
	var away map[string]bool
	n.missed, away, next = n.missed.observe(cfg.Members(), nodes, cfg.SuspectAfter, cfg.Now())
	if delete(away, cfg.NodeID); !maps.Equal(away, n.away) {
		n.away = away
		cluster.Notify(s.agent.plan)
		cluster.Notify(s.agent.name)
	}
	doubted = map[string]netip.Addr{}
	for _, node := range nodes {
		if n.missed[node.ID].gone() && node.ID != cfg.NodeID {
			doubted[node.ID] = node.Addr
		}
	}
	for nodeID := range n.silent {
		if !n.missed[nodeID].gone() {
			delete(n.silent, nodeID)
		}
	}
	return doubted, next
}
