package placement

import (
	"cmp"
	"slices"
	"time"

	"skep/cluster"
)

const (
	// maxFailures within failureWindow put a node last for the revision.
	maxFailures   = 5
	failureWindow = 5 * time.Minute
)

type failureKey struct {
	node, service string
	revision      uint64
}

// failure is when a task failed, and when it was made.
type failure struct{ at, made cluster.Time }

// failures are the last maxFailures failures of a revision on a node.
type failures map[failureKey][]failure

func (f failures) note(t *cluster.Task) {
	if t.NodeID == "" || (t.Status.State != cluster.StateFailed && t.Status.State != cluster.StateRejected) {
		return
	}
	key := failureKey{t.NodeID, t.ServiceID, t.Revision}
	last := append(f[key], failure{t.Status.Applied, t.CreatedAt})
	// A listing isn't in the order of time.
	slices.SortFunc(last, func(a, b failure) int { return cmp.Compare(a.at, b.at) })
	if len(last) > maxFailures {
		last = slices.Delete(last, 0, 1)
	}
	f[key] = last
}

// failing tells whether the node is to be last for the requirement. What was there before the
// node was last away ended with its machine: that says nothing about the node, nor about the
// revision.
func (l *Ledger) failing(n *Node, q *Requirement, now cluster.Time) bool {
	if len(l.failures) == 0 {
		return false
	}
	last := l.failures[failureKey{n.id, q.service, q.revision}]
	if len(last) < maxFailures || now.Sub(last[0].at) >= failureWindow {
		return false
	}
	there := max(l.coldStart, cluster.At(n.node.Status.Since))
	return !slices.ContainsFunc(last, func(f failure) bool { return f.made < there })
}

// ColdStart tells the ledger when all machines had been off last: a node that was off with them
// needn't have been found away.
func (l *Ledger) ColdStart(at cluster.Time) { l.coldStart = at }

// Forget drops failures so old that they no longer matter.
func (l *Ledger) Forget(now time.Time) {
	for key, last := range l.failures {
		if cluster.At(now).Sub(last[len(last)-1].at) >= failureWindow {
			delete(l.failures, key)
		}
	}
}
