package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"skep/cluster"
)

// filter is one reason why a node may not take a task.
type filter struct {
	// fixed filters ask for what the node itself is: the load index and the eligible nodes know it.
	fixed bool
	// exclusive filters may keep a task away from another of its service, however large
	// the node is.
	exclusive bool
	// check tells whether the node may take one more task, and else what is lacking,
	// where that isn't always the same.
	check func(l *Ledger, q *Requirement, n *Node) (lack string, ok bool)
	// explain says on which nodes, so many, it is lacking.
	explain func(lack, nodes string) string
}

// filters are asked in this order; a node counts for the first it doesn't pass.
var filters = []filter{
	{
		fixed:   true,
		check:   func(_ *Ledger, _ *Requirement, n *Node) (string, bool) { return "", n.node.Schedulable() },
		explain: func(_, nodes string) string { return nodes + " not available for new tasks" },
	},
	{
		check:   enoughResources,
		explain: func(lack, nodes string) string { return "insufficient " + lack + " on " + nodes },
	},
	{
		fixed: true,
		check: func(_ *Ledger, q *Requirement, n *Node) (string, bool) {
			lack := q.eligible.lacks(n.node)
			return lack, lack == ""
		},
		explain: func(lack, nodes string) string { return "missing " + lack + " on " + nodes },
	},
	{
		fixed: true,
		check: func(_ *Ledger, q *Requirement, n *Node) (string, bool) {
			name := q.eligible.clashes(n.node)
			return name, name == ""
		},
		explain: func(lack, nodes string) string { return "addresses of network " + lack + " in other use on " + nodes },
	},
	{
		fixed:   true,
		check:   func(_ *Ledger, q *Requirement, n *Node) (string, bool) { return "", q.eligible.meets(n.node) },
		explain: func(_, nodes string) string { return "scheduling constraints not satisfied on " + nodes },
	},
	{
		fixed: true,
		check: func(_ *Ledger, q *Requirement, n *Node) (string, bool) {
			return "", cluster.PlatformMatches(n.node, q.eligible.platforms)
		},
		explain: func(_, nodes string) string { return "unsupported platform on " + nodes },
	},
	{
		exclusive: true,
		check: func(_ *Ledger, q *Requirement, n *Node) (string, bool) {
			if q.holds == nil {
				return "", true
			}
			for i, p := range q.holds.ports {
				if n.ports[p] > 0 {
					return q.holds.portNames[i], false
				}
			}
			return "", true
		},
		explain: func(lack, nodes string) string { return "host-mode port " + lack + " in use on " + nodes },
	},
	{
		exclusive: true,
		check: func(l *Ledger, q *Requirement, n *Node) (string, bool) {
			return "", q.maxPerNode == 0 || q.load.on(n).wanted < q.maxPerNode
		},
		explain: func(_, nodes string) string { return "max replicas per node limit exceed on " + nodes },
	},
	{
		check:   nearEnough,
		explain: func(lack, nodes string) string { return "no task of service " + lack + " on " + nodes },
	},
	{
		check:   farEnough,
		explain: func(lack, nodes string) string { return "anti-affinity with service " + lack + " on " + nodes },
	},
}

func enoughResources(_ *Ledger, q *Requirement, n *Node) (string, bool) {
	if q.holds != nil {
		want := q.holds.resources
		switch {
		case want.NanoCPUs != 0 && want.NanoCPUs > n.has.NanoCPUs-n.reserved.NanoCPUs:
			return "CPU", false
		case want.MemoryBytes != 0 && want.MemoryBytes > n.has.MemoryBytes-n.reserved.MemoryBytes:
			return "memory", false
		}
	}
	for _, w := range q.generic {
		if !n.enough(w) {
			return w.kind, false
		}
	}
	return "", true
}

// reason is a filter, by its index, and what of it a node lacks.
type reason struct {
	filter int
	lack   string
}

func (r reason) on(nodes int) string {
	if nodes == 1 {
		return filters[r.filter].explain(r.lack, "1 node")
	}
	return filters[r.filter].explain(r.lack, fmt.Sprintf("%d nodes", nodes))
}

// reject finds the first reason why the node can't take a task.
func (l *Ledger) reject(q *Requirement, n *Node) (why reason, rejected bool) {
	for i := range filters {
		if lack, ok := filters[i].check(l, q, n); !ok {
			return reason{i, lack}, true
		}
	}
	return reason{}, false
}

// hasRoom tells whether an eligible node that is in the load index can
// take a task.
func (l *Ledger) hasRoom(q *Requirement, n *Node) bool {
	for i := range filters {
		if filters[i].fixed {
			continue
		}
		if _, ok := filters[i].check(l, q, n); !ok {
			return false
		}
	}
	return true
}

// Explain says why no node can take a task of this requirement now.
func (l *Ledger) Explain(q *Requirement) string {
	counts := make(map[reason]int)
	for _, n := range l.nodes {
		if n.node == nil {
			continue
		}
		if why, rejected := l.reject(q, n); rejected {
			counts[why]++
		}
	}
	return explain(counts)
}

// explain lists reasons, that of the most nodes first.
func explain(counts map[reason]int) string {
	const text = "no suitable node"
	if len(counts) == 0 {
		return text
	}
	reasons := make([]reason, 0, len(counts))
	for why := range counts {
		reasons = append(reasons, why)
	}
	slices.SortFunc(reasons, func(a, b reason) int {
		return cmp.Or(-cmp.Compare(counts[a], counts[b]), cmp.Compare(a.filter, b.filter), cmp.Compare(a.lack, b.lack))
	})
	texts := make([]string, len(reasons))
	for i, why := range reasons {
		texts[i] = why.on(counts[why])
	}
	return text + " (" + strings.Join(texts, "; ") + ")"
}
