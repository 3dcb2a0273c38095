package scheduler

import (
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// gaveUp tells whether the slot has got its task of this revision, which then
// ended and isn't to be replaced, while the older one goes on.
func (w *servicePlan) gaveUp(s *slot) bool {
	return slices.ContainsFunc(s.tasks, func(t *cluster.Task) bool {
		return t.Revision == w.current.Number && w.ofRollout(t) &&
			(len(s.live) == 0 || t.CreatedAt > s.live[len(s.live)-1].CreatedAt)
	})
}

func (w *servicePlan) ofRollout(t *cluster.Task) bool {
	return w.rollout != nil && t.Revision == w.rollout.Revision && t.CreatedAt >= cluster.At(w.rollout.StartedAt)
}

// findRolling finds the tasks that the rollout made in the slot: those of its
// revision that replaced something since it began. First tasks of new slots
// aren't its own, nor are replacements in slots that didn't need it.
func (w *servicePlan) findRolling(s *slot) {
	for i, t := range s.tasks {
		if !w.ofRollout(t) || t.Desired == cluster.StateRemove {
			continue
		}
		if len(s.rolling) == 0 && (t.NotBefore == 0 || !w.replaced(s, i)) {
			return
		}
		s.rolling = append(s.rolling, t)
	}
	if s.idle || s.held {
		// Nothing will become of those that are stopped, or whose node takes no task now;
		// and it isn't their fault.
		s.rolling = slices.DeleteFunc(s.rolling, func(t *cluster.Task) bool {
			return t.RunningAt == 0 && !endedItself(s, t) && (s.idle || !t.Assigned())
		})
	}
}

// replaced tells whether the i-th task of the slot came in the place of what the
// rollout is to replace.
func (w *servicePlan) replaced(s *slot, i int) bool {
	if w.rollout.Rebalance {
		return moved(s, i)
	}
	return w.replacedOutdated(s, i) || w.retried(s, i)
}

// retried tells whether the i-th task of the slot is a new try of what had failed
// when the rollout began: the resumed one of a paused update.
func (w *servicePlan) retried(s *slot, i int) bool {
	return !w.rollout.RollingBack() && slices.ContainsFunc(s.tasks[:i], func(t *cluster.Task) bool {
		return t.Revision == w.rollout.Revision && !w.ofRollout(t) && endedItself(s, t)
	})
}

// replacedOutdated tells whether the i-th task of the slot came in the place of
// one that wasn't up to date: the one before it, or an older one that was still
// there beside failures. When no older one is kept, it is taken to be so.
func (w *servicePlan) replacedOutdated(s *slot, i int) bool {
	if i == 0 || !w.upToDate(s.tasks[i-1]) {
		return true
	}
	return slices.ContainsFunc(s.tasks[:i], func(t *cluster.Task) bool {
		there := !t.Status.State.Terminal() || t.Status.Applied >= s.tasks[i].CreatedAt
		return there && !w.upToDate(t)
	})
}

// begun is when the task might start, for the start deadline.
func begun(t *cluster.Task) cluster.Time { return max(t.CreatedAt, t.NotBefore) }

// overdue says that a task of the running rollout missed its start deadline; it
// is empty otherwise.
func (w *servicePlan) overdue(s *slot, t *cluster.Task) string {
	if !w.running || t.RunningAt != 0 || t.Desired == cluster.StateReady || !slices.Contains(s.rolling, t) {
		return ""
	}
	end := w.now
	if t.Status.State.Terminal() {
		end = min(end, t.Status.Applied)
	}
	for _, other := range s.tasks {
		if other.CreatedAt > t.CreatedAt {
			end = min(end, other.CreatedAt)
		}
	}
	if limit := begun(t).Add(w.policy.deadline); end < limit {
		if t.Live() && !t.Status.State.Terminal() {
			w.wakeAt(limit)
		}
		return ""
	}
	return fmt.Sprintf("not running within its start deadline of %s", w.policy.deadline)
}

// outcome tells when a task of the rollout came to something, and whether that
// was a failure: it ended by itself within the monitor period, or before it ran,
// or missed its start deadline. at is 0 when it came to nothing yet.
func (w *servicePlan) outcome(s *slot, t *cluster.Task) (at cluster.Time, failed bool, why string) {
	switch {
	case endedItself(s, t):
		if t.RunningAt == 0 || t.Status.Applied <= t.RunningAt.Add(w.policy.monitor) {
			return t.Status.Applied, true, ""
		}
		return t.RunningAt, false, ""
	case t.RunningAt != 0:
		return t.RunningAt, false, ""
	}
	if why = w.overdue(s, t); why != "" {
		return min(w.now, begun(t).Add(w.policy.deadline)), true, why
	}
	return 0, false, ""
}

// failure finds the first of the slot's tasks that failed, when that was, and why if
// it doesn't say so itself; nil when none did. What replaced it fails for the same
// cause, so a slot counts once.
func (w *servicePlan) failure(s *slot) (t *cluster.Task, at cluster.Time, why string) {
	for _, t := range s.rolling {
		if at, failed, why := w.outcome(s, t); failed {
			return t, at, why
		}
	}
	return nil, 0, ""
}

// counts tells whether the running rollout counts the task as a failure, and may
// act on it, so that the record must stay.
func (w *servicePlan) counts(s *slot, t *cluster.Task) bool {
	if !w.running || w.policy.action == swarm.UpdateFailureActionContinue {
		return false
	}
	failed, _, _ := w.failure(s)
	return failed == t
}

// firstOutcome is when the first of the slot's tasks came to something.
func (w *servicePlan) firstOutcome(s *slot) (first cluster.Time, done bool) {
	for _, t := range s.rolling {
		if at, _, _ := w.outcome(s, t); at != 0 && (!done || at < first) {
			first, done = at, true
		}
	}
	return first, done
}
