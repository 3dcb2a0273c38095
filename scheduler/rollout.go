package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	defaultMonitor = 5 * time.Second
	// defaultStartDeadline is what holds without cluster.LabelStartDeadline, from when a
	// task of a rollout may start.
	defaultStartDeadline = 5 * time.Minute
)

// updatePolicy is how tasks are replaced: the service's UpdateConfig, or its
// RollbackConfig while it rolls back, with Swarm's defaults.
type updatePolicy struct {
	parallelism    int // 0 is no limit
	delay, monitor time.Duration
	action         string
	ratio          float32
	startFirst     bool
	deadline       time.Duration
}

func policyOf(s *cluster.Service, rollback bool) updatePolicy {
	p := updatePolicy{parallelism: 1, monitor: defaultMonitor, action: swarm.UpdateFailureActionPause, deadline: defaultStartDeadline}
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
		p.startFirst = config.Order == swarm.UpdateOrderStartFirst
	}
	if d, ok := cluster.LabelStartDeadline.Of(s.Spec.Labels); ok {
		p.deadline = d
	}
	return p
}

// openRollout finds the rollout to the current revision, and begins one when
// there is none and some slot needs it.
func (w *servicePlan) openRollout() {
	rollout := w.View.Rollout(w.id)
	if rollout != nil && rollout.Revision != w.service.Revision {
		rollout = nil
	}
	w.rollout, w.before = rollout, rollout
	w.policy = policyOf(w.service, rollout != nil && rollout.RollingBack())
	dirty := 0
	for i := range w.slots {
		s := &w.slots[i]
		switch {
		case s.idle || s.held:
		case len(s.live) > 0:
			s.dirty = !slices.ContainsFunc(s.live, func(t *cluster.Task) bool { return w.upToDate(t) || w.misplaced(t) != "" })
		case s.newest != nil && !w.upToDate(s.newest):
			// A node that was away comes back into the service; that isn't an update.
			s.dirty = !w.global || endedItself(s, s.newest) || !w.restartable(s, s.newest)
		}
		if s.dirty {
			dirty++
		}
	}
	switch {
	case rollout == nil && dirty > 0, rollout != nil && (rollout.Done() || rollout.Rebalance) && dirty > 0 && w.hasUntried():
		w.policy = policyOf(w.service, false)
		dirty += w.markRetries(w.now)
		w.write(cluster.Rollout{
			ServiceID: w.id, State: swarm.UpdateStateUpdating, Revision: w.service.Revision,
			Total: uint32(dirty), StartedAt: w.Now, Message: "update in progress",
		})
	case rollout != nil && rollout.Total == 0 && dirty > 0 && !rollout.Paused() && !rollout.Done():
		next := *rollout // A rollback, which the API began.
		next.Total = uint32(dirty)
		w.write(next)
	}
	if w.rollout == nil {
		return
	}
	w.paused = w.rollout.Paused()
	w.running = !w.paused && !w.rollout.Done()
	if w.running && !w.rollout.RollingBack() && !w.rollout.Rebalance {
		w.markRetries(cluster.At(w.rollout.StartedAt))
	}
	if w.running {
		for i := range w.slots {
			w.findRolling(&w.slots[i])
		}
	}
}

// markRetries marks the slots that were at the current revision when the rollout
// began, at start, had failed and don't run: the update was paused, and is resumed. They
// are tried anew before any other slot gets what failed there. It returns how many.
func (w *servicePlan) markRetries(start cluster.Time) (marked int) {
	for i := range w.slots {
		if s := &w.slots[i]; !s.dirty && !s.idle && !s.held && w.failedBefore(s, start) {
			s.dirty, s.retry = true, true
			marked++
		}
	}
	return marked
}

