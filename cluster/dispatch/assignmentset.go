package dispatch

import (
	"maps"
	"reflect"
	"slices"
	"time"

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

// assignmentSet is what a session has sent its agent so far. From it and a view it
// makes the next message; it sends nothing itself.
type assignmentSet struct {
	nodeID string
	// index is the To of the last message.
	index uint64
	tasks map[string]*cluster.Task
	// vnis are the networks that tasks have addresses in, with how many have.
	vnis map[uint32]int
	// revisions are those that tasks refer to. One that no task refers to any more is
	// forgotten, and would be sent again.
	revisions map[revisionKey]*heldRevision
	refs      secretRefs
}

type heldRevision struct {
	version uint64
	// logging is the default log driver that the agent got it with.
	logging *swarm.Driver
	tasks   int
}

// full makes the complete set of the node's tasks, with all revisions they refer to.
func (a *assignmentSet) full(view store.View) *cluster.Assignments {
	a.tasks = make(map[string]*cluster.Task)
	a.vnis = make(map[uint32]int)
	a.revisions = make(map[revisionKey]*heldRevision)
	a.refs = newSecretRefs()
	message := &cluster.Assignments{Full: true, To: view.Index()}
	for task := range view.TasksOfNode(a.nodeID) {
		if task.Assigned() {
			a.add(message, view, task)
		}
	}
	a.refs.diff(message, view)
	a.index = view.Index()
	return message
}

// difference makes the message that brings an agent that knows the assignment set up to
// view, when only what is marked may have changed. It is nil when there is
// nothing to say, unless the mark is to say just how far this manager has got.
func (a *assignmentSet) difference(view store.View, changed pending) *cluster.Assignments {
	if view.Index() <= a.index {
		return nil
	}
	message := &cluster.Assignments{From: a.index, To: view.Index()}
	var gone []*cluster.Task
	for _, id := range slices.Sorted(maps.Keys(changed.tasks)) {
		sent, now := a.tasks[id], view.Task(id)
		switch {
		case now == nil || now.NodeID != a.nodeID || !now.Assigned():
			if sent != nil {
				gone = append(gone, sent)
			}
		case sent == nil || !sameOrders(sent, now):
			a.add(message, view, now)
		default:
			a.hold(now)
			if !needs(now) {
				a.refs.release(id)
			}
		}
	}
	// Removals come last, so that a revision that goes from one task to the next
	// isn't forgotten in between.
	for _, task := range gone {
		a.unhold(task.ID)
		a.release(task)
		a.refs.release(task.ID)
		message.Removed = append(message.Removed, task.ID)
	}
	for key := range changed.revisions {
		a.refresh(message, view, key)
	}
	if changed.defaultsToo {
		for key := range a.revisions {
			a.refresh(message, view, key)
		}
	}
	a.refs.diff(message, view)
	if !changed.touch && len(message.Tasks) == 0 && len(message.Removed) == 0 && len(message.Revisions) == 0 && len(message.Dropped) == 0 {
		return nil
	}
	a.index = view.Index()
	return message
}

// add puts a task into the message, and its revision when the agent lacks it.
func (a *assignmentSet) add(message *cluster.Assignments, view store.View, task *cluster.Task) {
	key := revisionOf(task)
	held := a.revisions[key]
	if held == nil {
		held = &heldRevision{}
		a.revisions[key] = held
	}
	held.tasks++
	if sent := a.tasks[task.ID]; sent != nil {
		a.release(sent)
	}
	a.hold(task)
	message.Tasks = append(message.Tasks, task)
	a.refresh(message, view, key)
	a.refs.release(task.ID)
	if revision := view.Revision(key.serviceID, key.number); revision != nil && needs(task) {
		a.refs.claim(task.ID, cluster.References(revision.Spec.ContainerSpec))
	}
}

// hold keeps a task, in the place of what there was of it.
func (a *assignmentSet) hold(task *cluster.Task) {
	a.unhold(task.ID)
	a.tasks[task.ID] = task
	for _, address := range task.Addresses {
		a.vnis[address.VNI]++
	}
}

func (a *assignmentSet) unhold(taskID string) {
	task := a.tasks[taskID]
	if task == nil {
		return
	}
	delete(a.tasks, taskID)
	for _, address := range task.Addresses {
		if a.vnis[address.VNI]--; a.vnis[address.VNI] == 0 {
			delete(a.vnis, address.VNI)
		}
	}
}

// refresh puts a revision that is in use into the message unless the agent has
// it as it is now. The cluster's default log driver is in it where the service has
// none: a container keeps the one it was made with. So are the networks of the cluster that engines
// make by themselves, which stay as they are while a service is on them.
func (a *assignmentSet) refresh(message *cluster.Assignments, view store.View, key revisionKey) {
	held := a.revisions[key]
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
	completed := *now
	completed.By, completed.Message, completed.DependsMet = "", "", time.Time{}
	completed.Due, completed.Ended, completed.Outcome = time.Time{}, time.Time{}, ""
	if logging != nil {
		completed.Spec.LogDriver = logging
	}
	for _, attachment := range now.Spec.Networks {
		if n := view.Network(attachment.Target); n != nil && !n.Spans() {
			completed.LocalNetworks = append(completed.LocalNetworks, n)
		}
	}
	message.Revisions = append(message.Revisions, &completed)
}

func (a *assignmentSet) release(task *cluster.Task) {
	key := revisionOf(task)
	if held := a.revisions[key]; held != nil {
		if held.tasks--; held.tasks == 0 {
			delete(a.revisions, key)
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
		a.Desired == b.Desired && a.NotBefore == b.NotBefore && slices.Equal(a.Addresses, b.Addresses)
}

// agents tells whether the state is one that agents write.
func agents(state cluster.State) bool {
	return state >= cluster.StateAccepted && state <= cluster.StateRejected
}
