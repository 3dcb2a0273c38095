package placement

import (
	"cmp"
	"slices"

	"skep/cluster"
)

// Node is what the ledger holds of one node.
type Node struct {
	id   string
	node *cluster.Node // nil when tasks refer to a node that isn't there
	// has is what tasks can reserve.
	has Resources
	// tasks counts the wanted tasks on the node. One that is to stop doesn't count, as
	// it won't be there for long. present counts all that haven't ended.
	tasks, present int
	// reserved, generic and ports are what is held until a task is seen to have ended,
	// wanted or not: generic resources by kind, with what there is; ports with the number of tasks.
	reserved Resources
	generic  map[string]*genericResource
	ports    map[hostPort]int32
	// index is the node's place among all by ID, while the ledger is indexed.
	index  int32
	listed bool // in the load index
}

// Ledger holds all nodes and what is on them.
type Ledger struct {
	nodes map[string]*Node
	// loads are where the tasks of each service are; idle and idleBefore are those that
	// became empty since the last Settle, and before it.
	loads            map[string]*load
	idle, idleBefore []*load
	// holdings are what tasks of revisions hold that hold anything.
	holdings map[revisionKey]*holding
	// antiAffinityBy are, by the name or ID in their label, the services that keep away from
	// that one.
	antiAffinityBy map[string][]neighbour
	failures       failures
	// coldStart is when all machines had been off last; 0 for never.
	coldStart cluster.Time
	// planned is what Place and Release did since the last Settle.
	planned []planned
	// epoch counts what may give nodes room: changes of the store, and taking back what was planned.
	epoch uint64

	// What follows is made of the above when it is needed, and anew after nodes came
	// or went. sorted are the nodes by ID.
	indexed bool
	sorted  []*Node
	// byLoad has the nodes that take new tasks.
	byLoad   loadIndex
	eligible map[string]*eligibleNodes
	key      []byte  // room to name what is asked of a node
	sums     []int32 // room to count the tasks of branches
}

type revisionKey struct {
	service string
	number  uint64
}

// weight is what a task adds to its node.
type weight struct {
	wanted, present int32
	// What follows counts as often as present says.
	holds   *holding
	generic []cluster.Claim
}

func (w weight) negative() weight {
	w.wanted, w.present = -w.wanted, -w.present
	return w
}

// planned is one decision that isn't in the store yet.
type planned struct {
	node *Node
	load *load
	weight
}

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{
		nodes:          make(map[string]*Node),
		loads:          make(map[string]*load),
		holdings:       make(map[revisionKey]*holding),
		antiAffinityBy: make(map[string][]neighbour),
		failures:       make(failures),
		eligible:       make(map[string]*eligibleNodes),
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
		n = &Node{id: id}
		l.nodes[id] = n
	}
	return n
}

func sortNodes(nodes []*Node) {
	slices.SortFunc(nodes, func(a, b *Node) int { return cmp.Compare(a.id, b.id) })
}

// unlist takes a node out of the load index. Call it before changing the node's task count
// or schedulability, and list after: the index is keyed by both.
func (l *Ledger) unlist(n *Node) {
	if l.indexed && n.listed {
		l.byLoad.remove(n.index, n.tasks)
		n.listed = false
	}
}

// list puts a node into the load index, when it takes new tasks.
func (l *Ledger) list(n *Node) {
	if l.indexed && n.node != nil && n.node.Schedulable() {
		l.byLoad.add(n.index, n.tasks)
		n.listed = true
	}
}

// ChangeNode takes in that a node is new (before is nil), changed or gone (after
// is nil).
func (l *Ledger) ChangeNode(before, after *cluster.Node) {
	l.epoch++
	if after == nil {
		n := l.entry(before.ID)
		n.node, l.indexed = nil, false
		l.forget(n)
		return
	}
	n := l.entry(after.ID)
	if n.node == nil {
		l.indexed = false
	}
	l.unlist(n)
	n.node = after
	n.has.NanoCPUs, n.has.MemoryBytes = after.Capacity()
	n.refreshGeneric()
	l.list(n)
	if !l.indexed {
		return
	}
	for key, p := range l.eligible {
		if !p.filled {
			continue
		}
		if p.look(n); len(p.leaves) > 2*len(l.sorted)+1 {
			delete(l.eligible, key) // It has leaves that no node is in any more.
		}
	}
}

// forget drops a node that nothing refers to.
func (l *Ledger) forget(n *Node) {
	if n.node == nil && n.tasks == 0 && n.present == 0 {
		delete(l.nodes, n.id)
	}
}

