package store

import (
	"iter"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"skep/cluster"
)

var tasks = &kindOf[cluster.Task]{
	number: 6,
	word:   "task",
	key:    func(t *cluster.Task) string { return t.ID },
	blank:  func(id string) (*cluster.Task, error) { return &cluster.Task{ID: id}, nil },
	meta:   taskMeta{},
	// What tasks don't share is their own ID and their container's.
	share: func(in *interner, t *cluster.Task) {
		in.share(&t.ServiceID)
		in.share(&t.NodeID)
		in.share(&t.Status.Message)
		in.share(&t.Status.Err)
	},
	uniques: func(t *cluster.Task) []cluster.Unique {
		if len(t.Addresses) == 0 {
			return nil
		}
		list := make([]cluster.Unique, len(t.Addresses))
		for i, a := range t.Addresses {
			list[i] = cluster.UniqueAddress(a)
		}
		return list
	},
	indexes: [maxIndexes]index[cluster.Task]{
		tasksByService: {before: func(a, b *cluster.Task) bool {
			if c := strings.Compare(a.ServiceID, b.ServiceID); c != 0 {
				return c < 0
			}
			if a.Slot != b.Slot {
				return a.Slot < b.Slot
			}
			return a.ID < b.ID
		}},
		tasksByNode: {
			has: func(t *cluster.Task) bool { return t.NodeID != "" },
			before: func(a, b *cluster.Task) bool {
				if c := strings.Compare(a.NodeID, b.NodeID); c != 0 {
					return c < 0
				}
				return a.ID < b.ID
			},
		},
	},
}

// The indexes of tasks: by service, slot, ID, and by node, ID.
const (
	tasksByService = iota
	tasksByNode
)

// taskMeta reads and writes what tasks have in place of a cluster.Meta.
type taskMeta struct{}

func (taskMeta) get(t *cluster.Task) cluster.Meta {
	return cluster.Meta{Version: t.Version, CreatedAt: t.CreatedAt.Std(), UpdatedAt: t.UpdatedAt.Std()}
}

func (taskMeta) set(t *cluster.Task, m cluster.Meta) {
	t.Version, t.CreatedAt, t.UpdatedAt = m.Version, cluster.At(m.CreatedAt), cluster.At(m.UpdatedAt)
}

func (taskMeta) setVersion(t *cluster.Task, version uint64) { t.Version = version }

// Task finds a task by its ID.
func (v View) Task(id string) *cluster.Task { return tasks.get(v, id) }

// Tasks lists all tasks in the order of their IDs.
func (v View) Tasks() iter.Seq[*cluster.Task] { return tasks.list(v) }

// TasksWithPrefix lists the tasks whose ID begins with prefix.
func (v View) TasksWithPrefix(prefix string) iter.Seq[*cluster.Task] {
	return tasks.withPrefix(v, prefix)
}

// TasksOfService lists the tasks of a service, slot by slot; also of a service
// that is gone.
func (v View) TasksOfService(serviceID string) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		within := func(t *cluster.Task) bool { return t.ServiceID == serviceID }
		tasksFrom(tasks.in(v).indexes[tasksByService], serviceID, 0, "", within, yield)
	}
}

// TasksOfSlot lists the tasks of one slot of a service, by ID.
func (v View) TasksOfSlot(serviceID string, slot uint32) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		within := func(t *cluster.Task) bool { return t.ServiceID == serviceID && t.Slot == slot }
		tasksFrom(tasks.in(v).indexes[tasksByService], serviceID, slot, "", within, yield)
	}
}

// TasksByService lists all tasks, service by service, slot by slot.
func (v View) TasksByService() iter.Seq[*cluster.Task] {
	return tasks.in(v).indexes[tasksByService].Scan
}

// TasksOfNode lists the tasks that are or were assigned to a node, and those that
// wait for this very node (Task.Assigned tells them apart).
func (v View) TasksOfNode(nodeID string) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		within := func(t *cluster.Task) bool { return t.NodeID == nodeID }
		tasksFrom(tasks.in(v).indexes[tasksByNode], "", 0, nodeID, within, yield)
	}
}

// TaskCount is the number of tasks, ended ones included.
func (v View) TaskCount() int { return tasks.in(v).len() }

// taskPivots are reused, so that finding a few tasks allocates nothing.
var taskPivots = sync.Pool{New: func() any { return new(cluster.Task) }}

// tasksFrom lists an index from a place on, while within holds.
func tasksFrom(index *btree.BTreeG[*cluster.Task], serviceID string, slot uint32, nodeID string, within func(*cluster.Task) bool, yield func(*cluster.Task) bool) {
	pivot := taskPivots.Get().(*cluster.Task)
	pivot.ServiceID, pivot.Slot, pivot.NodeID = serviceID, slot, nodeID
	index.Ascend(pivot, func(t *cluster.Task) bool { return within(t) && yield(t) })
	taskPivots.Put(pivot)
}
