package placement

import (
	"time"

	"skep/cluster"
)

// Relieve finds the node, of those given, from which a task of the requirement's
// service should move to where Place would put it now: the one with the most tasks
// of the service, and in all. It is empty when no move makes things more even, by
// what Place compares; which of two equal nodes has a task is no matter.
func (l *Ledger) Relieve(q *Requirement, nodes []string, now time.Time) (nodeID string) {
	best := l.best(q, cluster.At(now))
	if best == nil {
		return ""
	}
	to := l.candidate(q, best, cluster.At(now))
	if to.failing {
		return ""
	}
	var from candidate
	for _, id := range nodes {
		if n := l.nodes[id]; n != nil {
			c := candidate{Node: n, own: n.services[q.service]}
			if from.Node == nil || from.before(c) {
				from = c
			}
		}
	}
	if from.Node == nil {
		return ""
	}
	// What moves doesn't count where it comes from.
	own, tasks := from.own-1, from.tasks-1
	if to.own < own || to.own == own && to.tasks < tasks {
		return from.id
	}
	return ""
}
