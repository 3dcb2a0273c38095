package scheduler

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"skep/cluster"
	"skep/store"
)

// dirty is what must be planned.
type dirty struct{ services, nodes queue }

// queue is IDs in the order in which they came, each once.
type queue struct {
	ids []string
	has map[string]struct{}
}

func newQueue() queue { return queue{has: make(map[string]struct{})} }

func (q *queue) add(ids ...string) {
	for _, id := range ids {
		if _, ok := q.has[id]; !ok {
			q.has[id] = struct{}{}
			q.ids = append(q.ids, id)
		}
	}
}

// take hands out the first ones, at most limit.
func (q *queue) take(limit int) []string {
	first := q.ids[:min(len(q.ids), limit)]
	q.ids = q.ids[len(first):]
	for _, id := range first {
		delete(q.has, id)
	}
	if len(q.ids) == 0 {
		*q = newQueue() // After a listing it was as large as the cluster.
	}
	return first
}

func newDirty() dirty { return dirty{newQueue(), newQueue()} }

func (d *dirty) any() bool { return d.count() > 0 }

func (d *dirty) count() int { return len(d.services.ids) + len(d.nodes.ids) }

// all marks everything, also services that are gone but left something behind.
func (d *dirty) all(view store.View) {
	for s := range view.Services() {
		d.services.add(s.ID)
	}
	for t := range view.TasksByService() {
		d.services.add(t.ServiceID)
		if t.NodeID != "" {
			d.nodes.add(t.NodeID) // which may be gone
		}
	}
	for r := range view.Revisions() {
		d.services.add(r.ServiceID)
	}
	for r := range view.Rollouts() {
		d.services.add(r.ServiceID)
	}
	for n := range view.Nodes() {
		d.nodes.add(n.ID)
	}
}

// onChange brings the ledger in step with one change, and marks what it may mean
// something for.
func (l *loop) onChange(c store.Change) {
	switch o := cmp.Or(c.After, c.Before).(type) {
	case *cluster.Cluster:
		l.onCluster(c)
	case *cluster.Node:
		before, after := store.Sides[cluster.Node](c)
		l.ledger.ChangeNode(before, after)
		l.note(o.ID, before != nil && before.Status.State == cluster.NodeDown, after != nil && after.Status.State == cluster.NodeDown)
		l.onNode(o.ID, before, after)
	case *cluster.Service:
		l.dirty.services.add(o.ID)
		before, after := store.Sides[cluster.Service](c)
		if l.ledger.ChangeService(before, after) || before != nil && len(before.VirtualIPs) > 0 && (after == nil || !slices.Equal(before.VirtualIPs, after.VirtualIPs)) {
			l.onRoomFreed()
		}
		l.onService(o.ID, after)
		l.onDependency(o.Spec.Name)
	case *cluster.Revision:
		before, after := store.Sides[cluster.Revision](c)
		l.ledger.ChangeRevision(before, after)
	case *cluster.Rollout:
		l.dirty.services.add(o.ServiceID)
	case *cluster.Network:
		l.onRoomFreed()
		if c.After == nil {
			for t := range l.view.TasksOfNetwork(o.VNI) {
				l.dirty.services.add(t.ServiceID) // It leaves the network.
			}
		}
	case *cluster.Attachment:
		if c.After == nil {
			l.onRoomFreed()
		}
	case *cluster.Secret, *cluster.Config:
		if c.After == nil {
			l.onReferenceRemoved()
		}
	case *cluster.Task:
		before, after := store.Sides[cluster.Task](c)
		l.ledger.ChangeTask(before, after)
		l.measure.task(l.view, before, after)
		l.note(o.ID, before != nil && before.Status.State == cluster.StateOrphaned, after != nil && after.Status.State == cluster.StateOrphaned)
		if matters(before, after) {
			l.dirty.services.add(o.ServiceID)
		}
		if len(l.depending) > 0 {
			if s := l.view.Service(o.ServiceID); s != nil {
				l.onDependency(s.Spec.Name)
			}
		}
		if before != nil && before.NodeID != "" && !before.Status.State.Terminal() && (after == nil || after.Status.State.Terminal()) {
			l.onRoomFreed()
		} else if after == nil && len(before.Addresses) > 0 {
			l.onRoomFreed()
		}
		if after != nil && after.Assigned() && (before == nil || !before.Assigned()) {
			l.assigned = true
			l.onRoomTaken()
		} else if before != nil && after != nil && before.Desired != after.Desired {
			l.onRoomTaken()
		}
	}
}

// note keeps since when a node or a task is lost.
func (l *loop) note(id string, before, after bool) {
	switch {
	case !after:
		delete(l.lost, id)
	case !before:
		l.lost[id] = l.config.Monotonic()
	}
}

