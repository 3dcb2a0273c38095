package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// defaultStartDeadline is what holds without cluster.LabelStartDeadline, from when a
// task of a rollout may start.
const defaultStartDeadline = 5 * time.Minute

// updatePolicy is how tasks are replaced: the service's UpdateConfig, or its
// RollbackConfig while it rolls back, with Swarm's defaults.
type updatePolicy struct {
	parallelism    int // 0 is no limit
	delay, monitor time.Duration
	action         string
	ratio          float32
	startFirst     bool
	deadline       time.Duration
	pauseAfter     int // 0 is never
}

func policyOf(s *cluster.Service, rollback bool) updatePolicy {
	p := updatePolicy{parallelism: 1, monitor: cluster.DefaultMonitor, action: swarm.UpdateFailureActionPause, deadline: defaultStartDeadline}
	config := s.Spec.UpdateConfig
	if rollback {
		config = s.Spec.RollbackConfig
	}
	if config != nil {
		p.parallelism = int(min(config.Parallelism, 1<<30))
		p.delay, p.ratio = config.Delay, config.MaxFailureRatio
		if config.Monitor != 0 {
			p.monitor = config.Monitor
		}
		if config.FailureAction != "" {
			p.action = config.FailureAction
		}
		// The next task can't have the addresses of one that runs.
		p.startFirst = config.Order == swarm.UpdateOrderStartFirst && !address.Static(s)
	}
	if !rollback {
		p.pauseAfter, _ = cluster.LabelPauseAfter.Of(s.Spec.Labels)
	}
	if d, ok := cluster.LabelStartDeadline.Of(s.Spec.Labels); ok {
		p.deadline = d
	}
	return p
}

// rollout is how far the update to the current revision has come.
type rollout struct {
	view *serviceView
	// Rollout is the record, as the plan found it or as it writes it; nil when there is none.
	*cluster.Rollout
	policy updatePolicy
	// running and paused say where it was when planning began, or is since its failures
	// were counted.
	running, paused bool
	written         *progress // nil while this plan writes nothing of it
}

// openRollout finds the rollout to the current revision, and begins one when
// there is none and some slot needs it.
func openRollout(v *serviceView, slots []slot) rollout {
	r := rollout{view: v, Rollout: v.stored}
	r.policy = policyOf(v.service, r.Rollout != nil && r.RollingBack())
	outdated := v.markOutdated(slots)
	switch {
	case r.Rollout == nil && outdated > 0, r.Rollout != nil && (r.Done() || r.Rebalance) && outdated > 0 && r.hasUntried(slots):
		r.policy = policyOf(v.service, false)
		outdated += v.markRetries(slots, v.now)
		r.write(cluster.Rollout{
			ServiceID: v.id, State: swarm.UpdateStateUpdating, Revision: v.service.Revision,
			Total: uint32(outdated), StartedAt: v.Now, Message: "update in progress",
			Resumed: r.Rollout != nil, // The service has been all of that revision.
		})
	case r.Rollout != nil && r.Total == 0 && !r.Paused() && !r.Done(): // One that the API began.
		if !r.RollingBack() {
			outdated += v.markRetries(slots, cluster.At(r.StartedAt))
		}
		if outdated > 0 {
			next := *r.Rollout
			next.Total = uint32(outdated)
			r.write(next)
		}
	}
	if r.Rollout == nil {
		return r
	}
	if r.AtOnce {
		r.policy.parallelism, r.policy.delay = 0, 0
	}
	if r.Resumed || r.Rebalance || r.AtOnce {
		r.policy.pauseAfter = 0
	}
	r.paused = r.Paused()
	r.running = !r.paused && !r.Done()
	if r.running && !r.RollingBack() && !r.Rebalance {
		v.markRetries(slots, cluster.At(r.StartedAt))
	}
	if r.running {
		for i := range slots {
			slots[i].rolling = r.rollingIn(&slots[i])
		}
	}
	return r
}

// markOutdated marks the slots that the service's update is to replace, and returns how many.
func (v *serviceView) markOutdated(slots []slot) (outdated int) {
	for i := range slots {
		s := &slots[i]
		switch {
		case s.idle || s.held:
		case len(s.live) > 0:
			s.outdated = !slices.ContainsFunc(s.live, func(t *cluster.Task) bool { return v.upToDate(t) || v.misplaced(t) != "" })
		case s.newest != nil && !v.upToDate(s.newest):
			// A node that was away comes back into the service; that isn't an update.
			s.outdated = !v.global || endedItself(s, s.newest) || !v.restartable(s, s.newest)
		}
		if s.outdated {
			outdated++
		}
	}
	return outdated
}

