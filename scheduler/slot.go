package scheduler

import (
	"cmp"
	"slices"
	"sync"
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

// room is what slots are made in, one service after the other: a plan of a large service would otherwise make
// two lists for each slot, and the next plan again.
type room struct {
	slots       []slot
	tasks, live []*cluster.Task
}

// rooms are those that no plan is using. There is nothing in them.
var rooms = sync.Pool{New: func() any { return new(room) }}

// clear makes the room ready for the next service. slots are those that gather gave, and more.
func (r *room) clear(slots []slot) {
	clear(slots)
	clear(r.tasks)
	clear(r.live)
	r.slots, r.tasks, r.live = slots[:0], r.tasks[:0], r.live[:0]
}

// gather sorts the tasks of a service into slots, those with tasks, in the order of their
// numbers or nodes.
func (r *room) gather(view store.View, serviceID string) []slot {
	var unnumbered []*cluster.Task
	for t := range view.TasksOfService(serviceID) {
		if t.Slot == 0 {
			unnumbered = append(unnumbered, t)
			continue
		}
		r.tasks = append(r.tasks, t)
	}
	slices.SortFunc(unnumbered, func(a, b *cluster.Task) int { return cmp.Compare(a.NodeID, b.NodeID) })
	r.tasks = append(r.tasks, unnumbered...)
	r.live = slices.Grow(r.live, len(r.tasks)) // so that it stays where it is
	for rest := r.tasks; len(rest) > 0; {
		s := slot{number: rest[0].Slot}
		if s.number == 0 {
			s.node = rest[0].NodeID
		}
		count := 1
		for count < len(rest) && rest[count].Slot == s.number && (s.number > 0 || rest[count].NodeID == s.node) {
			count++
		}
		s.tasks, rest = rest[:count:count], rest[count:]
		if count > 1 {
			slices.SortFunc(s.tasks, older)
		}
		from := len(r.live)
		for _, t := range s.tasks {
			if t.Live() {
				r.live = append(r.live, t)
			}
			if t.Desired != cluster.StateRemove {
				s.newest = t
			}
		}
		if to := len(r.live); to > from {
			s.live = r.live[from:to:to]
		}
		r.slots = append(r.slots, s)
	}
	return r.slots
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
