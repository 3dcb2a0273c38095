package placement

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"skep/cluster"
)

// Meets tells whether the requirement allows a node at all: whether it meets the
// constraints and has the platform, whatever is on it now.
func (q *Requirement) Meets(node *cluster.Node) bool {
	return q.eligible.meets(node) && cluster.PlatformMatches(node, q.eligible.platforms)
}

// Excludes tells whether tasks must leave a node: the requirement doesn't allow
// it. One that can't be read allows no node, but drives no task away.
func (q *Requirement) Excludes(node *cluster.Node) bool {
	return !q.eligible.unreadable && !q.Meets(node)
}

// Networked tells whether the tasks are on networks of the cluster.
func (q *Requirement) Networked() bool { return len(q.eligible.networks) > 0 }

// Clashes tells whether the node's machine uses addresses of the tasks' networks for something else.
func (q *Requirement) Clashes(node *cluster.Node) bool { return q.eligible.clashes(node) != "" }

// Anywhere tells whether the requirement allows every node.
func (q *Requirement) Anywhere() bool {
	return len(q.eligible.conditions) == 0 && len(q.eligible.platforms) == 0
}

// PlaceOn plans one task on the node that it is made for. It returns why the node
// can't take it now, or nothing when it can. The ledger counts the task as planned
// until Settle.
func (l *Ledger) PlaceOn(q *Requirement, nodeID string) (c Choice, why string) {
	n := l.nodes[nodeID]
	if n == nil || n.node == nil {
		return c, explain(nil)
	}
	if why, rejected := l.reject(q, n); rejected {
		return c, explain(map[reason]int{why: 1})
	}
	return l.assign(n, q), ""
}

// BlockedOnlyBy tells whether no node takes another task now, but that of t would without
// it: since a port of the node is one task's at a time, since no more tasks of the
// service may be there, or since there is room for only one. nodeID is the only node
// that will do; empty means any. For room it is worth waiting where tasks are about to
// stop; what is exclusive is t's own.
func (l *Ledger) BlockedOnlyBy(q *Requirement, t *cluster.Task, nodeID string, now time.Time) bool {
	n := l.nodes[t.NodeID]
	w := l.weight(t)
	if n == nil || n.node == nil || w.present == 0 {
		return false
	}
	if _, rejected := l.reject(q, n); !rejected || nodeID == "" && l.Fits(q, now) {
		return false
	}
	exclusive := slices.ContainsFunc(filters, func(f filter) bool {
		if !f.exclusive {
			return false
		}
		_, ok := f.check(l, q, n)
		return !ok
	})
	if !exclusive && l.roomToCome(q, nodeID) {
		return false
	}
	s := l.loadOf(t.ServiceID)
	l.add(n, s, w.negative())
	_, rejected := l.reject(q, n)
	l.add(n, s, w)
	return !rejected
}

// roomToCome tells whether tasks that are to stop are still on a node that will do.
func (l *Ledger) roomToCome(q *Requirement, nodeID string) bool {
	leaving := func(n *Node) bool {
		return n != nil && n.node != nil && n.present > n.tasks && n.node.Schedulable() && q.Meets(n.node)
	}
	if nodeID != "" {
		return leaving(l.nodes[nodeID])
	}
	return slices.ContainsFunc(l.sorted, leaving)
}

// Overcommitted chooses those of a node's tasks that must go since the node has less
// than they all reserve, once those that are to stop anyway have stopped: those
// whose generic resources, by name, are gone, and else the youngest ones, as few as
// will do.
func (l *Ledger) Overcommitted(nodeID string, tasks iter.Seq[*cluster.Task]) []*cluster.Task {
	n := l.nodes[nodeID]
	if n == nil || n.node == nil {
		return nil
	}
	if said := n.node.Description.Resources; said.NanoCPUs == 0 && said.MemoryBytes == 0 {
		return nil // Its agent hasn't said yet what it has.
	}
	over := Resources{NanoCPUs: n.reserved.NanoCPUs - n.has.NanoCPUs, MemoryBytes: n.reserved.MemoryBytes - n.has.MemoryBytes}
	short := make(map[string]int64)
	missing := false
	for kind, s := range n.generic {
		short[kind] = s.claimed - s.count
		missing = missing || short[kind] > 0 || len(s.taken) > 0
	}
	if over.NanoCPUs <= 0 && over.MemoryBytes <= 0 && !missing {
		return nil
	}
	free := func(w weight) {
		if w.holds != nil {
			over.add(w.holds.resources, -w.present)
		}
		for _, c := range w.generic {
			short[c.Kind] -= c.Count
		}
	}
	helps := func(w weight) bool {
		if h := w.holds; h != nil && (over.NanoCPUs > 0 && h.resources.NanoCPUs > 0 || over.MemoryBytes > 0 && h.resources.MemoryBytes > 0) {
			return true
		}
		return slices.ContainsFunc(w.generic, func(c cluster.Claim) bool { return c.Count > 0 && short[c.Kind] > 0 })
	}
	var live, surplus []*cluster.Task
	for t := range tasks {
		switch w := l.weight(t); {
		case w.wanted == 0 || w.holds == nil && len(w.generic) == 0:
			free(w)
		case n.lost(w.generic):
			free(w)
			surplus = append(surplus, t)
		default:
			live = append(live, t)
		}
	}
	slices.SortFunc(live, func(a, b *cluster.Task) int {
		return cmp.Or(-cmp.Compare(a.CreatedAt, b.CreatedAt), -cmp.Compare(a.ID, b.ID))
	})
	for _, t := range live {
		if w := l.weight(t); helps(w) {
			surplus = append(surplus, t)
			free(w)
		}
	}
	return surplus
}
