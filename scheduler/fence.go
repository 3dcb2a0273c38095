package scheduler

import (
	"fmt"
	"slices"
	"time"

	"skep/cluster"
)

// stopped tells whether nothing of the task runs any more, as far as one can know.
// A task on a node that is gone counts as stopped, but for a fenced one: for that it
// must be certain.
func (v *serviceView) stopped(t *cluster.Task) bool {
	orphaned := t.Status.State == cluster.StateOrphaned
	switch {
	case t.Status.State.Terminal() && !orphaned, !t.Assigned():
		return true
	case !orphaned && !v.gone(t):
		return false
	case !v.revision(t).Fenced():
		return true
	}
	until := v.fencedUntil(t)
	if until != 0 && until > v.now {
		v.wakeAt(until)
	}
	return until != 0 && until <= v.now
}

// fencedUntil is when a fenced task whose node is gone must have been stopped there;
// 0 when nobody knows: its node's engine doesn't answer, so that the agent can't stop
// it either, or the node was just removed and the task isn't given up yet.
//
// It counts from when this leader knew, by a monotonic clock: times in the
// database may be another manager's, whose clock may differ by any amount.
func (v *serviceView) fencedUntil(t *cluster.Task) cluster.Time {
	id := t.ID
	if t.Status.State != cluster.StateOrphaned {
		n := v.Ledger.Node(t.NodeID)
		if n == nil || n.Status.Message == cluster.MessageNoEngine {
			return 0
		}
		id = n.ID
	}
	since, ok := v.Lost[id]
	if !ok {
		since = v.LeaderSince
	}
	return v.now.Add(v.revision(t).FenceWait() - v.Monotonic.Sub(since))
}

// waitsFor says what a task waits for that may start when before has stopped.
func (v *serviceView) waitsFor(before *cluster.Task) string {
	switch orphaned := before.Status.State == cluster.StateOrphaned; {
	case !orphaned && !v.gone(before):
		return fmt.Sprintf("waiting for task %s to stop", before.ID)
	case v.fencedUntil(before) == 0:
		return fmt.Sprintf("waiting for the engine of node %s: task %s is fenced and may still run there", before.NodeID, before.ID)
	default:
		return fmt.Sprintf("waiting until %s UTC, when fenced task %s must have stopped", v.fencedUntil(before).Std().Format(time.TimeOnly), before.ID)
	}
}

// blocker finds a task of the slot that is to stop and hasn't yet.
func (v *serviceView) blocker(s *slot) *cluster.Task {
	for _, t := range s.tasks {
		if !v.stopped(t) && !slices.Contains(s.live, t) {
			return t
		}
	}
	return nil
}