// failedBefore tells whether a task of the current revision failed in the slot, and
// nothing runs there nor was made there since start.
func (w *servicePlan) failedBefore(s *slot, start cluster.Time) bool {
	failed := false
	for _, t := range s.tasks {
		switch {
		case t.Desired == cluster.StateRemove:
		case t.CreatedAt >= start, t.Live() && (t.Revision != w.current.Number || t.Status.State == cluster.StateRunning):
			return false
		case t.Revision == w.current.Number:
			failed = endedItself(s, t) && t.Status.State != cluster.StateComplete || failed && t.RunningAt == 0
		}
	}
	return failed
}

// write plans to write the rollout. A later call changes what the first writes.
func (w *servicePlan) write(next cluster.Rollout) {
	if w.progress == nil {
		w.progress = &progress{Rollout: new(cluster.Rollout), Seen: version(w.View.Rollout(w.id))}
		w.intend(w.progress)
	}
	*w.progress.Rollout = next
	w.rollout = w.progress.Rollout
}

// hasUntried tells whether a dirty slot was never tried.
func (w *servicePlan) hasUntried() bool {
	for i := range w.slots {
		if w.slots[i].dirty && !w.gaveUp(&w.slots[i]) {
			return true
		}
	}
	return false
}

// checkFailures counts the rollout's failures and acts when there are too many. It
// returns true when the service goes back to its previous spec: then there is
// nothing more to plan for the present one.
func (w *servicePlan) checkFailures() (abandoned bool) {
	if !w.running || w.policy.action == swarm.UpdateFailureActionContinue {
		return false
	}
	failures := 0
	var last *cluster.Task
	var lastAt cluster.Time
	var lastWhy string
	for i := range w.slots {
		t, at, why := w.failure(&w.slots[i])
		if t == nil {
			continue
		}
		failures++
		if last == nil || cmp.Or(cmp.Compare(at, lastAt), cmp.Compare(t.ID, last.ID)) > 0 {
			last, lastAt, lastWhy = t, at, why
		}
	}
	if failures == 0 || float32(failures)/float32(max(w.rollout.Total, 1)) <= w.policy.ratio {
		return false
	}
	because := "due to failure or early termination of task " + last.ID
	if lastWhy != "" {
		because += ": " + lastWhy
	}
	rollback := w.policy.action == swarm.UpdateFailureActionRollback && !w.rollout.RollingBack() && !w.rollout.Rebalance
	possible := rollback && w.service.Previous != nil && w.View.Revision(w.id, w.service.PreviousRevision) != nil
	if missing := missing(w.View, w.service.Previous); possible && missing != "" {
		because += "; it isn't rolled back, because the previous spec refers to what was removed: " + missing
	} else if possible {
		for i := range w.slots {
			for _, t := range w.slots[i].live {
				if why := w.overdue(&w.slots[i], t); why != "" && !t.Status.State.Terminal() && t.Status.Err != why {
					w.intend(&explain{TaskID: t.ID, State: t.Status.State, Err: why})
				}
			}
		}
		w.intend(&abandon{
			ServiceID: w.id, ServiceSeen: w.service.Version, RolloutSeen: version(w.rollout),
			Message: "update rolled back " + because,
		})
		return true
	}
	next := *w.rollout
	next.State, next.Message = swarm.UpdateStatePaused, "update paused "+because
	if w.rollout.RollingBack() {
		next.State, next.Message = swarm.UpdateStateRollbackPaused, "rollback paused "+because
	}
	if w.rollout.Rebalance {
		next.Message = "rebalance paused " + because
	}
	// It is written after what is done about the failures: they are found again by a
	// leader that finds the rollout still running, but not by one that finds it paused.
	w.pausing = &next
	w.paused = true
	return false
}

// missing names what spec refers to and is gone; empty when there is nothing, or no
// spec.
func missing(view store.View, spec *swarm.ServiceSpec) string {
	if spec == nil {
		return ""
	}
	var list []string
	for _, ref := range view.Missing(&spec.TaskTemplate) {
		list = append(list, ref.Kind+" "+ref.Name)
	}
	return strings.Join(list, ", ")
}