// matters tells whether a task's change can change the plan of its service. The
// steps of a task on its way to running don't, nor does losing an address to another one.
func matters(before, after *cluster.Task) bool {
	if before == nil || after == nil {
		return true
	}
	if before.Desired != after.Desired || before.NodeID != after.NodeID {
		return true
	}
	if before.Status == after.Status && len(before.Addresses) > len(after.Addresses) {
		return false
	}
	step := func(t *cluster.Task) bool {
		return t.Status.State >= cluster.StateAssigned && t.Status.State < cluster.StateRunning && t.Desired >= cluster.StateRunning && t.Live()
	}
	return !step(before) || !step(after)
}

// onRoomFreed marks the services that wait for a node: one may have room now.
func (l *loop) onRoomFreed() {
	for _, id := range slices.Sorted(maps.Keys(l.waiting)) {
		l.dirty.services.add(id)
	}
}

// onRoomTaken sees to it that what waiting tasks say stays true when others take room:
// soon, but not each time, as that changes nothing but words.
func (l *loop) onRoomTaken() {
	if len(l.waiting) == 0 || l.wakes.has(Wake{}) {
		return
	}
	l.wakes.set(Wake{At: l.config.Now().Add(explainAfter)})
}

// follow marks the services that wait to be where others are, when any task was
// assigned.
func (l *loop) follow() {
	if !l.assigned {
		return
	}
	l.assigned = false
	for _, id := range slices.Sorted(maps.Keys(l.following)) {
		l.dirty.services.add(id)
	}
}

// depends notes for what a service waits.
func (l *loop) depends(d Depending) {
	for _, name := range d.On {
		name = strings.ToLower(name)
		l.dependsOn[d.ServiceID] = append(l.dependsOn[d.ServiceID], name)
		if l.depending[name] == nil {
			l.depending[name] = make(map[string]struct{})
		}
		l.depending[name][d.ServiceID] = struct{}{}
	}
}

// independent forgets for what a service waited.
func (l *loop) independent(id string) {
	for _, name := range l.dependsOn[id] {
		if delete(l.depending[name], id); len(l.depending[name]) == 0 {
			delete(l.depending, name)
		}
	}
	delete(l.dependsOn, id)
}

// onDependency marks the services that wait for the one of that name.
func (l *loop) onDependency(name string) {
	if len(l.depending) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(l.depending[strings.ToLower(name)])) {
		l.dirty.services.add(id)
	}
}

// onReferenceRemoved marks the services that a rollback may have been planned for: what was
// removed may be what they would go back to.
func (l *loop) onReferenceRemoved() {
	for rollout := range l.view.Rollouts() {
		if !rollout.Done() && !rollout.Paused() {
			l.dirty.services.add(rollout.ServiceID)
		}
	}
}

func (l *loop) onCluster(c store.Change) {
	before, after := store.Sides[cluster.Cluster](c)
	if before == nil || after == nil || !reflect.DeepEqual(before.Spec.Orchestration, after.Spec.Orchestration) ||
		cluster.RevisionHistory(before.Spec) != cluster.RevisionHistory(after.Spec) {
		l.dirty.all(l.view)
	}
	l.onRoomFreed() // The default log driver may be another one.
}

// onService keeps the sets of global services and of those that are rebalanced by themselves.
func (l *loop) onService(id string, after *cluster.Service) {
	if after != nil && after.Global() {
		l.global[id] = struct{}{}
	} else {
		delete(l.global, id)
	}
	delete(l.auto, id)
	if after != nil {
		if auto, _ := cluster.LabelRebalance.Of(after.Spec.Labels); auto {
			l.auto[id] = struct{}{}
		}
	}
}

// fitnessChanged tells whether a node's change can change which services it is fit for.
func fitnessChanged(before, after *cluster.Node) bool {
	fitness := func(n *cluster.Node) any {
		d := n.Description
		return []any{n.Spec.Labels, n.Role, n.Status.Addr, d.Hostname, d.Platform, d.Resources, d.Engine.Labels, n.Uses}
	}
	return before.Schedulable() != after.Schedulable() || before.Lost() != after.Lost() ||
		before.Status.State != after.Status.State || before.Spec.Availability != after.Spec.Availability ||
		!reflect.DeepEqual(fitness(before), fitness(after))
}

// startingUp tells whether the cluster was started not long ago.
func (l *loop) startingUp() bool {
	c := l.view.Cluster()
	return c != nil && l.config.Now().Before(c.ColdStart.Add(cluster.StartupGrace))
}

func (l *loop) onNode(id string, before, after *cluster.Node) {
	l.dirty.nodes.add(id)
	for _, service := range slices.Sorted(maps.Keys(l.auto)) {
		l.dirty.services.add(service)
	}
	if after == nil || before == nil || fitnessChanged(before, after) {
		for t := range l.view.TasksOfNode(id) {
			if !t.Status.State.Terminal() {
				l.dirty.services.add(t.ServiceID)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(l.global)) {
			l.dirty.services.add(id)
		}
	}
	if after != nil && after.Schedulable() && before != nil && !before.Schedulable() && l.startingUp() {
		for t := range l.view.TasksOfNode(id) {
			l.dirty.services.add(t.ServiceID) // It may get back what others took over.
		}
	}
	// Any change may also be a label, a platform or more memory; and what tasks that
	// wait say counts the nodes.
	l.onRoomFreed()
}
