package placement

import (
	"time"

	"skep/cluster"
)

// Relieve finds the node, of those given, from which a task of the requirement's
// service should move to where Place would put it now: the last choice of all of
// them. It is empty when no move makes things more even, by what Place compares;
// which of two equal nodes has a task is no matter.
func (l *Ledger) Relieve(q *Requirement, nodes []string, now time.Time) (nodeID string) {
	best := l.best(q, cluster.At(now))
	if best == nil || l.failures.many(best.id, q, cluster.At(now)) {
		return ""
	}
	load, counts := l.loads[q.service], l.count(q)
	to := candidate{Node: best, own: load.on(best).wanted}
	var from candidate
	for _, id := range nodes {
		if n := l.nodes[id]; n != nil && n.node != nil {
			c := candidate{Node: n, own: load.on(n).wanted}
			if from.Node == nil || from.before(c, q.pool, counts) {
				from = c
			}
		}
	}
	if from.Node == nil || !to.evens(from, q.pool, counts) {
		return ""
	}
	return from.id
}

// evens tells whether a task that moves from the other node to this one makes
// things more even. It doesn't count any more where it comes from.
func (c candidate) evens(from candidate, p *pool, counts []int32) bool {
	if counts != nil {
		paths := p.pathOf(from.Node)
		for level, branch := range p.pathOf(c.Node) {
			if branch == paths[level] {
				continue
			}
			if a, b := counts[branch], counts[paths[level]]-1; a != b {
				return a < b
			}
		}
	}
	if a, b := c.own, from.own-1; a != b {
		return a < b
	}
	return c.tasks < from.tasks-1
}
