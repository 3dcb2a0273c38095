package placement

import (
	"cmp"
	"slices"
	"time"

	"skep/cluster"
)

// PickRebalanceSource finds the node, of those given, from which a task of the requirement's
// service should move to where Place would put it if it weren't there: the one
// that Place would choose last. It is empty when no move makes things more even, by
// what Place compares; which of two equal nodes has a task is no matter.
func (l *Ledger) PickRebalanceSource(q *Requirement, nodes []string, now time.Time) (nodeID string) {
	counts := l.count(q)
	var to []candidate
	l.scan(q, func(n *Node) bool {
		if !l.failing(n, q, cluster.At(now)) {
			to = append(to, candidate{Node: n, own: q.load.on(n).wanted})
		}
		return true
	})
	if len(to) == 0 {
		return ""
	}
	var from []candidate
	for _, id := range nodes {
		if n := l.nodes[id]; n != nil && n.node != nil {
			from = append(from, candidate{Node: n, own: q.load.on(n).wanted})
		}
	}
	slices.SortFunc(from, func(a, b candidate) int {
		switch {
		case a.before(b, q.eligible, counts):
			return 1
		case b.before(a, q.eligible, counts):
			return -1
		}
		return 0
	})
	// Nodes that are alike in all that counts needn't be tried twice.
	type kind struct{ leaf, own, tasks int32 }
	tried := make(map[kind]bool)
	for _, c := range from {
		k := kind{own: c.own, tasks: int32(c.tasks)}
		if counts != nil {
			k.leaf = q.eligible.leaf[c.index]
		}
		if !tried[k] && c.improvable(to, q.eligible, counts) {
			return c.id
		}
		tried[k] = true
	}
	return ""
}

// improvable tells whether one of the nodes is better for a task than c, where it is
// now. It doesn't count where it comes from.
func (c candidate) improvable(to []candidate, p *eligibleNodes, counts []int32) bool {
	var path []int32
	if counts != nil {
		path = p.pathOf(c.Node)
	}
	for _, branch := range path {
		counts[branch]--
	}
	defer func() {
		for _, branch := range path {
			counts[branch]++
		}
	}()
	return slices.ContainsFunc(to, func(t candidate) bool {
		if t.Node == c.Node {
			return false
		}
		if counts != nil {
			for level, branch := range p.pathOf(t.Node) {
				if a, b := counts[branch], counts[path[level]]; a != b {
					return a < b
				}
			}
		}
		return cmp.Or(cmp.Compare(t.own, c.own-1), cmp.Compare(t.tasks, c.tasks-1)) < 0
	})
}
