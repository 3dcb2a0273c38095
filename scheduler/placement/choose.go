package placement

import (
	"cmp"
	"time"

	"skep/cluster"
)

// scanThreshold is up to how many tasks are placed by looking through the load index each time.
const scanThreshold = 3

// Place chooses nodes for count tasks of one requirement, one after the other,
// each seeing those before it. Of the nodes that pass all filters it takes one
// without many recent failures of the revision; in the branch with the fewest
// tasks of the service, by one preference after the other; with the fewest tasks
// of the service, with the fewest tasks in all, with the lowest ID: in this order.
// The result is shorter than count when there was no room for all. The ledger
// counts the tasks as planned until Settle.
func (l *Ledger) Place(q *Requirement, count int, now time.Time) []Choice {
	chosen := make([]Choice, 0, count)
	if count <= scanThreshold {
		for range count {
			n := l.best(q, cluster.At(now))
			if n == nil {
				break
			}
			chosen = append(chosen, l.assign(n, q))
		}
		return chosen
	}
	for _, failing := range []bool{false, true} {
		for tree := l.tree(q, failing, cluster.At(now)); tree != nil && len(chosen) < count; {
			n := tree.first()
			chosen = append(chosen, l.assign(n, q))
			if !tree.taken(l.hasRoom(q, n)) {
				break
			}
		}
	}
	return chosen
}

// PlaceOne is Place for one task. It returns why no node can take it, or nothing when one
// can.
func (l *Ledger) PlaceOne(q *Requirement, now time.Time) (c Choice, why string) {
	if n := l.best(q, cluster.At(now)); n != nil {
		return l.assign(n, q), ""
	}
	return c, l.Explain(q)
}

// Fits tells whether Place would find a node for one task.
func (l *Ledger) Fits(q *Requirement, now time.Time) bool { return l.best(q, cluster.At(now)) != nil }

// scan calls visit with the nodes that can take a task, those with the fewest
// tasks first, until it returns false.
func (l *Ledger) scan(q *Requirement, visit func(*Node) bool) {
	q.eligible.fill(l.sorted)
	l.byLoad.scan(q.eligible.fit, func(i int32) bool {
		n := l.sorted[i]
		return !l.hasRoom(q, n) || visit(n)
	})
}

// best looks through the nodes that can take a task, and stops at one that nothing
// can beat.
func (l *Ledger) best(q *Requirement, now cluster.Time) *Node {
	var best candidate
	counts, floor, all := l.count(q), l.floor(q), true
	l.scan(q, func(n *Node) bool {
		c := candidate{Node: n, own: q.load.on(n).wanted, failing: l.failing(n, q, now)}
		if best.Node == nil || c.before(best, q.eligible, counts) {
			best = c
		}
		all = !best.unbeatable(q.eligible, counts, floor)
		return all
	})
	if all && counts == nil && best.Node != nil && !best.failing {
		l.raiseFloor(q, best.own)
	}
	return best.Node
}

// count counts the service's tasks in each branch, on all nodes, whatever they can
// take; nil means that there are none, or no branches. The result is good until
// the next call.
func (l *Ledger) count(q *Requirement) []int32 {
	if len(q.load.shares) == 0 || len(q.eligible.spread) == 0 {
		return nil
	}
	q.eligible.fill(l.sorted)
	size := len(q.eligible.branches)
	if cap(l.sums) < size {
		l.sums = make([]int32, size)
	}
	counts := l.sums[:size]
	clear(counts)
	for _, s := range q.load.shares {
		if s.node.node == nil {
			continue
		}
		for _, branch := range q.eligible.pathOf(s.node) {
			counts[branch] += s.wanted
		}
	}
	return counts
}

// candidate is a node that passes the filters.
type candidate struct {
	*Node
	own     int32 // tasks of the service
	failing bool  // many recent failures of the revision
}

// before tells whether c is the better choice of two, in any branches.
func (c candidate) before(other candidate, p *eligibleNodes, counts []int32) bool {
	if c.failing != other.failing {
		return other.failing
	}
	if counts != nil {
		others := p.pathOf(other.Node)
		for level, branch := range p.pathOf(c.Node) {
			if a, b := counts[branch], counts[others[level]]; a != b {
				return a < b
			}
		}
	}
	return c.less(other)
}

// less tells whether c is the better choice of two in the same branches.
func (c candidate) less(other candidate) bool {
	return cmp.Or(cmp.Compare(c.own, other.own), cmp.Compare(c.tasks, other.tasks), cmp.Compare(c.id, other.id)) < 0
}

// unbeatable tells whether no node that comes later in the load index can be better. floor is how
// many tasks of the service all that can take one have, at least.
func (c candidate) unbeatable(p *eligibleNodes, counts []int32, floor int32) bool {
	if c.failing || c.own > floor || counts != nil && c.own > 0 {
		return false
	}
	if counts != nil {
		for _, branch := range p.pathOf(c.Node) {
			if counts[branch] > 0 {
				return false
			}
		}
	}
	return true
}