// update begins to replace dirty slots, as many at a time as the policy says.
func (w *servicePlan) update() {
	if !w.running || w.paused {
		return
	}
	var queue []*slot
	busy := w.starting
	for i := range w.slots {
		s := &w.slots[i]
		switch {
		case len(s.rolling) > 0:
			if w.busy(s) {
				busy++
			}
		case s.created:
		case s.dirty && !w.gaveUp(s) && !slices.ContainsFunc(s.live, w.failing):
			queue = append(queue, s)
		case w.moving(s):
			busy++
		}
	}
	// Slots where nothing runs come first: replacing them takes nothing away.
	slices.SortStableFunc(queue, func(a, b *slot) int {
		return cmp.Compare(boolInt(runsNow(a)), boolInt(runsNow(b)))
	})
	for _, s := range queue {
		if w.policy.parallelism > 0 && busy >= w.policy.parallelism {
			return
		}
		busy++
		if s.retry {
			w.replace(s, replacement{stop: slices.Clone(s.live)})
			continue
		}
		w.replaceInOrder(s)
	}
}

// busy tells whether a worker of the rollout is still busy with a slot that it
// began to replace.
func (w *servicePlan) busy(s *slot) bool {
	at, done := w.firstOutcome(s)
	if !done {
		return true
	}
	if end := at.Add(w.policy.delay); end > w.now {
		w.wakeAt(end)
		return true
	}
	return w.moving(s) // It is done, but moves away from its node.
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func runsNow(s *slot) bool {
	return slices.ContainsFunc(s.live, func(t *cluster.Task) bool { return t.Status.State == cluster.StateRunning })
}

// failing tells whether a live task has ended or lost its node, so that restart
// deals with it.
func (w *servicePlan) failing(t *cluster.Task) bool { return t.Status.State.Terminal() || w.gone(t) }

// replaceInOrder replaces the tasks of a slot in the order that the policy says. With
// start-first, one of them goes on for now: the oldest that runs, if any does.
// What has no node yet is just stopped: there is nothing to keep running. One that
// holds the only place for the new one, by its port, the most tasks on a node or what it
// reserves, is stopped first all the same: the new one would wait for ever.
func (w *servicePlan) replaceInOrder(s *slot) *cluster.Task {
	r := replacement{}
	var kept *cluster.Task
	if w.policy.startFirst {
		for _, t := range s.live {
			if t.Assigned() && (kept == nil || t.Status.State == cluster.StateRunning && kept.Status.State != cluster.StateRunning) {
				kept = t
			}
		}
	}
	if kept != nil && w.Ledger.BlockedOnlyBy(&w.requirement, kept, s.node, w.Now) {
		kept = nil
	}
	for _, t := range slices.Clone(s.live) {
		if t == kept {
			r.beside = append(r.beside, t)
		} else {
			r.stop = append(r.stop, t)
		}
	}
	return w.replace(s, r)
}

// closeRollout ends a rollout when nothing is left to replace and no task of it
// can fail any more within the monitor period.
func (w *servicePlan) closeRollout() {
	if !w.running || w.paused || w.starting > 0 || w.unbalanced {
		return
	}
	end := cluster.Time(0)
	for i := range w.slots {
		s := &w.slots[i]
		if len(s.rolling) == 0 {
			if s.dirty && !w.gaveUp(s) {
				return
			}
			continue
		}
		at, done := w.firstOutcome(s)
		if !done {
			return
		}
		end = max(end, at.Add(w.policy.monitor))
	}
	if end > w.now {
		w.wakeAt(end)
		return
	}
	next := *w.rollout
	next.State, next.Message, next.CompletedAt = swarm.UpdateStateCompleted, "update completed", w.Now
	if w.rollout.RollingBack() {
		next.State, next.Message = swarm.UpdateStateRollbackCompleted, "rollback completed"
	}
	if w.rollout.Rebalance {
		next.Message = "rebalance completed"
	}
	w.write(next)
}
