package scheduler

import (
	"cmp"
	"slices"

	"skep/cluster"
)

// update begins to replace outdated slots, as many at a time as the policy says.
func (w *servicePlan) update(r *rollout) {
	if !r.running || r.paused || w.depends.unmet != "" {
		return
	}
	var queue []*slot
	busy, begun := starting(w.slots), starting(w.slots)
	for i := range w.slots {
		s := &w.slots[i]
		switch {
		case len(s.rolling) > 0:
			begun++
			if r.busy(s) {
				busy++
			}
		case s.created:
		case s.outdated && !r.gaveUp(s) && !slices.ContainsFunc(s.live, w.failing):
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
		if r.policy.parallelism > 0 && busy >= r.policy.parallelism {
			return
		}
		if r.policy.pauseAfter > 0 && begun >= r.policy.pauseAfter {
			return
		}
		busy++
		begun++
		if s.retry {
			w.replace(s, replacement{stop: slices.Clone(s.live)})
			continue
		}
		w.replaceInOrder(s, r.policy)
	}
}

// starting counts the slots that this plan has begun to replace.
func starting(slots []slot) (count int) {
	for i := range slots {
		if slots[i].outdated && slots[i].created {
			count++
		}
	}
	return count
}

// drain empties drained nodes, in the order and with the parallelism of the
// service's updates. It never waits for want of room: the user wants the node
// empty.
func (w *servicePlan) drain(policy updatePolicy) {
	var queue []*slot
	busy := starting(w.slots)
	for i := range w.slots {
		s := &w.slots[i]
		switch {
		case s.created:
		case w.moving(s):
			busy++
		case slices.ContainsFunc(s.live, w.drained) && !slices.ContainsFunc(s.live, func(t *cluster.Task) bool { return !w.drained(t) }):
			queue = append(queue, s)
		}
	}
	for _, s := range queue {
		if last := s.live[len(s.live)-1]; !w.restartable(s, last) {
			w.drop(s, "", slices.Clone(s.live)...)
			continue
		}
		if policy.parallelism > 0 && busy >= policy.parallelism {
			return
		}
		if w.drainSlot(s, policy).NodeID != "" {
			busy++
		}
	}
}

// drainSlot replaces the tasks of a slot, after them where no node has room before.
func (w *servicePlan) drainSlot(s *slot, policy updatePolicy) *cluster.Task {
	if policy.startFirst && w.Ledger.Fits(&w.requirement, w.Now) {
		return w.replaceInOrder(s, policy)
	}
	return w.replace(s, replacement{stop: slices.Clone(s.live)})
}
