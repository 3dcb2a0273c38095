package scheduler

import (
	"slices"

	"skep/cluster"
)

// stop takes a task out of the slot's live ones; it no longer counts on its node.
func (w *servicePlan) stop(s *slot, desired cluster.State, err string, t *cluster.Task) *stop {
	if i := slices.Index(s.live, t); i >= 0 {
		w.release(t)
		s.live = slices.Delete(s.live, i, i+1)
	}
	return &stop{TaskID: t.ID, Desired: desired, Err: err}
}

// drop stops tasks without a replacement.
func (w *servicePlan) drop(s *slot, err string, tasks ...*cluster.Task) {
	for _, t := range tasks {
		w.intend(w.stop(s, cluster.StateShutdown, err, t))
	}
}

// replacement says how a slot gets a new task.
type replacement struct {
	// stop are live tasks that end in the same moment; stopErr says why, of the
	// last one.
	stop    []*cluster.Task
	stopErr string
	// beside are live tasks that go on until the new one runs, if it ever does.
	beside []*cluster.Task
	// notBefore is when the new one may start, at the earliest.
	notBefore cluster.Time
}

// replace makes a new task in the slot. Unless it runs beside them, it starts
// when the others have stopped, and is made ready in the meantime.
func (w *servicePlan) replace(s *slot, r replacement) *cluster.Task {
	c := &create{}
	for i, t := range r.stop {
		err := ""
		if i == len(r.stop)-1 {
			err = r.stopErr
		}
		c.Stop = append(c.Stop, *w.stop(s, cluster.StateShutdown, err, t))
	}
	for _, t := range r.beside {
		c.Beside = append(c.Beside, t.ID)
	}
	desired := w.wanted
	if r.notBefore > w.now || len(r.beside) == 0 && w.blocker(s) != nil {
		desired = cluster.StateReady
	}
	c.Task = w.newTask(s, desired)
	// Whatever replaces another task has NotBefore, which tells it from the first task
	// of a new slot.
	c.Task.NotBefore = max(r.notBefore, w.now)
	c.Networks = w.networking.supplies
	w.intend(c)
	s.created = true
	return c.Task
}

// replaceInOrder replaces the tasks of a slot in the order that the policy says. With
// start-first, one of them goes on for now: the oldest that runs, if any does.
// What has no node yet is just stopped: there is nothing to keep running. One that
// holds the only place for the new one, by its port, the most tasks on a node or what it
// reserves, is stopped first all the same: the new one would wait for ever.
func (w *servicePlan) replaceInOrder(s *slot, policy updatePolicy) *cluster.Task {
	r := replacement{}
	var kept *cluster.Task
	if policy.startFirst {
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
