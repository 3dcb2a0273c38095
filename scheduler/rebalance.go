package scheduler

import (
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// A rebalance is a rollout to the revision that the service has already. It moves
// tasks that were there when it began to where placement would put them now, in
// the order, with the parallelism and the delay of an update, each slot at most
// once; and ends when no move makes the service's tasks more evenly spread.

// A return is a rebalance that the scheduler begins by itself after a cold start, when
// machines come back whose tasks were taken over by those that came before them. It
// moves only these tasks, each once.

// rebalancing tells whether the running rollout is a rebalance.
func (w *servicePlan) rebalancing() bool { return w.running && w.rollout.Rebalance }

// leaving tells whether a task of the slot is there only until the one that a
// rebalance put beside it runs.
func (w *servicePlan) leaving(s *slot, t *cluster.Task) bool {
	return w.rebalancing() && len(s.rolling) > 0 && !w.ofRollout(t)
}

// moved tells whether the i-th task of the slot came in the place of one that did
// nothing wrong.
func moved(s *slot, i int) bool { return i == 0 || !endedItself(s, s.tasks[i-1]) }

// rebalance begins to move slots, as many at a time as the policy says.
func (w *servicePlan) rebalance() {
	if !w.rebalancing() || w.paused {
		return
	}
	busy := 0
	movable := make(map[string][]*slot) // by node
	var nodes []string
	for i := range w.slots {
		s := &w.slots[i]
		switch {
		case s.created:
			busy++
		case len(s.rolling) > 0:
			if w.busy(s) {
				busy++
			}
			w.discount(s)
		case w.moving(s):
			busy++
		case w.movable(s) && (!w.rollout.Return || w.displaced(s) != nil):
			nodeID := s.live[0].NodeID
			if movable[nodeID] == nil {
				nodes = append(nodes, nodeID)
			}
			movable[nodeID] = append(movable[nodeID], s)
		}
	}
	for {
		var left []string
		for _, nodeID := range nodes {
			if len(movable[nodeID]) > 0 {
				left = append(left, nodeID)
			}
		}
		nodes = left
		nodeID := w.Ledger.PickRebalanceSource(&w.requirement, nodes, w.Now)
		if nodeID == "" {
			return
		}
		w.unbalanced = true
		if w.policy.parallelism > 0 && busy >= w.policy.parallelism {
			return
		}
		s := movable[nodeID][0]
		movable[nodeID] = movable[nodeID][1:]
		w.noRoomReason = "" // PickRebalanceSource has found a place.
		if w.policy.startFirst {
			w.discount(s)
		}
		w.replaceInOrder(s)
		busy++
	}
}

// movable tells whether a rebalance may move the slot: all is well there, and was
// when the rebalance began, if one is running. What a rollout made that is over is like any task.
func (w *servicePlan) movable(s *slot) bool {
	if s.idle || s.held || s.dirty || len(s.live) != 1 || w.blocker(s) != nil {
		return false
	}
	t := s.live[0]
	return t.Assigned() && t.Status.State == cluster.StateRunning && !(w.running && w.ofRollout(t)) && w.upToDate(t) &&
		!w.failing(t) && !w.drained(t) && w.misplaced(t) == ""
}

// displaced finds the task whose node was away after a cold start, and is back, if the
// slot's only task took its place meanwhile; nil if that isn't so. It may have been made
// after the start, for a node that wasn't there; what was moved since had run.
func (w *servicePlan) displaced(s *slot) *cluster.Task {
	if w.coldStart == 0 || w.now >= w.coldStart.Add(cluster.StartupGrace) || len(s.live) != 1 {
		return nil
	}
	i := slices.Index(s.tasks, s.live[0])
	if i <= 0 || s.tasks[i].CreatedAt < w.coldStart {
		return nil
	}
	if w.rollout != nil && w.rollout.Return && w.ofRollout(s.live[0]) && s.live[0].NotBefore != 0 {
		return nil // A return made it, in its turn: what it took the place of may have been reaped.
	}
	before := s.tasks[i-1]
	n := w.Ledger.Node(before.NodeID)
	switch {
	case n == nil || !n.Schedulable() || s.tasks[i].CreatedAt >= cluster.At(n.Status.Since):
		return nil // It wasn't the node's absence.
	case before.CreatedAt >= w.coldStart && before.RunningAt != 0:
		return nil
	case before.Revision != s.tasks[i].Revision || endedItself(s, before):
		return nil
	}
	return before
}

// openReturn begins a return when that would make the service's tasks more even.
func (w *servicePlan) openReturn() {
	if w.global || w.job || w.coldStart == 0 || w.rollout != nil && !w.rollout.Done() {
		return
	}
	var nodes []string
	count := uint32(0)
	for i := range w.slots {
		if s := &w.slots[i]; w.displaced(s) != nil && w.movable(s) {
			count++
			if !slices.Contains(nodes, s.live[0].NodeID) {
				nodes = append(nodes, s.live[0].NodeID)
			}
		}
	}
	if count == 0 || w.Ledger.PickRebalanceSource(&w.requirement, nodes, w.Now) == "" {
		return
	}
	w.policy = policyOf(w.service, false)
	w.write(cluster.Rollout{
		ServiceID: w.id, State: swarm.UpdateStateUpdating, Revision: w.service.Revision, Rebalance: true, Return: true,
		Total: count, StartedAt: w.Now, Message: "rebalance in progress: nodes came back after all had been off",
	})
	w.running = true
}

// discount has the ledger count a task no more that is leaving, or is about to: its
// slot is counted where it goes.
func (w *servicePlan) discount(s *slot) {
	for _, t := range s.live {
		if !w.ofRollout(t) {
			w.Ledger.Release(t)
		}
	}
}
