package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// leastDelay is between tasks that end before they run, from the second one on.
const leastDelay = time.Second

// restartPolicy is a revision's, with Swarm's defaults.
type restartPolicy struct {
	condition     swarm.RestartPolicyCondition
	delay, window time.Duration
	attempts      int // 0 is no limit
}

func restartPolicyOf(r *cluster.Revision) restartPolicy {
	p := restartPolicy{condition: swarm.RestartPolicyConditionAny, delay: cluster.DefaultRestartDelay}
	if r == nil || r.Spec.RestartPolicy == nil {
		return p
	}
	spec := r.Spec.RestartPolicy
	if spec.Condition != "" {
		p.condition = spec.Condition
	}
	if spec.Delay != nil {
		p.delay = *spec.Delay
	}
	if spec.Window != nil {
		p.window = *spec.Window
	}
	if spec.MaxAttempts != nil {
		p.attempts = int(min(*spec.MaxAttempts, 1<<20))
	}
	return p
}

// restartable tells whether the policy of its own revision lets a task be
// replaced that has ended, or that its node lost. Attempts are counted from the
// tasks of the same revision that the slot keeps, back to one that ran for longer
// than the window, which has succeeded and is as good as a first one. Swarm counts
// those that began within the window before the end instead, of which there are none
// when the delay is longer.
func (v *serviceView) restartable(s *slot, t *cluster.Task) bool {
	p := restartPolicyOf(v.revision(t))
	switch {
	case v.job && t.Status.State == cluster.StateComplete:
		return false
	case v.job && !endedItself(s, t):
		return true
	case p.condition == swarm.RestartPolicyConditionNone:
		return false
	case p.condition == swarm.RestartPolicyConditionOnFailure && t.Status.State == cluster.StateComplete:
		return false
	case p.attempts == 0 || !endedItself(s, t):
		return true
	}
	earlier := 0
	for i := slices.Index(s.tasks, t); i >= 0; i-- {
		other := s.tasks[i]
		if other.Revision != t.Revision {
			break
		}
		if other != t && other.Desired != cluster.StateRemove && endedItself(s, other) {
			earlier++
		}
		if p.window > 0 && ran(other) > p.window {
			break
		}
	}
	return earlier < p.attempts
}

// restart replaces a task that ended by itself, missed its start deadline or lost
// its node, with one of the current revision. beside are others of the slot that
// go on. It returns false when the policy says to leave it at that.
func (w *servicePlan) restart(s *slot, t *cluster.Task, overdue string, beside []*cluster.Task) bool {
	if !w.restartable(s, t) {
		return false
	}
	r := replacement{beside: beside, stopErr: cmp.Or(overdue, w.misplaced(t))}
	if t.Live() {
		r.stop = append(r.stop, t)
	}
	if overdue != "" || endedItself(s, t) {
		if t.Live() && t.Desired == cluster.StateReady && t.NotBefore > w.now {
			// It failed before it might start. Were it replaced now, a missing image would be
			// pulled again and again without any delay.
			w.wakeAt(t.NotBefore)
			return true
		}
		from := t.Status.Applied
		if overdue != "" {
			from = w.now
		}
		r.notBefore = from.Add(max(w.restartDelay(s, t), leastDelayOf(s, t)))
	}
	w.replace(s, r)
	return true
}

// leastDelayOf slows a slot down in which one task after the other ends before it
// ever runs. Without a restart delay, an image that isn't there would fill the log.
func leastDelayOf(s *slot, t *cluster.Task) time.Duration {
	if t.RunningAt != 0 {
		return 0
	}
	for i, other := range s.tasks {
		if other == t && i > 0 && s.tasks[i-1].RunningAt == 0 && s.tasks[i-1].Revision == t.Revision && endedItself(s, s.tasks[i-1]) {
			return leastDelay
		}
	}
	return 0
}
