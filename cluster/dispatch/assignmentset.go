package dispatch

import (
	"maps"
	"reflect"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// revisionKey names a revision.
type revisionKey struct {
	serviceID string
	number    uint64
}

func keyOf(r *cluster.Revision) revisionKey { return revisionKey{r.ServiceID, r.Number} }

func revisionOf(t *cluster.Task) revisionKey { return revisionKey{t.ServiceID, t.Revision} }

// assignmentSet is what a session has told its agent so far. From it and a view it
// makes the next message; it sends nothing itself.
type assignmentSet struct {
	nodeID string
	// index is the To of the last message.
	index uint64
	tasks map[string]*cluster.Task
	// revisions are those that tasks refer to. One that no task refers to any more is
	// forgotten, and would be sent again.
	revisions map[revisionKey]*heldRevision
	holdings  secretRefs
}

type heldRevision struct {
	version uint64
	// logging is the default log driver that the agent got it with.
	logging *swarm.Driver
	tasks   int
}

// full makes the complete set of the node's tasks, with all revisions they refer to.
func (l *assignmentSet) full(view store.View) *cluster.Assignments {
	l.tasks = make(map[string]*cluster.Task)
	l.revisions = make(map[revisionKey]*heldRevision)
	l.holdings = newSecretRefs()
	message := &cluster.Assignments{Full: true, To: view.Index()}
	for task := range view.TasksOfNode(l.nodeID) {
		if task.Assigned() {
			l.add(message, view, task)
		}
	}
	l.holdings.diff(message, view)
	l.index = view.Index()
	return message
}

// difference makes the message that brings an agent that knows the assignment set up to
// view, when only what is marked may have changed. It is nil when there is
// nothing to say, unless the mark is to say just how far this manager has got.
func (l *assignmentSet) difference(view store.View, changed pending) *cluster.Assignments {
	if view.Index() <= l.index {
		return nil
	}
	message := &cluster.Assignments{From: l.index, To: view.Index()}
	var gone []*cluster.Task
	for _, id := range slices.Sorted(maps.Keys(changed.tasks)) {
		told, now := l.tasks[id], view.Task(id)
		switch {
		case now == nil || now.NodeID != l.nodeID || !now.Assigned():
			if told != nil {
				gone = append(gone, told)
			}
		case told == nil || !sameOrders(told, now):
			l.add(message, view, now)
		default:
			l.tasks[id] = now
			if !needs(now) {
				l.holdings.release(id)
			}
		}
	}
	// Removals come last, so that a revision that goes from one task to the next
	// isn't forgotten in between.
	for _, task := range gone {
		delete(l.tasks, task.ID)
		l.release(task)
		l.holdings.release(task.ID)
		message.Removed = append(message.Removed, task.ID)
	}
	for key := range changed.revisions {
		l.refresh(message, view, key)
	}
	if changed.defaultsToo {
		for key := range l.revisions {
			l.refresh(message, view, key)
		}
	}
	l.holdings.diff(message, view)
	if !changed.touch && len(message.Tasks) == 0 && len(message.Removed) == 0 && len(message.Revisions) == 0 && len(message.Dropped) == 0 {
		return nil
	}
	l.index = view.Index()
	return message
}

// add puts a task into the message, and its revision when the agent lacks it.
func (l *assignmentSet) add(message *cluster.Assignments, view store.View, task *cluster.Task) {
	key := revisionOf(task)
	held := l.revisions[key]
	if held == nil {
		held = &heldRevision{}
		l.revisions[key] = held
	}
	held.tasks++
	if told := l.tasks[task.ID]; told != nil {
		l.release(told)
	}
	l.tasks[task.ID] = task
	message.Tasks = append(message.Tasks, task)
	l.refresh(message, view, key)
	l.holdings.release(task.ID)
	if revision := view.Revision(key.serviceID, key.number); revision != nil && needs(task) {
		l.holdings.claim(task.ID, cluster.References(revision.Spec.ContainerSpec))
	}
}

// refresh puts a revision that is in use into the message unless the agent has
// it as it is now. The cluster's default log driver is in it where the service has
// none: a container keeps the one it was made with.
func (l *assignmentSet) refresh(message *cluster.Assignments, view store.View, key revisionKey) {
	held := l.revisions[key]
	now := view.Revision(key.serviceID, key.number)
	if held == nil || now == nil {
		return
	}
	var logging *swarm.Driver
	if now.Spec.LogDriver == nil {
		logging = view.Cluster().DefaultLogDriver()
	}
	if held.version == now.Version && reflect.DeepEqual(held.logging, logging) {
		return
	}
	held.version, held.logging = now.Version, logging
	if logging != nil {
		completed := *now
		completed.Spec.LogDriver = logging
		now = &completed
	}
	message.Revisions = append(message.Revisions, now)
}

func (l *assignmentSet) release(task *cluster.Task) {
	key := revisionOf(task)
	if held := l.revisions[key]; held != nil {
		if held.tasks--; held.tasks == 0 {
			delete(l.revisions, key)
		}
	}
}

// sameOrders tells whether nothing changed between two versions of a task but
// what its agent reported itself.
func sameOrders(a, b *cluster.Task) bool {
	if !agents(b.Status.State) && a.Status != b.Status {
		return false // A manager's word, like Orphaned, is news to the agent.
	}
	return a.Revision == b.Revision && a.ServiceID == b.ServiceID && a.Slot == b.Slot &&
		a.Desired == b.Desired && a.NotBefore == b.NotBefore
}

// agents tells whether the state is one that agents write.
func agents(state cluster.State) bool {
	return state >= cluster.StateAccepted && state <= cluster.StateRejected
}
