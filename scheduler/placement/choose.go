package placement

import (
	"container/heap"
	"time"

	"skep/cluster"
)

// few is up to how many tasks are placed by looking through the order each time.
const few = 3

// Place chooses nodes for count tasks of one requirement, one after the other,
// each seeing those before it. Of the nodes that pass all filters it takes one
// without many recent failures of the revision, with the fewest tasks of the
// service, with the fewest tasks in all, with the lowest ID: in this order. The
// result is shorter than count when there was no room for all. The ledger counts
// the tasks as planned until Settle.
func (l *Ledger) Place(q *Requirement, count int, now time.Time) []string {
	chosen := make([]string, 0, count)
	if count <= few {
		for range count {
			n := l.best(q, cluster.At(now))
			if n == nil {
				return chosen
			}
			l.take(n, q)
			chosen = append(chosen, n.id)
		}
		return chosen
	}
	var candidates candidates
	l.order.Scan(func(n *Node) bool {
		if reject(q, n) < 0 {
			candidates = append(candidates, l.candidate(q, n, cluster.At(now)))
		}
		return true
	})
	heap.Init(&candidates)
	for len(candidates) > 0 && len(chosen) < count {
		top := &candidates[0]
		l.take(top.Node, q)
		chosen = append(chosen, top.id)
		if reject(q, top.Node) >= 0 {
			heap.Pop(&candidates)
			continue
		}
		top.own++
		heap.Fix(&candidates, 0)
	}
	return chosen
}

// Fits tells whether Place would find a node for one task.
func (l *Ledger) Fits(q *Requirement, now time.Time) bool { return l.best(q, cluster.At(now)) != nil }

// best looks through the nodes, those with the fewest tasks first, and stops at
// one that nothing can beat.
func (l *Ledger) best(q *Requirement, now cluster.Time) *Node {
	var best candidate
	l.order.Scan(func(n *Node) bool {
		if reject(q, n) >= 0 {
			return true
		}
		c := l.candidate(q, n, now)
		if best.Node == nil || c.before(best) {
			best = c
		}
		return best.own > 0 || best.failing
	})
	return best.Node
}

// candidate is a node that passes the filters.
type candidate struct {
	*Node
	own     int32 // tasks of the service
	failing bool  // many recent failures of the revision
}

func (l *Ledger) candidate(q *Requirement, n *Node, now cluster.Time) candidate {
	return candidate{Node: n, own: n.services[q.service], failing: l.failures.many(n.id, q, now)}
}

func (c candidate) before(other candidate) bool {
	switch {
	case c.failing != other.failing:
		return other.failing
	case c.own != other.own:
		return c.own < other.own
	case c.tasks != other.tasks:
		return c.tasks < other.tasks
	}
	return c.id < other.id
}

// candidates is a heap with the best one at the top.
type candidates []candidate

func (c candidates) Len() int           { return len(c) }
func (c candidates) Less(i, j int) bool { return c[i].before(c[j]) }
func (c candidates) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }

// Push is there for heap.Interface.
func (c *candidates) Push(x any) { *c = append(*c, x.(candidate)) }

// Pop removes the last one, for heap.Interface.
func (c *candidates) Pop() any {
	last := len(*c) - 1
	x := (*c)[last]
	*c = (*c)[:last]
	return x
}
