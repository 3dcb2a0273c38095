package placement

import (
	"fmt"
	"slices"
	"strings"

	"skep/cluster"
)

// Filter is one reason why a node may not take a task.
type Filter interface {
	// Check tells whether the node may take one more task.
	Check(q *Requirement, n *Node) bool
	// Explain says that so many nodes didn't pass.
	Explain(nodes int) string
}

// filters are asked in this order; a node counts for the first it doesn't pass.
var filters = []Filter{ready{}, resources{}, constraints{}, platform{}, maxReplicas{}}

// reject returns the first filter that the node doesn't pass, or -1.
func reject(q *Requirement, n *Node) int {
	for i, f := range filters {
		if !f.Check(q, n) {
			return i
		}
	}
	return -1
}

// Explain says why no node can take a task of this requirement now.
func (l *Ledger) Explain(q *Requirement) string {
	counts := make([]int, len(filters))
	for _, n := range l.nodes {
		if n.node == nil {
			continue
		}
		if i := reject(q, n); i >= 0 {
			counts[i]++
		}
	}
	type reason struct {
		nodes int
		text  string
	}
	var reasons []reason
	for i, count := range counts {
		if count > 0 {
			reasons = append(reasons, reason{count, filters[i].Explain(count)})
		}
	}
	if len(reasons) == 0 {
		return "no suitable node"
	}
	slices.SortStableFunc(reasons, func(a, b reason) int { return b.nodes - a.nodes })
	texts := make([]string, len(reasons))
	for i, r := range reasons {
		texts[i] = r.text
	}
	return "no suitable node (" + strings.Join(texts, "; ") + ")"
}

func onNodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// ready passes nodes that take new tasks.
type ready struct{}

func (ready) Check(_ *Requirement, n *Node) bool { return n.node.Schedulable() }

func (ready) Explain(nodes int) string { return onNodes(nodes) + " not available for new tasks" }

// resources passes nodes with enough left of what the task reserves.
type resources struct{}

func (resources) Check(q *Requirement, n *Node) bool {
	want := q.resources
	if want.isZero() {
		return true
	}
	has := n.node.Description.Resources
	return (want.NanoCPUs == 0 || want.NanoCPUs <= has.NanoCPUs-n.reserved.NanoCPUs) &&
		(want.MemoryBytes == 0 || want.MemoryBytes <= has.MemoryBytes-n.reserved.MemoryBytes)
}

func (resources) Explain(nodes int) string { return "insufficient resources on " + onNodes(nodes) }

// constraints passes nodes that meet all of the service's constraints.
type constraints struct{}

func (constraints) Check(q *Requirement, n *Node) bool {
	if q.unreadable {
		return false
	}
	for _, c := range q.constraints {
		if !c.Match(n.node) {
			return false
		}
	}
	return true
}

func (constraints) Explain(nodes int) string {
	return "scheduling constraints not satisfied on " + onNodes(nodes)
}

// platform passes nodes that the image was built for.
type platform struct{}

func (platform) Check(q *Requirement, n *Node) bool {
	p := q.spec.Spec.Placement
	return p == nil || cluster.PlatformMatches(n.node, p.Platforms)
}

func (platform) Explain(nodes int) string { return "unsupported platform on " + onNodes(nodes) }

// maxReplicas passes nodes with fewer tasks of the service than it allows.
type maxReplicas struct{}

func (maxReplicas) Check(q *Requirement, n *Node) bool {
	return q.maxPerNode == 0 || n.services[q.service] < q.maxPerNode
}

func (maxReplicas) Explain(nodes int) string {
	return "max replicas per node limit exceed on " + onNodes(nodes)
}