// markRetries marks the slots that were at the current revision when the rollout
// began, at start, had failed and don't run: the update was paused, and is resumed. They
// are tried anew before any other slot gets what failed there. It returns how many.
func (v *serviceView) markRetries(slots []slot, start cluster.Time) (marked int) {
	for i := range slots {
		if s := &slots[i]; !s.outdated && !s.idle && !s.held && v.failedBefore(s, start) {
			s.outdated, s.retry = true, true
			marked++
		}
	}
	return marked
}

// failedBefore tells whether a task of the current revision failed in the slot, and
// nothing runs there nor was made there since start.
func (v *serviceView) failedBefore(s *slot, start cluster.Time) bool {
	failed := false
	for _, t := range s.tasks {
		switch {
		case t.Desired == cluster.StateRemove:
		case t.CreatedAt >= start, t.Live() && (t.Revision != v.current.Number || t.Status.State == cluster.StateRunning):
			return false
		case t.Revision == v.current.Number:
			failed = endedItself(s, t) && t.Status.State != cluster.StateComplete || failed && t.RunningAt == 0
		}
	}
	return failed
}

// tellDependencies has the rollout say what it waits for before it begins.
func (r *rollout) tellDependencies() {
	if !r.running || r.paused || r.Rebalance {
		return
	}
	what := "update"
	if r.RollingBack() {
		what = "rollback"
	}
	waits := what + " waits for "
	message := what + " in progress"
	switch unmet := r.view.depends.unmet; {
	case unmet == "" && !strings.HasPrefix(r.Message, waits):
		return
	case unmet != "":
		message = what + " " + unmet
	}
	if r.Message != message {
		next := *r.Rollout
		next.Message = message
		r.write(next)
	}
}

// write plans to write the rollout. A later call changes what the first writes.
func (r *rollout) write(next cluster.Rollout) {
	if r.written == nil {
		r.written = &progress{Rollout: new(cluster.Rollout), Seen: version(r.view.View.Rollout(r.view.id))}
		r.view.intend(r.written)
	}
	*r.written.Rollout = next
	r.Rollout = r.written.Rollout
}

// hasUntried tells whether an outdated slot was never tried.
func (r *rollout) hasUntried(slots []slot) bool {
	return slices.ContainsFunc(slots, func(s slot) bool { return s.outdated && !r.gaveUp(&s) })
}

// checkFailures counts the rollout's failures and acts when there are too many. It
// returns how the rollout pauses then; or that it is abandoned, when the service goes back
// to its previous spec: then there is nothing more to plan for the present one.
func (r *rollout) checkFailures(slots []slot) (pause *cluster.Rollout, abandoned bool) {
	if !r.running || r.policy.action == swarm.UpdateFailureActionContinue {
		return nil, false
	}
	failures := 0
	var last *cluster.Task
	var lastAt cluster.Time
	var lastWhy string
	for i := range slots {
		t, at, why := r.failure(&slots[i])
		if t == nil {
			continue
		}
		failures++
		if last == nil || cmp.Or(cmp.Compare(at, lastAt), cmp.Compare(t.ID, last.ID)) > 0 {
			last, lastAt, lastWhy = t, at, why
		}
	}
	because := ""
	switch tooMany := failures > 0 && float32(failures)/float32(max(r.Total, 1)) > r.policy.ratio; {
	case tooMany:
		because = "due to failure or early termination of task " + last.ID
		if lastWhy != "" {
			because += ": " + lastWhy
		}
	case r.view.depends.late > 0:
		because = fmt.Sprintf("since it %s, for longer than %s", r.view.depends.unmet, r.view.depends.late)
	default:
		return nil, false
	}
	rollback := r.policy.action == swarm.UpdateFailureActionRollback && !r.RollingBack() && !r.Rebalance
	possible := rollback && r.view.service.Previous != nil && r.view.View.Revision(r.view.id, r.view.service.PreviousRevision) != nil
	if missing := missing(r.view.View, r.view.service.Previous); possible && missing != "" {
		because += "; it isn't rolled back, because the previous spec refers to what was removed: " + missing
	} else if possible {
		for i := range slots {
			for _, t := range slots[i].live {
				if why := r.overdue(&slots[i], t); why != "" && !t.Status.State.Terminal() && t.Status.Err != why {
					r.view.intend(&explain{TaskID: t.ID, State: t.Status.State, Err: why})
				}
			}
		}
		r.view.intend(&abandon{
			ServiceID: r.view.id, ServiceSeen: r.view.service.Version, RolloutSeen: version(r.Rollout),
			Because: because,
		})
		return nil, true
	}
	next := *r.Rollout
	next.State, next.Message = swarm.UpdateStatePaused, "update paused "+because
	if r.RollingBack() {
		next.State, next.Message = swarm.UpdateStateRollbackPaused, "rollback paused "+because
	}
	if r.Rebalance {
		next.Message = "rebalance paused " + because
	}
	return &next, false
}

