package scheduler

import (
	"cmp"
	"slices"
	"time"

	"skep/cluster"
	"skep/store"
)

// slot is the tasks of one slot, and what planning finds out about them. In a
// global service each node is a slot.
type slot struct {
	number uint32
	node   string // empty unless the service is global
	// idle is set when the node is to have no task; held when it keeps what it has but
	// takes no new task for now.
	idle, held bool
	// tasks are all of the slot, the oldest first; live those wanted so far. Tasks
	// that this plan stops leave live.
	tasks, live []*cluster.Task
	// newest is the youngest one that isn't being removed, nil if there is none: then
	// the slot is free.
	newest *cluster.Task
	// rolling are the tasks that the running rollout made here.
	rolling []*cluster.Task
	// outdated is set when the slot has no wanted task that is up to date, or when it is
	// finished with one that isn't.
	outdated bool
	// retry is set when the slot is outdated though it is at the current revision: what a
	// resumed update is to try again first.
	retry bool
	// created is set when this plan makes a task here.
	created bool
}

// gather sorts the tasks of a service into slots, those with tasks, in the order of their
// numbers or nodes. It appends them to slots.
func gather(slots []slot, view store.View, serviceID string) []slot {
	var unnumbered []*cluster.Task
	for t := range view.TasksOfService(serviceID) {
		if t.Slot == 0 {
			unnumbered = append(unnumbered, t)
			continue
		}
		slots = sortIn(slots, t)
	}
	slices.SortFunc(unnumbered, func(a, b *cluster.Task) int { return cmp.Compare(a.NodeID, b.NodeID) })
	for _, t := range unnumbered {
		slots = sortIn(slots, t)
	}
	for i := range slots {
		s := &slots[i]
		if len(s.tasks) > 1 {
			slices.SortFunc(s.tasks, older)
			slices.SortFunc(s.live, older)
		}
		for _, t := range s.tasks {
			if t.Desired != cluster.StateRemove {
				s.newest = t
			}
		}
	}
	return slots
}

// sortIn puts a task into its slot: the last one so far, or a new one after it.
func sortIn(slots []slot, t *cluster.Task) []slot {
	at := slot{number: t.Slot}
	if t.Slot == 0 {
		at.node = t.NodeID
	}
	if n := len(slots); n == 0 || slots[n-1].number != at.number || slots[n-1].node != at.node {
		slots = append(slots, at)
	}
	s := &slots[len(slots)-1]
	s.tasks = append(s.tasks, t)
	if t.Live() {
		s.live = append(s.live, t)
	}
	return slots
}

// older sorts tasks of a slot by age. Where a clock stood still, what is wanted
// is younger than what isn't, then what changed last is.
func older(a, b *cluster.Task) int {
	return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(boolInt(a.Live()), boolInt(b.Live())),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID))
}

func runsNow(s *slot) bool { return slices.ContainsFunc(s.live, isRunning) }

func isRunning(t *cluster.Task) bool { return t.Status.State == cluster.StateRunning }

// endedItself tells whether a task ended without having been told to, before
// anything else took its place. What a node reports after it was given up, or
// rebooted, isn't the task's fault.
func endedItself(s *slot, t *cluster.Task) bool {
	switch t.Status.State {
	case cluster.StateComplete, cluster.StateFailed, cluster.StateRejected:
	default:
		return false
	}
	for _, other := range s.tasks {
		if other != t && other.Revision == t.Revision && other.CreatedAt > t.CreatedAt && other.CreatedAt < t.Status.Applied {
			return false
		}
	}
	return true
}

// ran is for how long a task that has ended ran.
func ran(t *cluster.Task) time.Duration {
	if t.RunningAt == 0 || !t.Status.State.Terminal() {
		return 0
	}
	return t.Status.Applied.Sub(t.RunningAt)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
