package placement

import (
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

// failures are the times of the last maxFailures failures of a revision on a node.
type failures map[failureKey][]cluster.Time

func (f failures) note(t *cluster.Task) {
	if t.NodeID == "" || (t.Status.State != cluster.StateFailed && t.Status.State != cluster.StateRejected) {
		return
	}
	key := failureKey{t.NodeID, t.ServiceID, t.Revision}
	times := append(f[key], t.Status.Applied)
	slices.Sort(times) // A listing isn't in the order of time.
	if len(times) > maxFailures {
		times = slices.Delete(times, 0, 1)
	}
	f[key] = times
}

// many tells whether the node is to be last for the requirement.
func (f failures) many(nodeID string, q *Requirement, now cluster.Time) bool {
	if len(f) == 0 {
		return false
	}
	times := f[failureKey{nodeID, q.service, q.revision}]
	return len(times) == maxFailures && now.Sub(times[0]) < failureWindow
}

// Forget drops failures so old that they no longer matter.
func (l *Ledger) Forget(now time.Time) {
	for key, times := range l.failures {
		if cluster.At(now).Sub(times[len(times)-1]) >= failureWindow {
			delete(l.failures, key)
		}
	}
}
