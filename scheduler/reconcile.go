package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// drained tells whether the task's node is to be emptied, but still runs it.
func (v *serviceView) drained(t *cluster.Task) bool {
	if t.NodeID == "" || v.gone(t) {
		return false
	}
	return v.Ledger.Node(t.NodeID).Spec.Availability == swarm.NodeAvailabilityDrain
}

// reconcileSlot sees to it that a slot has one task that works: it replaces what ended or
// lost its node, and stops what is too much. Replacing what is merely outdated,
// or on a drained node, is left to update and drain.
func (w *servicePlan) reconcileSlot(s *slot, r *rollout) {
	if s.newest == nil || s.idle || w.complete(s) {
		return
	}
	var good, failed, others []*cluster.Task
	for _, t := range s.live {
		switch {
		case w.failing(t) || r.overdue(s, t) != "" || w.misplaced(t) != "" || w.job && w.drained(t):
			failed = append(failed, t)
		case !w.upToDate(t) || w.drained(t) || r.leaving(s, t):
			others = append(others, t)
		default:
			good = append(good, t)
		}
	}
	switch {
	case len(good) > 0:
		w.dropFailed(s, failed, r)
		w.keepOne(s, good, others, r)
	case s.held:
		w.dropFailed(s, failed, r)
	case len(failed) > 0:
		last := failed[len(failed)-1]
		w.dropFailed(s, failed[:len(failed)-1], r)
		// Beside others, only a newcomer is tried again, and only while the rollout goes on.
		leave := len(others) > 0 && (!w.upToDate(last) || r.paused)
		if leave || !w.restart(s, last, r.overdue(s, last), others) {
			w.dropFailed(s, failed[len(failed)-1:], r)
		}
	case len(s.live) == 0 && !(s.outdated && r.running && !r.paused):
		// What stands for the slot has ended, or is about to. Mostly that is how the
		// restart policy wants it.
		w.restart(s, s.newest, "", nil)
	}
}

func (w *servicePlan) dropFailed(s *slot, failed []*cluster.Task, r *rollout) {
	for _, t := range failed {
		w.drop(s, cmp.Or(r.overdue(s, t), w.misplaced(t)), t)
	}
}

// keepOne keeps the best of the good tasks. Others, which it replaces, go when it
// runs, or at once when the order is stop-first, or when they hold the only place for
// it. After a pause it is rather the
// newcomer that goes while it doesn't run: the slot must not stay doubled.
func (w *servicePlan) keepOne(s *slot, good, others []*cluster.Task, r *rollout) {
	best := good[max(0, slices.IndexFunc(good, isRunning))]
	for _, t := range good {
		if t != best {
			w.drop(s, "", t)
		}
	}
	runs := isRunning(best)
	switch {
	case len(others) == 0:
	case r.paused && !runs && slices.ContainsFunc(others, func(t *cluster.Task) bool {
		return isRunning(t) && !w.drained(t)
	}):
		w.drop(s, "", best)
	case runs || !r.policy.startFirst || w.obstructed(s, best, others):
		w.drop(s, "", others...)
	}
}

// obstructed tells whether a task waits for the place of one of the others.
func (v *serviceView) obstructed(s *slot, t *cluster.Task, others []*cluster.Task) bool {
	return !t.Assigned() && v.depends.unmet == "" && t.NotBefore <= v.now && slices.ContainsFunc(others, func(other *cluster.Task) bool {
		return v.Ledger.BlockedOnlyBy(&v.requirement, other, s.node, v.Now)
	})
}

// moving tells whether the slot's task was stopped, or is to be, for no fault
// of its own, and the one in its place doesn't run yet, though a node has room.
func (v *serviceView) moving(s *slot) bool {
	for i, t := range s.tasks {
		if i > 0 && slices.Contains(s.live, t) && t.Assigned() && t.NotBefore != 0 && t.Status.State < cluster.StateRunning &&
			!v.failing(t) && !endedItself(s, s.tasks[i-1]) {
			return true
		}
	}
	return false
}

// explainAfter is how long a task waits for another to stop before it says so, and
// after how long one that waits for a node looks anew at what others have taken.
// Most don't wait that long, and each explanation is a write.
const explainAfter = 2 * time.Second

// unblockOrExplain lets the slot's waiting tasks go on, or says what they wait for: a node,
// the end of a restart delay, or the end of the task before.
func (w *servicePlan) unblockOrExplain(s *slot) {
	for _, t := range s.live {
		if t.Status.State.Terminal() {
			continue
		}
		if !t.Assigned() {
			w.awaitNode(s, t)
		}
		if t.Desired != cluster.StateReady {
			continue
		}
		if t.NotBefore > w.now {
			w.wakeAt(t.NotBefore)
			w.say(t, "waiting for the restart delay to end at "+t.NotBefore.Std().Format(time.TimeOnly)+" UTC")
			continue
		}
		before := w.blocker(s)
		if before == nil {
			w.intend(&start{TaskID: t.ID, Desired: w.wanted})
			continue
		}
		if at := t.CreatedAt.Add(explainAfter); at > w.now {
			w.wakeAt(at)
		} else {
			w.say(t, w.waitsFor(before))
		}
	}
}

// say explains a task that is ready and waits; in earlier states its agent's
// messages say more.
func (w *servicePlan) say(t *cluster.Task, message string) {
	if t.Status.State == cluster.StateReady && t.Status.Message != message {
		w.intend(&explain{TaskID: t.ID, State: t.Status.State, Message: message, Err: t.Status.Err})
	}
}
