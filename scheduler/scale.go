package scheduler

import (
	"cmp"
	"math"
	"slices"

	"skep/cluster"
	"skep/scheduler/placement"
)

// fillSlots makes tasks in the lowest free slots until there are enough, or in a job as
// many as may run.
func (w *servicePlan) fillSlots() {
	missing := w.vacancies(w.slots)
	if missing <= 0 {
		return
	}
	if w.Limit > 0 {
		missing = min(missing, w.Limit) // What this creates brings the next plan.
	}
	var chosen []placement.Choice
	if w.noRoomReason == "" && w.depends.unmet == "" && missing > 1 && !w.networking.static {
		chosen = w.Ledger.Place(&w.requirement, w.networking.left(missing), w.Now)
	}
	next := 0 // of w.slots
	for number := uint32(1); missing > 0; number++ {
		for next < len(w.slots) && w.slots[next].number < number {
			next++
		}
		if next < len(w.slots) && w.slots[next].number == number && (w.slots[next].newest != nil || w.slots[next].created) {
			continue
		}
		var s *slot // what is left there
		if next < len(w.slots) && w.slots[next].number == number {
			s = &w.slots[next]
		}
		var c placement.Choice
		why := ""
		if len(chosen) > 0 {
			c, chosen = chosen[0], chosen[1:]
			given{supplies: w.networking.supplies}.take()
		} else {
			c, why = w.place(s)
		}
		desired := w.wanted
		if (w.job || w.current.Fenced()) && s != nil && w.blocker(s) != nil {
			desired = cluster.StateReady
		}
		w.intend(&create{Task: w.taskOn(c, why, number, desired), Networks: w.networking.supplies})
		missing--
	}
}

// scaleDown removes the slots that are too many. First those go that have no
// task on a node, or several; then, so that what stays is balanced, the tasks
// that have the most others of the service beside them on their node; of those
// the ones that don't run, and then the ones in the higher slots.
func (w *servicePlan) scaleDown() {
	var filled []*slot
	for i := range w.slots {
		if w.slots[i].newest != nil {
			filled = append(filled, &w.slots[i])
		}
	}
	surplus := len(filled) - w.service.Replicas()
	if surplus <= 0 {
		return
	}
	runs := func(s *slot) bool {
		return slices.ContainsFunc(s.live, func(t *cluster.Task) bool { return isRunning(t) && !w.gone(t) })
	}
	slices.SortFunc(filled, func(a, b *slot) int {
		return cmp.Or(-cmp.Compare(boolInt(runs(a)), boolInt(runs(b))), cmp.Compare(a.number, b.number))
	})
	nth := make(map[*slot]int, len(filled))
	copies := make(map[string]int)
	for _, s := range filled {
		nth[s] = math.MaxInt
		if len(s.live) == 1 && s.live[0].NodeID != "" {
			copies[s.live[0].NodeID]++
			nth[s] = copies[s.live[0].NodeID]
		}
	}
	slices.SortStableFunc(filled, func(a, b *slot) int { return cmp.Compare(nth[a], nth[b]) })
	for _, s := range filled[len(filled)-surplus:] {
		w.remove(s)
		s.live, s.newest = nil, nil
	}
	// What is removed isn't planned any further.
	w.slots = slices.DeleteFunc(w.slots, func(s slot) bool { return s.newest == nil })
}

// remove makes all tasks of a slot disappear, as soon as they have stopped and their addresses
// have rested.
func (w *servicePlan) remove(s *slot) {
	for _, t := range s.tasks {
		switch {
		case t.Dead() && !t.Live() && w.service != nil && !w.global && !w.stopped(t):
			// What takes the slot next must know of it.
		case t.Dead() && !t.Live() && !w.resting(t):
			w.intend(&reap{TaskID: t.ID})
		case t.Desired != cluster.StateRemove:
			w.intend(w.stop(s, cluster.StateRemove, "", t))
		}
	}
}

// reapRemoved deletes the tasks that were to be removed and have ended, once their addresses
// have rested, and leaves the others alone.
func (w *servicePlan) reapRemoved() {
	for i := range w.slots {
		for _, t := range w.slots[i].tasks {
			if t.Desired == cluster.StateRemove && t.Dead() && w.stopped(t) && !w.resting(t) {
				w.intend(&reap{TaskID: t.ID})
			}
		}
	}
}

// removeAll is what remains to do for a service that is gone.
func (w *servicePlan) removeAll() {
	left := false
	for i := range w.slots {
		for _, t := range w.slots[i].tasks {
			// A live task that has ended, or never got a node, goes at once, unless its
			// addresses are to rest.
			left = left || !t.Status.State.Terminal() && t.Assigned() || w.resting(t)
		}
		w.remove(&w.slots[i])
	}
	if left {
		return
	}
	for r := range w.View.RevisionsOf(w.id) {
		w.intend(&reapRevision{ServiceID: w.id, Number: r.Number})
	}
	if w.View.Rollout(w.id) != nil {
		w.intend(&reapRollout{ServiceID: w.id})
	}
}

// vacancies is how many slots are to be filled: as many as are missing, but in a job no
// more than may run at the same time. What is to stop there counts until it has.
func (v *serviceView) vacancies(slots []slot) int {
	total, concurrent := v.service.Replicas(), math.MaxInt
	if v.job {
		total, concurrent = v.service.Completions()
	}
	for i := range slots {
		s := &slots[i]
		if s.newest != nil || s.created {
			total--
		}
		if v.job && v.working(s) {
			concurrent--
		}
	}
	return min(total, concurrent)
}

func (v *serviceView) working(s *slot) bool {
	if s.created || v.blocker(s) != nil {
		return true
	}
	// One that has failed and is still wanted waits for the end of a delay.
	return slices.ContainsFunc(s.live, func(t *cluster.Task) bool { return !v.completed(t) })
}
