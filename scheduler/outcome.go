package scheduler

import (
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// gaveUp tells whether the new revision was tried in the slot and given up: the old
// task stays.
func (r *rollout) gaveUp(s *slot) bool {
	return slices.ContainsFunc(s.tasks, func(t *cluster.Task) bool {
		return t.Revision == r.view.current.Number && r.made(t) &&
			(len(s.live) == 0 || t.CreatedAt > s.live[len(s.live)-1].CreatedAt)
	})
}

// made tells whether a task is of the rollout's revision and not older than the rollout.
func (r *rollout) made(t *cluster.Task) bool {
	return r.Rollout != nil && t.Revision == r.Revision && t.CreatedAt >= cluster.At(r.StartedAt)
}

// rollingIn lists the tasks that the rollout made in the slot: those of its
// revision that replaced something since it began. First tasks of new slots
// aren't its own, nor are replacements in slots that didn't need it.
func (r *rollout) rollingIn(s *slot) (rolling []*cluster.Task) {
	for i, t := range s.tasks {
		if !r.made(t) || t.Desired == cluster.StateRemove {
			continue
		}
		if len(rolling) == 0 && (t.NotBefore == 0 || !r.replaced(s, i)) {
			return nil
		}
		rolling = append(rolling, t)
	}
	if s.idle || s.held {
		// Nothing will become of those that are stopped, or whose node takes no task now;
		// and it isn't their fault.
		rolling = slices.DeleteFunc(rolling, func(t *cluster.Task) bool {
			return t.RunningAt == 0 && !endedItself(s, t) && (s.idle || !t.Assigned())
		})
	}
	return rolling
}

// replaced tells whether the i-th task of the slot came in the place of what the
// rollout is to replace.
func (r *rollout) replaced(s *slot, i int) bool {
	if r.Rebalance {
		return moved(s, i)
	}
	return r.replacedOutdated(s, i) || r.retried(s, i)
}

// retried tells whether the i-th task of the slot is a new try of what had failed
// when the rollout began: the resumed one of a paused update.
func (r *rollout) retried(s *slot, i int) bool {
	return !r.RollingBack() && slices.ContainsFunc(s.tasks[:i], func(t *cluster.Task) bool {
		return t.Revision == r.Revision && !r.made(t) && endedItself(s, t)
	})
}

// replacedOutdated tells whether the i-th task of the slot came in the place of
// one that wasn't up to date: the one before it, or an older one that was still
// there beside failures. When no older one is kept, it is taken to be so.
func (r *rollout) replacedOutdated(s *slot, i int) bool {
	if i == 0 || !r.view.upToDate(s.tasks[i-1]) {
		return true
	}
	return slices.ContainsFunc(s.tasks[:i], func(t *cluster.Task) bool {
		there := !t.Status.State.Terminal() || t.Status.Applied >= s.tasks[i].CreatedAt
		return there && !r.view.upToDate(t)
	})
}

// begun is when the task might start.
func begun(t *cluster.Task) cluster.Time { return max(t.CreatedAt, t.NotBefore) }

// begun is when a task of the rollout might start, for the start deadline.
func (r *rollout) begun(t *cluster.Task) cluster.Time {
	return max(begun(t), cluster.At(r.view.current.DependsMet))
}

// overdue says that a task of the running rollout missed its start deadline; it
// is empty otherwise.
func (r *rollout) overdue(s *slot, t *cluster.Task) string {
	if !r.running || t.RunningAt != 0 || t.Desired == cluster.StateReady || !slices.Contains(s.rolling, t) || r.view.depends.unmet != "" {
		return ""
	}
	end, ended := r.view.now, t.Status.State.Terminal()
	if ended {
		end = min(end, t.Status.Applied)
	}
	for _, other := range s.tasks {
		if other.CreatedAt > t.CreatedAt {
			end, ended = min(end, other.CreatedAt), true
		}
	}
	if limit := r.begun(t).Add(r.policy.deadline); end < limit {
		if !ended { // Nothing but time is needed for it, also of a task that is to stop on a node that is down.
			r.view.wakeAt(limit)
		}
		return ""
	}
	return fmt.Sprintf("not running within its start deadline of %s", r.policy.deadline)
}

// outcome tells when a task of the rollout came to something, and whether that
// was a failure: it ended by itself within the monitor period, or before it ran,
// or missed its start deadline. at is 0 when it came to nothing yet.
func (r *rollout) outcome(s *slot, t *cluster.Task) (at cluster.Time, failed bool, why string) {
	switch {
	case endedItself(s, t):
		if t.RunningAt == 0 || t.Status.Applied <= t.RunningAt.Add(r.policy.monitor) {
			return t.Status.Applied, true, ""
		}
		return t.RunningAt, false, ""
	case t.RunningAt != 0:
		return t.RunningAt, false, ""
	}
	if why = r.overdue(s, t); why != "" {
		return min(r.view.now, r.begun(t).Add(r.policy.deadline)), true, why
	}
	return 0, false, ""
}

// failure finds the first of the slot's tasks that failed, when that was, and why if
// it doesn't say so itself; nil when none did. What replaced it fails for the same
// cause, so a slot counts once.
func (r *rollout) failure(s *slot) (t *cluster.Task, at cluster.Time, why string) {
	for _, t := range s.rolling {
		if at, failed, why := r.outcome(s, t); failed {
			return t, at, why
		}
	}
	return nil, 0, ""
}

// counts tells whether the running rollout counts the task as a failure, and may
// act on it, so that the record must stay.
func (r *rollout) counts(s *slot, t *cluster.Task) bool {
	if !r.running || r.policy.action == swarm.UpdateFailureActionContinue {
		return false
	}
	failed, _, _ := r.failure(s)
	return failed == t
}

// firstOutcome is when the first of the slot's tasks came to something.
func (r *rollout) firstOutcome(s *slot) (first cluster.Time, done bool) {
	for _, t := range s.rolling {
		if at, _, _ := r.outcome(s, t); at != 0 && (!done || at < first) {
			first, done = at, true
		}
	}
	return first, done
}
