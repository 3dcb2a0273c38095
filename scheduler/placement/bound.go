package placement

import (
	"cmp"
	"iter"
	"slices"

	"skep/cluster"
)

// Meets tells whether the requirement allows a node at all: whether it meets the
// constraints and has the platform, whatever is on it now.
func (q *Requirement) Meets(node *cluster.Node) bool {
	return q.pool.meets(node) && cluster.PlatformMatches(node, q.pool.platforms)
}

// Excludes tells whether tasks must leave a node: the requirement doesn't allow
// it. One that can't be read allows no node, but drives no task away.
func (q *Requirement) Excludes(node *cluster.Node) bool {
	return !q.pool.unreadable && !q.Meets(node)
}

// Anywhere tells whether the requirement allows every node.
func (q *Requirement) Anywhere() bool {
	return len(q.pool.conditions) == 0 && len(q.pool.platforms) == 0
}

// PlaceOn plans one task on the node that it is made for. It returns why the node
// can't take it now, or nothing when it can. The ledger counts the task as planned
// until Settle.
func (l *Ledger) PlaceOn(q *Requirement, nodeID string) (why string) {
	n := l.nodes[nodeID]
	if n == nil || n.node == nil {
		return explain(nil)
	}
	if why, rejected := l.reject(q, n); rejected {
		return explain(map[reason]int{why: 1})
	}
	l.take(n, q)
	return ""
}

// Surplus chooses those of a node's tasks that must go since the node has less
// than they all reserve: the youngest ones, as few as will do once those that are
// to stop anyway have stopped.
func (l *Ledger) Surplus(nodeID string, tasks iter.Seq[*cluster.Task]) []*cluster.Task {
	n := l.nodes[nodeID]
	if n == nil || n.node == nil {
		return nil
	}
	if said := n.node.Description.Resources; said.NanoCPUs == 0 && said.MemoryBytes == 0 {
		return nil // Its agent hasn't said yet what it has.
	}
	over := Resources{NanoCPUs: n.reserved.NanoCPUs - n.has.NanoCPUs, MemoryBytes: n.reserved.MemoryBytes - n.has.MemoryBytes}
	if over.NanoCPUs <= 0 && over.MemoryBytes <= 0 {
		return nil
	}
	var live []*cluster.Task
	for t := range tasks {
		if w := l.weight(t); w.wanted > 0 && !w.reserved.isZero() {
			live = append(live, t)
		} else {
			over.sub(w.reserved)
		}
	}
	slices.SortFunc(live, func(a, b *cluster.Task) int {
		return cmp.Or(-cmp.Compare(a.CreatedAt, b.CreatedAt), -cmp.Compare(a.ID, b.ID))
	})
	var surplus []*cluster.Task
	for _, t := range live {
		reserved := l.weight(t).reserved
		if over.NanoCPUs > 0 && reserved.NanoCPUs > 0 || over.MemoryBytes > 0 && reserved.MemoryBytes > 0 {
			surplus = append(surplus, t)
			over.sub(reserved)
		}
	}
	return surplus
}
