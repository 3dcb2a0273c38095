// Package standing says how services stand: how many of their tasks run, of how many, and
// why the others don't.
//
// Who runs it: managers, for the problems of `skep cluster status` and for the pages of the
// console. It is pure: what it says follows from a View, and it keeps nothing.
//
// Guarantees: a place counts once, however many tasks it had; a reason is one that doesn't
// go away by itself in a moment; a job is never short of tasks, since its tasks end.
package standing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"skep/cluster"
	"skep/store"
)

// Place is where one task of a service is to run: a slot, or a node of a global service.
type Place struct {
	Slot   uint32
	NodeID string
}

// PlaceOf is the place that a task of the service is for.
func PlaceOf(service *cluster.Service, task *cluster.Task) Place {
	if service.Global() {
		return Place{NodeID: task.NodeID}
	}
	return Place{Slot: task.Slot}
}

// Service is how one service stands.
type Service struct {
	// Running of Wanted places have a running task; of a job, so many of its tasks run, and
	// Completed have done what they should.
	Running, Wanted, Completed int
	// Reasons is how many places aren't filled for which reason.
	Reasons map[string]int
}

// Reason is the most frequent of Reasons; empty when there are none.
func (s Service) Reason() string {
	if len(s.Reasons) == 0 {
		return ""
	}
	return slices.MaxFunc(slices.Sorted(maps.Keys(s.Reasons)), func(a, b string) int { return cmp.Compare(s.Reasons[a], s.Reasons[b]) })
}

// filling is what fills a place, or should.
type filling struct {
	running bool
	live    *cluster.Task // that is to run; nil when there is none
	ended   *cluster.Task // the last one that ended
}

// Of says how a service stands.
func Of(view store.View, service *cluster.Service) (stands Service) {
	if service.Job() {
		return ofJob(view, service)
	}
	places := map[Place]*filling{}
	for task := range view.TasksOfService(service.ID) {
		where := PlaceOf(service, task)
		fill := places[where]
		if fill == nil {
			fill = &filling{}
			places[where] = fill
		}
		switch {
		case task.Dead():
			if fill.ended == nil || fill.ended.CreatedAt < task.CreatedAt {
				fill.ended = task
			}
		case task.Live():
			fill.running = fill.running || task.Status.State == cluster.StateRunning
			fill.live = task
		}
	}
	for _, fill := range places {
		if fill.live != nil {
			stands.Wanted++
		}
	}
	given := stands.Wanted // places that have a task which is to run
	if replicated := service.Spec.Mode.Replicated; replicated != nil && replicated.Replicas != nil {
		stands.Wanted = int(*replicated.Replicas)
	}
	stands.Reasons = map[string]int{}
	for _, fill := range places {
		if fill.running {
			stands.Running++
			continue
		}
		if fill.live == nil && given >= stands.Wanted {
			continue // The place isn't to be filled any more.
		}
		if reason := fill.reason(view, service); reason != "" {
			stands.Reasons[reason]++
		}
	}
	return stands
}

// ofJob counts the tasks of a job's present iteration.
func ofJob(view store.View, service *cluster.Service) (stands Service) {
	for task := range view.TasksOfService(service.ID) {
		if task.Revision != service.Revision {
			continue
		}
		switch {
		case task.Status.State == cluster.StateComplete:
			stands.Completed++
		case task.Status.State == cluster.StateRunning && task.Live():
			stands.Running++
		}
	}
	if revision := view.Revision(service.ID, service.Revision); revision == nil || !revision.Idle { // else it waits for its time
		stands.Wanted, _ = service.Completions()
	}
	return stands
}

// reason is why the place isn't filled; empty when it may be in a moment.
func (f *filling) reason(view store.View, service *cluster.Service) string {
	if f.live != nil && f.live.Status.State <= cluster.StatePending && f.live.Status.Err != "" {
		return f.live.Status.Err
	}
	if f.ended == nil || f.ended.Revision != service.Revision || f.ended.Status.Err == "" ||
		f.ended.Status.State != cluster.StateFailed && f.ended.Status.State != cluster.StateRejected {
		return ""
	}
	on := f.ended.NodeID
	if node := view.Node(on); node != nil {
		on = node.Description.Hostname
	}
	return fmt.Sprintf("the last one was %s on %s: %s", f.ended.Status.State, on, f.ended.Status.Err)
}
