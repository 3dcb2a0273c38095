package placement

import (
	"github.com/tidwall/btree"

	"skep/cluster"
)

// Node is what the ledger holds of one node.
type Node struct {
	id   string
	node *cluster.Node // nil when tasks refer to a node that isn't there
	// tasks counts the wanted tasks on the node, services those of each service.
	// A task that is to stop counts for neither, as it won't be there for long.
	tasks    int
	services map[string]int32
	// reserved is held until a task is seen to have ended, wanted or not.
	reserved Resources
	listed   bool // in the ledger's order
}

// Ledger holds all nodes and what is on them.
type Ledger struct {
	nodes map[string]*Node
	// order has the nodes that take new tasks, the one with the fewest tasks first.
	order *btree.BTreeG[*Node]
	// reservations are those of revisions that have any.
	reservations map[revisionKey]Resources
	failures     failures
	// planned is what Place and Release did since the last Settle.
	planned []planned
}

type revisionKey struct {
	service string
	number  uint64
}

// planned is one decision that isn't in the store yet.
type planned struct {
	node     *Node
	service  string
	tasks    int32
	reserved Resources
}

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{
		nodes: make(map[string]*Node),
		order: btree.NewBTreeGOptions(func(a, b *Node) bool {
			if a.tasks != b.tasks {
				return a.tasks < b.tasks
			}
			return a.id < b.id
		}, btree.Options{NoLocks: true}),
		reservations: make(map[revisionKey]Resources),
		failures:     make(failures),
	}
}

// Node finds a node; nil when there is none. Tasks of a node that isn't there
// are lost.
func (l *Ledger) Node(id string) *cluster.Node {
	if n := l.nodes[id]; n != nil {
		return n.node
	}
	return nil
}

func (l *Ledger) entry(id string) *Node {
	n := l.nodes[id]
	if n == nil {
		n = &Node{id: id, services: make(map[string]int32)}
		l.nodes[id] = n
	}
	return n
}

// unlist and list bracket whatever changes a node's place in the order.
func (l *Ledger) unlist(n *Node) {
	if n.listed {
		l.order.Delete(n)
		n.listed = false
	}
}

func (l *Ledger) list(n *Node) {
	if n.node != nil && n.node.Schedulable() {
		l.order.Set(n)
		n.listed = true
	}
}

// ChangeNode takes in that a node is new (before is nil), changed or gone (after
// is nil).
func (l *Ledger) ChangeNode(before, after *cluster.Node) {
	if after == nil {
		n := l.entry(before.ID)
		l.unlist(n)
		n.node = nil
		l.forget(n)
		return
	}
	n := l.entry(after.ID)
	l.unlist(n)
	n.node = after
	l.list(n)
}

// forget drops a node that nothing refers to.
func (l *Ledger) forget(n *Node) {
	if n.node == nil && n.tasks == 0 && len(n.services) == 0 && n.reserved.isZero() {
		delete(l.nodes, n.id)
	}
}

// ChangeRevision takes in that a revision is new, changed or gone. It comes
// before the first and after the last change of a task of that revision.
func (l *Ledger) ChangeRevision(before, after *cluster.Revision) {
	if after == nil {
		delete(l.reservations, revisionKey{before.ServiceID, before.Number})
		return
	}
	if r := reservations(after); !r.isZero() {
		l.reservations[revisionKey{after.ServiceID, after.Number}] = r
	}
}

// ChangeTask takes in that a task is new, changed or gone.
func (l *Ledger) ChangeTask(before, after *cluster.Task) {
	beforeTasks, beforeReserved := l.weight(before)
	afterTasks, afterReserved := l.weight(after)
	if beforeTasks != 0 || !beforeReserved.isZero() {
		if afterTasks == beforeTasks && afterReserved == beforeReserved && after.NodeID == before.NodeID {
			return
		}
		l.add(l.entry(before.NodeID), before.ServiceID, -beforeTasks, Resources{-beforeReserved.NanoCPUs, -beforeReserved.MemoryBytes})
	}
	if afterTasks != 0 || !afterReserved.isZero() {
		l.add(l.entry(after.NodeID), after.ServiceID, afterTasks, afterReserved)
	}
	if after != nil && after.Status.State.Terminal() && (before == nil || !before.Status.State.Terminal()) {
		l.failures.note(after)
	}
}

// weight is what a task adds to its node.
func (l *Ledger) weight(t *cluster.Task) (tasks int32, reserved Resources) {
	if t == nil || !t.Assigned() || t.Status.State.Terminal() {
		return 0, Resources{}
	}
	if t.Live() {
		tasks = 1
	}
	if len(l.reservations) > 0 {
		reserved = l.reservations[revisionKey{t.ServiceID, t.Revision}]
	}
	return tasks, reserved
}

func (l *Ledger) add(n *Node, service string, tasks int32, reserved Resources) {
	if tasks != 0 {
		l.unlist(n)
		n.tasks += int(tasks)
		if count := n.services[service] + tasks; count != 0 {
			n.services[service] = count
		} else {
			delete(n.services, service)
		}
		l.list(n)
	}
	n.reserved.add(reserved)
	if n.node == nil {
		l.forget(n)
	}
}

// Release plans that a task is to stop: it no longer counts, but still holds
// what it reserved.
func (l *Ledger) Release(t *cluster.Task) {
	tasks, _ := l.weight(t)
	if tasks == 0 {
		return
	}
	n := l.entry(t.NodeID)
	l.add(n, t.ServiceID, -1, Resources{})
	l.planned = append(l.planned, planned{node: n, service: t.ServiceID, tasks: -1})
}

// take plans that a task is to run on n.
func (l *Ledger) take(n *Node, q *Requirement) {
	l.add(n, q.service, 1, q.resources)
	l.planned = append(l.planned, planned{node: n, service: q.service, tasks: 1, reserved: q.resources})
}

// Settle forgets everything planned: what became of it comes back as changes of
// the store.
func (l *Ledger) Settle() {
	for _, p := range l.planned {
		l.unlist(p.node)
	}
	for _, p := range l.planned {
		n := p.node
		n.tasks -= int(p.tasks)
		if count := n.services[p.service] - p.tasks; count != 0 {
			n.services[p.service] = count
		} else {
			delete(n.services, p.service)
		}
		n.reserved.sub(p.reserved)
	}
	for _, p := range l.planned {
		if !p.node.listed {
			l.list(p.node)
		}
	}
	clear(l.planned)
	l.planned = l.planned[:0]
}

// NodeUse is what is on a node, for tests and explanations.
type NodeUse struct {
	Tasks    int
	Reserved Resources
}

// Use tells what is on a node.
func (l *Ledger) Use(nodeID string) NodeUse {
	if n := l.nodes[nodeID]; n != nil {
		return NodeUse{Tasks: n.tasks, Reserved: n.reserved}
	}
	return NodeUse{}
}
