package manager

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"skep/cluster"
	"skep/store"
)

// place is where one task of a service is to run: a slot, or a node of a global service.
type place struct {
	slot   uint32
	nodeID string
}

// filling is what fills a place, or should.
type filling struct {
	running bool
	live    *cluster.Task // that is to run; nil when there is none
	ended   *cluster.Task // the last one that ended
}

// serviceProblems names the services that run fewer tasks than they should for a reason that
// doesn't go away by itself in a moment: tasks that wait, and tasks that failed just before.
func serviceProblems(view store.View) []string {
	var found []string
	for service := range view.Services() {
		if service.Job() {
			continue // Its tasks end.
		}
		places := map[place]*filling{}
		for task := range view.TasksOfService(service.ID) {
			where := place{slot: task.Slot}
			if service.Global() {
				where = place{nodeID: task.NodeID}
			}
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
		all, running := 0, 0
		for _, fill := range places {
			if fill.live != nil {
				all++
			}
		}
		given := all // places that have a task which is to run
		if replicated := service.Spec.Mode.Replicated; replicated != nil && replicated.Replicas != nil {
			all = int(*replicated.Replicas)
		}
		reasons := map[string]int{}
		for _, fill := range places {
			if fill.running {
				running++
				continue
			}
			if fill.live == nil && given >= all {
				continue // The place isn't to be filled any more.
			}
			if reason := fill.reason(view, service); reason != "" {
				reasons[reason]++
			}
		}
		if len(reasons) == 0 {
			continue
		}
		most := slices.MaxFunc(slices.Sorted(maps.Keys(reasons)), func(a, b string) int { return cmp.Compare(reasons[a], reasons[b]) })
		found = append(found, fmt.Sprintf("service %s runs %d of %d tasks: %s", service.Spec.Name, running, all, most))
	}
	return found
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
