package scheduler

import (
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// clearUnfitNodes looks at the nodes of a global service's slots. What is on a node that is
// down, drained or excluded by the service's constraints is stopped, with no other
// in its place; such a slot is idle. What belongs to a node that is gone disappears.
// Nodes that take no new tasks for now hold what they have.
func (w *servicePlan) clearUnfitNodes() {
	for i := range w.slots {
		s := &w.slots[i]
		n := w.Ledger.Node(s.node)
		switch {
		case n == nil:
			w.remove(s)
			s.live, s.newest = nil, nil
			continue
		case n.Lost():
			s.idle = true
			w.drop(s, "", w.unfinished(s)...)
		case n.Spec.Availability == swarm.NodeAvailabilityPause:
			s.held = true
		case w.requirement.Excludes(n):
			s.idle = true
			w.drop(s, cluster.ReasonMisplaced, w.unfinished(s)...)
		case !n.Schedulable():
			s.held = true
		}
	}
	w.slots = slices.DeleteFunc(w.slots, func(s slot) bool { return w.Ledger.Node(s.node) == nil })
}

// unfinished are the slot's wanted tasks, but for those of a job that are complete.
func (v *serviceView) unfinished(s *slot) []*cluster.Task {
	return slices.DeleteFunc(slices.Clone(s.live), func(t *cluster.Task) bool { return v.job && t.Status.State == cluster.StateComplete })
}

// fillNodes makes a task for each node that is fit for the service and has none.
func (w *servicePlan) fillNodes() {
	next, made := 0, 0 // next is an index of w.slots
	for n := range w.View.Nodes() {
		for next < len(w.slots) && w.slots[next].node < n.ID {
			next++
		}
		fresh := slot{node: n.ID}
		s := &fresh
		if next < len(w.slots) && w.slots[next].node == n.ID {
			s = &w.slots[next]
		}
		if s.newest != nil || s.created || !n.Schedulable() || !w.requirement.Meets(n) {
			continue
		}
		w.filled = true
		if made++; w.Limit > 0 && made > w.Limit {
			return // What this creates brings the next plan.
		}
		desired := w.wanted
		if w.blocker(s) != nil {
			desired = cluster.StateReady
		}
		w.intend(&create{Task: w.newTask(s, desired), Networks: w.networking.supplies})
		s.created = true
	}
}

// misplaced says why a task that works must leave its node: the node changed, and
// the service's constraints exclude it now, or it hasn't a container yet and can't get one, since
// the node can't carry its networks. It is empty otherwise, also while it is
// the service that changed: then the rollout moves its tasks, one by one.
func (v *serviceView) misplaced(t *cluster.Task) string {
	starts := t.Status.State < cluster.StateReady && t.Revision == v.current.Number && v.requirement.Networked()
	if v.requirement.Anywhere() && !starts || !t.Assigned() || !t.Live() || t.Status.State.Terminal() {
		return ""
	}
	n := v.Ledger.Node(t.NodeID)
	switch {
	case n == nil || n.Status.State == cluster.NodeDown || n.Spec.Availability != swarm.NodeAvailabilityActive:
		return ""
	case starts && v.requirement.Clashes(n):
		return cluster.ReasonClash
	case !v.requirement.Excludes(n):
		return ""
	}
	if t.Revision != v.current.Number {
		r := v.revision(t)
		if r == nil {
			return ""
		}
		// It fitted when the service came to this revision, if all that changed then was the
		// placement and no rollout replaced it.
		fitted := v.compare(t).exceptPlacement &&
			(v.stored != nil && v.stored.Done() || v.stored == nil && n.UpdatedAt.After(v.current.CreatedAt))
		if !fitted && cluster.Satisfies(n, r.Spec.Placement) {
			return ""
		}
	}
	return cluster.ReasonMisplaced
}
