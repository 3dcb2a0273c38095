package dispatch

import (
	"bytes"
	"context"
	"reflect"
	"slices"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
	"skep/store"
)

// fanOut marks the store's changes in the sessions they concern, and passes changes of
// gossip on to sessions, outbox and collector, until ctx ends.
func (d *Dispatcher) fanOut(ctx context.Context) error {
	sub := d.config.Store.Subscribe()
	defer sub.Close()
	d.mu.Lock()
	d.published = d.config.Store.View()
	d.managers = managersIn(d.published)
	d.networks.Record(nil, d.published, true)
	d.mu.Unlock()
	close(d.started)
	seen := d.members()
	d.outbox.setUnseen(unseen(d.published, seen))
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-sub.Ready():
			changes, view, lost := sub.Take()
			d.publish(changes, view, lost)
			if lost || slices.ContainsFunc(changes, comesOrGoes) {
				d.outbox.setUnseen(unseen(view, seen))
			}
		case <-d.config.MembersChanged:
			seen = d.watchMembers(seen)
		}
	}
}

// publish marks what changed in the sessions that it matters to. All marks of a
// session are made at once: its writer must not get to see the view with a part
// of them.
func (d *Dispatcher) publish(changes []store.Change, view store.View, lost bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	todo := make(map[*session]*pending)
	nodes, peers, record := lost, lost, lost
	for _, c := range changes {
		switch {
		case isA[*cluster.Task](c):
			before, after := sides[*cluster.Task](c)
			if after != nil {
				d.marksOf(todo, after.NodeID).task(after.ID)
			}
			if before != nil && (after == nil || after.NodeID != before.NodeID) {
				d.marksOf(todo, before.NodeID).task(before.ID)
			}
		case isA[*cluster.Revision](c):
			// A new one is sent with the first task that refers to it.
			if before, after := sides[*cluster.Revision](c); before != nil && after != nil {
				for nodeID := range d.sessions {
					d.marksOf(todo, nodeID).revision(keyOf(after))
				}
			}
		case isA[*cluster.Node](c):
			nodes = true
			before, after := sides[*cluster.Node](c)
			switch {
			case after == nil:
				d.sessions[before.ID].refuse(refusal{reason: removedReason(before.ID)})
				d.engines.cut(func(nodeID string) bool { return nodeID == before.ID })
				peers = peers || before.ManagerAddr != ""
			case before == nil:
				peers = peers || after.ManagerAddr != ""
			default:
				peers = peers || cluster.PeerOf(before) != cluster.PeerOf(after) && before.ManagerAddr+after.ManagerAddr != ""
				if s := d.sessions[after.ID]; before.Copy != after.Copy && s != nil {
					if after.Copy.Is(s.run) {
						s.refuse(refuseCopy(after.ID))
					} else {
						s.describeAgain()
					}
				}
				if before.Role != after.Role {
					d.marksOf(todo, after.ID).peers()
				}
			}
		case isA[*cluster.Cluster](c):
			before, after := sides[*cluster.Cluster](c)
			peers = peers || before == nil || after == nil || !slices.EqualFunc(before.GossipKeys, after.GossipKeys, slices.Equal) ||
				!bytes.Equal(before.Roots(), after.Roots()) || before.ClusterLevel != after.ClusterLevel
			record = record || before.SessionHeartbeat() != after.SessionHeartbeat() || !reflect.DeepEqual(before.DefaultLogDriver(), after.DefaultLogDriver())
		}
	}
	if peers {
		d.managers = managersIn(view)
		for nodeID := range d.sessions {
			d.marksOf(todo, nodeID).peers()
		}
	}
	if record {
		for nodeID, s := range d.sessions {
			if s.heartbeat != d.heartbeat(view) {
				s.cancel(errPace)
			}
			d.marksOf(todo, nodeID).defaults()
		}
	}
	if lost {
		d.engines.cut(func(nodeID string) bool { return view.Node(nodeID) == nil })
		for nodeID, s := range d.sessions {
			if view.Node(nodeID) == nil {
				s.refuse(refusal{reason: removedReason(nodeID)})
				continue
			}
			d.marksOf(todo, nodeID).all()
		}
	}
	if woken := d.networks.Record(changes, view, lost); len(woken) > 0 {
		for nodeID, s := range d.sessions {
			if _, concerned := woken[s.networks]; concerned {
				d.marksOf(todo, nodeID).networks()
			}
		}
	}
	for s, m := range todo {
		s.mark(view, m)
	}
	if nodes {
		d.collector.wakeUp()
	}
	if view.Index() > d.published.Index() {
		d.published = view
	}
}

// marksOf gives the marks of a node's session; nil, which takes marks too, when it
// has none here.
func (d *Dispatcher) marksOf(todo map[*session]*pending, nodeID string) *pending {
	s := d.sessions[nodeID]
	if s == nil {
		return nil
	}
	if todo[s] == nil {
		todo[s] = &pending{}
	}
	return todo[s]
}

// watchMembers reads gossip's members. A node that gossip just gave up gets half the
// silence limit in its session: when its machine lost power, only the idle TCP connection
// makes it still look alive.
func (d *Dispatcher) watchMembers(before map[string]cluster.Member) map[string]cluster.Member {
	now := d.members()
	d.mu.Lock()
	defer d.mu.Unlock()
	for nodeID, s := range d.sessions {
		if member, seen := now[nodeID]; seen && !member.Left {
			s.silence.setLimit(s.silenceLimit())
		} else if _, seen := before[nodeID]; seen {
			s.silence.setLimit(s.silenceLimit() / 2)
		}
	}
	d.outbox.setUnseen(unseen(d.published, now))
	d.collector.wakeUp()
	return now
}

// unseen lists the nodes of the database that gossip suspects or doesn't see.
func unseen(view store.View, members map[string]cluster.Member) []string {
	var nodeIDs []string
	for node := range view.Nodes() {
		if said := liveness.GossipOf(node.ID, members); said == liveness.GossipDead || said == liveness.GossipSuspect {
			nodeIDs = append(nodeIDs, node.ID)
		}
	}
	return nodeIDs
}

// comesOrGoes tells whether a change adds or removes a node.
func comesOrGoes(c store.Change) bool {
	return isA[*cluster.Node](c) && (c.Before == nil || c.After == nil)
}

// members gives what gossip sees by node ID, this node always included; nil when
// there is no gossip.
func (d *Dispatcher) members() map[string]cluster.Member {
	if d.config.Members == nil {
		return nil
	}
	members := make(map[string]cluster.Member)
	for _, m := range d.config.Members() {
		members[m.NodeID] = m
	}
	members[d.config.NodeID] = cluster.Member{NodeID: d.config.NodeID}
	return members
}

// managersIn lists where managers can be reached.
func managersIn(view store.View) []cluster.Peer {
	var managers []cluster.Peer
	for node := range view.Nodes() {
		if node.ManagerAddr != "" {
			managers = append(managers, cluster.PeerOf(node))
		}
	}
	return managers
}

func isA[T any](c store.Change) bool {
	object := c.After
	if object == nil {
		object = c.Before
	}
	_, ok := object.(T)
	return ok
}

// sides gives the typed objects of a change; nil where there is none.
func sides[T any](c store.Change) (before, after T) {
	before, _ = c.Before.(T)
	after, _ = c.After.(T)
	return before, after
}

func removedReason(nodeID string) string {
	return "node " + nodeID + " was removed from the cluster"
}
