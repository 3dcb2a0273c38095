package store

import (
	"iter"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"skep/cluster"
)

// View is the database at one moment. It never changes, costs nothing to keep
// for a while, and may be read by many goroutines at once. What it returns is
// shared: copy an object before changing it. Lookups return nil for what isn't
// there. The zero View must not be used.
type View struct{ s *state }

// Index is the log index of the last entry in the view.
func (v View) Index() uint64 { return v.s.applied }

// Cluster is the cluster's own record; nil before the first leader made it.
func (v View) Cluster() *cluster.Cluster { return v.s.cluster }

func find[T any](t *table[T], id string) *T {
	found, _ := t.Get(id)
	return found
}

// all lists a table whole.
func all[T any](t *table[T]) iter.Seq[*T] {
	return func(yield func(*T) bool) { t.Scan(func(_ string, object *T) bool { return yield(object) }) }
}

// withPrefix lists the objects of a table whose ID begins with prefix.
func withPrefix[T any](t *table[T], prefix string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		t.Ascend(prefix, func(id string, object *T) bool { return strings.HasPrefix(id, prefix) && yield(object) })
	}
}

// pivots and revisionPivots are reused, so that finding a few objects allocates
// nothing.
var (
	pivots         = sync.Pool{New: func() any { return new(cluster.Task) }}
	revisionPivots = sync.Pool{New: func() any { return new(cluster.Revision) }}
)

// tasksFrom lists an index of tasks from a place on, while within holds.
func tasksFrom(index *btree.BTreeG[*cluster.Task], serviceID string, slot uint32, nodeID string, within func(*cluster.Task) bool, yield func(*cluster.Task) bool) {
	pivot := pivots.Get().(*cluster.Task)
	pivot.ServiceID, pivot.Slot, pivot.NodeID = serviceID, slot, nodeID
	index.Ascend(pivot, func(t *cluster.Task) bool { return within(t) && yield(t) })
	pivots.Put(pivot)
}

// allOf lists tree whole.
func allOf[T any](tree *btree.BTreeG[*T]) iter.Seq[*T] {
	return func(yield func(*T) bool) { tree.Scan(yield) }
}

// Node finds a node by its ID.
func (v View) Node(id string) *cluster.Node { return find(v.s.nodes, id) }

// Nodes lists the nodes in the order of their IDs.
func (v View) Nodes() iter.Seq[*cluster.Node] { return all(v.s.nodes) }

// NodesWithPrefix lists the nodes whose ID begins with prefix.
func (v View) NodesWithPrefix(prefix string) iter.Seq[*cluster.Node] {
	return withPrefix(v.s.nodes, prefix)
}

// NodeCount is the number of nodes.
func (v View) NodeCount() int { return v.s.nodes.Len() }

// Service finds a service by its ID.
func (v View) Service(id string) *cluster.Service {
	return find(v.s.services, id)
}

// ServiceNamed finds a service by its name, without regard to case.
func (v View) ServiceNamed(name string) *cluster.Service {
	return find(v.s.names, nameKey(name))
}

// Services lists the services in the order of their IDs.
func (v View) Services() iter.Seq[*cluster.Service] { return all(v.s.services) }

// ServicesWithPrefix lists the services whose ID begins with prefix.
func (v View) ServicesWithPrefix(prefix string) iter.Seq[*cluster.Service] {
	return withPrefix(v.s.services, prefix)
}

// ServiceCount is the number of services.
func (v View) ServiceCount() int { return v.s.services.Len() }

// Revision finds a revision of a service by its number.
func (v View) Revision(serviceID string, number uint64) *cluster.Revision {
	pivot := revisionPivots.Get().(*cluster.Revision)
	pivot.ServiceID, pivot.Number = serviceID, number
	found, _ := v.s.revisions.Get(pivot)
	revisionPivots.Put(pivot)
	return found
}

// RevisionsOf lists the kept revisions of a service, the oldest first.
func (v View) RevisionsOf(serviceID string) iter.Seq[*cluster.Revision] {
	return func(yield func(*cluster.Revision) bool) {
		v.s.revisions.Ascend(&cluster.Revision{ServiceID: serviceID}, func(r *cluster.Revision) bool {
			return r.ServiceID == serviceID && yield(r)
		})
	}
}

// Revisions lists all revisions, service by service.
func (v View) Revisions() iter.Seq[*cluster.Revision] { return allOf(v.s.revisions) }

// Rollout finds the progress of a service's last update.
func (v View) Rollout(serviceID string) *cluster.Rollout {
	return find(v.s.rollouts, serviceID)
}

// Rollouts lists all rollouts in the order of their services' IDs.
func (v View) Rollouts() iter.Seq[*cluster.Rollout] { return all(v.s.rollouts) }

// Task finds a task by its ID.
func (v View) Task(id string) *cluster.Task { return find(v.s.tasks, id) }

// Tasks lists all tasks in the order of their IDs.
func (v View) Tasks() iter.Seq[*cluster.Task] { return all(v.s.tasks) }

// TasksWithPrefix lists the tasks whose ID begins with prefix.
func (v View) TasksWithPrefix(prefix string) iter.Seq[*cluster.Task] {
	return withPrefix(v.s.tasks, prefix)
}

// TasksOfService lists the tasks of a service, slot by slot; also of a service
// that is gone.
func (v View) TasksOfService(serviceID string) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		tasksFrom(v.s.byService, serviceID, 0, "", func(t *cluster.Task) bool { return t.ServiceID == serviceID }, yield)
	}
}

// TasksOfSlot lists the tasks of one slot of a service, by ID.
func (v View) TasksOfSlot(serviceID string, slot uint32) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		within := func(t *cluster.Task) bool { return t.ServiceID == serviceID && t.Slot == slot }
		tasksFrom(v.s.byService, serviceID, slot, "", within, yield)
	}
}

// TasksByService lists all tasks, service by service, slot by slot.
func (v View) TasksByService() iter.Seq[*cluster.Task] { return allOf(v.s.byService) }

// TasksOfNode lists the tasks that are or were assigned to a node, and those that
// wait for this very node (Task.Assigned tells them apart).
func (v View) TasksOfNode(nodeID string) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		tasksFrom(v.s.byNode, "", 0, nodeID, func(t *cluster.Task) bool { return t.NodeID == nodeID }, yield)
	}
}

// TaskCount is the number of tasks, ended ones included.
func (v View) TaskCount() int { return v.s.tasks.Len() }
