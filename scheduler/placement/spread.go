package placement

import (
	"container/heap"

	"skep/cluster"
)

// branch is a part of the nodes that can take a task, as the preferences divide
// them. At each level, as its children or nodes, it has a heap with the best one
// at the top, so that taking a node costs a few comparisons.
type branch struct {
	// count is how many tasks of the service are on all nodes of the branch.
	count    int32
	children []*branch // none in a leaf
	nodes    []candidate
}

// tree sorts the nodes that can take a task into their branches: those with many
// recent failures, or the others. It is nil when there are none.
func (l *Ledger) tree(q *Requirement, failing bool, now cluster.Time) *branch {
	counts := l.count(q)
	root := &branch{}
	made := make(map[int32]*branch)
	l.scan(q, func(n *Node) bool {
		c := candidate{Node: n, own: q.load.on(n).wanted, failing: l.failing(n, q, now)}
		if c.failing != failing {
			return true
		}
		at := root
		for _, number := range q.eligible.pathOf(n) {
			next := made[number]
			if next == nil {
				next = &branch{}
				if counts != nil {
					next.count = counts[number]
				}
				made[number] = next
				at.children = append(at.children, next)
			}
			at = next
		}
		at.nodes = append(at.nodes, c)
		return true
	})
	if root.Len() == 0 {
		return nil
	}
	root.init()
	return root
}

func (b *branch) init() {
	for _, child := range b.children {
		child.init()
	}
	heap.Init(b)
}

// first is the best node.
func (b *branch) first() *Node {
	for len(b.children) > 0 {
		b = b.children[0]
	}
	return b.nodes[0].Node
}

// taken takes in that the first node got a task, and whether it has room for more.
// It tells whether the branch has any node left.
func (b *branch) taken(room bool) bool {
	b.count++
	if len(b.children) > 0 {
		room = b.children[0].taken(room)
	} else {
		b.nodes[0].own++
	}
	if room {
		heap.Fix(b, 0)
	} else {
		heap.Pop(b)
	}
	return b.Len() > 0
}

// before tells whether b has the better node of two branches at the same level.
func (b *branch) before(other *branch) bool {
	for {
		if b.count != other.count {
			return b.count < other.count
		}
		if len(b.children) == 0 {
			return b.nodes[0].less(other.nodes[0])
		}
		b, other = b.children[0], other.children[0]
	}
}

// Len, Less, Swap and Pop are of the heap of children, or in a leaf of nodes.
func (b *branch) Len() int { return len(b.children) + len(b.nodes) }

// Less is of the heap.
func (b *branch) Less(i, j int) bool {
	if len(b.children) > 0 {
		return b.children[i].before(b.children[j])
	}
	return b.nodes[i].less(b.nodes[j])
}

// Swap is of the heap.
func (b *branch) Swap(i, j int) {
	if len(b.children) > 0 {
		b.children[i], b.children[j] = b.children[j], b.children[i]
	} else {
		b.nodes[i], b.nodes[j] = b.nodes[j], b.nodes[i]
	}
}

// Push is there for heap.Interface.
func (b *branch) Push(any) { panic("a branch doesn't grow") }

// Pop removes the last one, for heap.Interface.
func (b *branch) Pop() any {
	if last := len(b.children) - 1; last >= 0 {
		b.children = b.children[:last]
	} else {
		b.nodes = b.nodes[:len(b.nodes)-1]
	}
	return nil
}