// missing names what spec refers to and is gone; empty when there is nothing, or no
// spec.
func missing(view store.View, spec *swarm.ServiceSpec) string {
	if spec == nil {
		return ""
	}
	var list []string
	for _, ref := range view.Missing(&spec.TaskTemplate) {
		list = append(list, ref.Kind+" "+cmp.Or(ref.Name, ref.ID))
	}
	return strings.Join(list, ", ")
}

// busy tells whether a worker of the rollout is still busy with a slot that it
// began to replace.
func (r *rollout) busy(s *slot) bool {
	at, done := r.firstOutcome(s)
	if !done {
		return true
	}
	if end := at.Add(r.policy.delay); end > r.view.now {
		r.view.wakeAt(end)
		return true
	}
	return r.view.moving(s) // It is done, but moves away from its node.
}

// failing tells whether a live task has ended or lost its node, so that restart
// deals with it.
func (v *serviceView) failing(t *cluster.Task) bool { return t.Status.State.Terminal() || v.gone(t) }

// pauseAfter pauses an update of which as many slots were begun as the service wants to look at
// first, when they have come to something that can't fail within the monitor period any more.
func (r *rollout) pauseAfter(slots []slot) {
	if !r.running || r.paused || r.policy.pauseAfter == 0 || starting(slots) > 0 {
		return
	}
	begun, failed, left := 0, 0, false
	end := cluster.Time(0)
	for i := range slots {
		s := &slots[i]
		if len(s.rolling) == 0 {
			left = left || s.outdated && !r.gaveUp(s)
			continue
		}
		begun++
		at, done := r.firstOutcome(s)
		if !done {
			return
		}
		if t, _, _ := r.failure(s); t != nil {
			failed++
		}
		end = max(end, at.Add(r.policy.monitor))
	}
	if begun < r.policy.pauseAfter || !left {
		return
	}
	if end > r.view.now {
		r.view.wakeAt(end)
		return
	}
	next := *r.Rollout
	but := ""
	if failed > 0 {
		but = fmt.Sprintf(", of which %d failed", failed)
	}
	name := r.view.service.Spec.Name
	next.State, next.Asked = swarm.UpdateStatePaused, failed == 0
	next.Message = fmt.Sprintf("update paused after %d of %d tasks%s, as label %s says: `skep service resume %s` goes on, `skep service rollback %s` goes back",
		begun, r.Total, but, cluster.LabelPauseAfter.Name, name, name)
	r.write(next)
	r.paused = true
}

// close ends a rollout when nothing is left to replace and no task of it
// can fail any more within the monitor period.
func (r *rollout) close(slots []slot) {
	if !r.running || r.paused || starting(slots) > 0 {
		return
	}
	end := cluster.Time(0)
	for i := range slots {
		s := &slots[i]
		if len(s.rolling) == 0 {
			if s.outdated && !r.gaveUp(s) {
				return
			}
			continue
		}
		at, done := r.firstOutcome(s)
		if !done {
			return
		}
		end = max(end, at.Add(r.policy.monitor))
	}
	if end > r.view.now {
		r.view.wakeAt(end)
		return
	}
	next := *r.Rollout
	next.State, next.Message, next.CompletedAt = swarm.UpdateStateCompleted, "update completed", r.view.Now
	if r.RollingBack() {
		next.State, next.Message = swarm.UpdateStateRollbackCompleted, "rollback completed"
	}
	if r.Rebalance {
		next.Message = "rebalance completed"
	}
	r.write(next)
}
