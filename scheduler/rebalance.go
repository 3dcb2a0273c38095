package scheduler

import (
	"slices"
	"time"

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
func (r *rollout) rebalancing() bool { return r.running && r.Rebalance }

// leaving tells whether a task of the slot is there only until the one that a
// rebalance put beside it runs.
func (r *rollout) leaving(s *slot, t *cluster.Task) bool {
	return r.rebalancing() && len(s.rolling) > 0 && !r.made(t)
}

// moved tells whether the i-th task of the slot came in the place of one that did
// nothing wrong.
func moved(s *slot, i int) bool { return i == 0 || !endedItself(s, s.tasks[i-1]) }

// rebalance begins to move slots, as many at a time as the policy says, and tells
// whether all is balanced then.
func (w *servicePlan) rebalance(r *rollout) (balanced bool) {
	if !r.rebalancing() || r.paused {
		return true
	}
	if w.depends.unmet != "" {
		return false
	}
	balanced = true
	busy := 0
	movable := make(map[string][]*slot) // by node
	var nodes []string
	for i := range w.slots {
		s := &w.slots[i]
		switch {
		case s.created:
			busy++
		case len(s.rolling) > 0:
			if r.busy(s) {
				busy++
			}
			w.discount(s, r)
		case w.moving(s):
			busy++
		case r.movable(s) && (!r.Return || r.displaced(s) != nil):
			nodeID := s.live[0].NodeID
			if movable[nodeID] == nil {
				nodes = append(nodes, nodeID)
			}
			movable[nodeID] = append(movable[nodeID], s)
		}
	}
	for {
		nodes = slices.DeleteFunc(nodes, func(nodeID string) bool { return len(movable[nodeID]) == 0 })
		nodeID := w.Ledger.PickRebalanceSource(&w.requirement, nodes, w.Now)
		if nodeID == "" {
			return balanced
		}
		balanced = false
		if r.policy.parallelism > 0 && busy >= r.policy.parallelism {
			return false
		}
		s := movable[nodeID][0]
		movable[nodeID] = movable[nodeID][1:]
		w.noRoomReason = "" // PickRebalanceSource has found a place.
		if r.policy.startFirst {
			w.discount(s, r)
		}
		w.replaceInOrder(s, r.policy)
		busy++
	}
}

// movable tells whether a rebalance may move the slot: all is well there, and was
// when the rebalance began, if one is running. What a rollout made that is over is like any task.
func (r *rollout) movable(s *slot) bool {
	if s.idle || s.held || s.outdated || len(s.live) != 1 || r.view.blocker(s) != nil {
		return false
	}
	t := s.live[0]
	return t.Assigned() && t.Status.State == cluster.StateRunning && !(r.running && r.made(t)) && r.view.upToDate(t) &&
		!r.view.failing(t) && !r.view.drained(t) && r.view.misplaced(t) == ""
}

// displaced finds the task whose node was away after a cold start, and is back, if the
// slot's only task took its place meanwhile; nil if that isn't so. It may have been made
// after the start, for a node that wasn't there; what was moved since had run.
func (r *rollout) displaced(s *slot) *cluster.Task {
	if r.view.coldStart == 0 || r.view.now >= r.view.coldStart.Add(cluster.StartupGrace) || len(s.live) != 1 {
		return nil
	}
	i := slices.Index(s.tasks, s.live[0])
	if i <= 0 || s.tasks[i].CreatedAt < r.view.coldStart {
		return nil
	}
	if r.Rollout != nil && r.Return && r.made(s.live[0]) && s.live[0].NotBefore != 0 {
		return nil // A return made it, in its turn: what it took the place of may have been reaped.
	}
	before := s.tasks[i-1]
	n := r.view.Ledger.Node(before.NodeID)
	switch {
	case n == nil || !n.Schedulable() || s.tasks[i].CreatedAt >= cluster.At(n.Status.Since):
		return nil // It wasn't the node's absence.
	case before.CreatedAt >= r.view.coldStart && before.RunningAt != 0:
		return nil
	case before.Revision != s.tasks[i].Revision || endedItself(s, before):
		return nil
	}
	return before
}

// openReturn begins a return when that would make the service's tasks more even.
func (w *servicePlan) openReturn(r *rollout) {
	if w.global || w.job || w.coldStart == 0 || r.Rollout != nil && !r.Done() {
		return
	}
	var nodes []string
	count := uint32(0)
	for i := range w.slots {
		if s := &w.slots[i]; r.displaced(s) != nil && r.movable(s) {
			count++
			if !slices.Contains(nodes, s.live[0].NodeID) {
				nodes = append(nodes, s.live[0].NodeID)
			}
		}
	}
	if count == 0 || w.Ledger.PickRebalanceSource(&w.requirement, nodes, w.Now) == "" {
		return
	}
	r.policy = policyOf(w.service, false)
	r.write(cluster.Rollout{
		ServiceID: w.id, State: swarm.UpdateStateUpdating, Revision: w.service.Revision, Rebalance: true, Return: true,
		Total: count, StartedAt: w.Now, Message: "rebalance in progress: nodes came back after all had been off",
	})
	r.running = true
}

const (
	// defaultQuiet is what holds without cluster.LabelRebalanceQuiet.
	defaultQuiet = 5 * time.Minute
	// autoRebalances is how many services are rebalanced by themselves at a time, and autoTurn how
	// often others look whether it is their turn.
	autoRebalances = 1
	autoTurn       = 10 * time.Second
)

// openAuto begins a rebalance by itself where the service wants that: nodes came since it was last
// spread, nothing has changed about any node for a while, and it would be more even.
func (w *servicePlan) openAuto(r *rollout) {
	if auto, _ := cluster.LabelRebalance.Of(w.service.Spec.Labels); !auto || w.global || w.job || r.Rollout != nil && !r.Done() {
		return
	}
	since := w.current.CreatedAt
	if r.Rollout != nil && r.StartedAt.After(since) {
		since = r.StartedAt
	}
	gained, changed := w.nodeChanges()
	if !gained.After(since) {
		return
	}
	quiet, ok := cluster.LabelRebalanceQuiet.Of(w.service.Spec.Labels)
	if !ok {
		quiet = defaultQuiet
	}
	if end := changed.Add(quiet); end.After(w.Now) {
		w.wakeAt(cluster.At(end))
		return
	}
	count := uint32(0)
	var nodes []string
	for i := range w.slots {
		if s := &w.slots[i]; r.movable(s) {
			count++
			if !slices.Contains(nodes, s.live[0].NodeID) {
				nodes = append(nodes, s.live[0].NodeID)
			}
		}
	}
	if w.Ledger.PickRebalanceSource(&w.requirement, nodes, w.Now) == "" {
		return
	}
	if w.rebalances() >= autoRebalances {
		w.wakeAt(w.now.Add(autoTurn))
		return
	}
	w.begunRebalances++
	r.policy = policyOf(w.service, false)
	r.write(cluster.Rollout{
		ServiceID: w.id, State: swarm.UpdateStateUpdating, Revision: w.service.Revision, Rebalance: true,
		Total: count, StartedAt: w.Now, Message: "rebalance in progress: nodes joined or came back",
	})
	r.running = true
}

// nodeChanges is when a node that takes tasks was changed last, and when any was.
func (p *planner) nodeChanges() (gained, changed time.Time) {
	if p.nodesChanged.IsZero() {
		for n := range p.View.Nodes() {
			if n.UpdatedAt.After(p.nodesChanged) {
				p.nodesChanged = n.UpdatedAt
			}
			if n.Schedulable() && n.UpdatedAt.After(p.nodesGained) {
				p.nodesGained = n.UpdatedAt
			}
		}
	}
	return p.nodesGained, p.nodesChanged
}

// rebalances is how many services are being rebalanced, those that this plan begins included.
func (p *planner) rebalances() int {
	if !p.rebalancesCounted {
		p.rebalancesCounted = true
		for r := range p.View.Rollouts() {
			if r.Rebalance && !r.Done() && !r.Paused() {
				p.begunRebalances++
			}
		}
	}
	return p.begunRebalances
}

// discount has the ledger count a task no more that is leaving, or is about to: its
// slot is counted where it goes.
func (w *servicePlan) discount(s *slot, r *rollout) {
	for _, t := range s.live {
		if !r.made(t) {
			w.Ledger.Release(t)
		}
	}
}