// ChangeRevision takes in that a revision is new, changed or gone. It comes
// before the first and after the last change of a task of that revision.
func (l *Ledger) ChangeRevision(before, after *cluster.Revision) {
	if after == nil {
		delete(l.holdings, revisionKey{before.ServiceID, before.Number})
		return
	}
	if h := holdingOf(after); h != nil {
		l.holdings[revisionKey{after.ServiceID, after.Number}] = h
	}
}

// ChangeTask takes in that a task is new, changed or gone.
func (l *Ledger) ChangeTask(before, after *cluster.Task) {
	l.epoch++
	was, is := l.weight(before), l.weight(after)
	if was.present != 0 && is.present != 0 && before.NodeID == after.NodeID {
		// What it holds stays.
		if was.wanted != is.wanted {
			l.add(l.entry(after.NodeID), l.loadOf(after.ServiceID), weight{wanted: is.wanted - was.wanted})
		}
		return
	}
	if was.present != 0 {
		l.add(l.entry(before.NodeID), l.loadOf(before.ServiceID), was.negative())
	}
	if is.present != 0 {
		l.add(l.entry(after.NodeID), l.loadOf(after.ServiceID), is)
	}
	if after != nil && after.Status.State.Terminal() && (before == nil || !before.Status.State.Terminal()) {
		l.failures.note(after)
	}
}

// weight is what a task adds to its node.
func (l *Ledger) weight(t *cluster.Task) weight {
	if t == nil || !t.Assigned() || t.Status.State.Terminal() {
		return weight{}
	}
	w := weight{present: 1, generic: t.Generic}
	if t.Live() {
		w.wanted = 1
	}
	if len(l.holdings) > 0 {
		w.holds = l.holdings[revisionKey{t.ServiceID, t.Revision}]
	}
	return w
}

func (l *Ledger) add(n *Node, s *load, w weight) {
	if w.wanted != 0 {
		l.unlist(n)
		n.tasks += int(w.wanted)
		l.list(n)
	}
	if w.present != 0 {
		n.present += int(w.present)
		if w.holds != nil {
			n.reserved.add(w.holds.resources, w.present)
			n.bind(w.holds.ports, w.present)
		}
		n.claim(w.generic, w.present)
	}
	if s.add(n, w.wanted, w.present); len(s.shares) == 0 {
		l.noteIdle(s)
	}
	if n.node == nil {
		l.forget(n)
	}
}

// bind notes that a task holds ports, or gave them back when times is -1.
func (n *Node) bind(ports []hostPort, times int32) {
	for _, p := range ports {
		if n.ports == nil {
			n.ports = make(map[hostPort]int32)
		}
		if n.ports[p] += times; n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
}

// Release plans that a task is to stop: it no longer counts, but still holds
// what it reserved.
func (l *Ledger) Release(t *cluster.Task) {
	if l.weight(t).wanted == 0 {
		return
	}
	l.plan(l.entry(t.NodeID), l.loadOf(t.ServiceID), weight{wanted: -1})
}

// Choice is where a task is to run, and what of the node's generic resources it gets.
type Choice struct {
	NodeID  string
	Generic []cluster.Claim
}

// assign plans that a task is to run on n, which has room.
func (l *Ledger) assign(n *Node, q *Requirement) Choice {
	c := Choice{n.id, n.choose(q.generic)}
	l.plan(n, q.load, weight{1, 1, q.holds, c.Generic})
	return c
}

func (l *Ledger) plan(n *Node, s *load, w weight) {
	l.add(n, s, w)
	l.planned = append(l.planned, planned{n, s, w})
}

// Settle forgets everything planned: what became of it comes back as changes of
// the store.
func (l *Ledger) Settle() {
	l.epoch++
	for _, p := range l.planned {
		l.add(p.node, p.load, p.negative())
	}
	clear(l.planned)
	l.planned = l.planned[:0]
	l.dropIdle()
}

// NodeUse is what is on a node, for tests and explanations.
type NodeUse struct {
	// Tasks are those that are to go on, Present those that haven't ended.
	Tasks, Present int
	Reserved       Resources
	// Ports and Generic count the host ports and generic resources that tasks hold.
	Ports, Generic int
}

// Use tells what is on a node.
func (l *Ledger) Use(nodeID string) NodeUse {
	if n := l.nodes[nodeID]; n != nil {
		use := NodeUse{Tasks: n.tasks, Present: n.present, Reserved: n.reserved, Ports: len(n.ports)}
		for _, s := range n.generic {
			use.Generic += int(s.claimed) + len(s.taken)
		}
		return use
	}
	return NodeUse{}
}
