package placement

import (
	"skep/cluster"
)

// maxEligible is how many sets of eligible nodes are kept. Thousands of services mostly
// have few different placements; where they don't, sets are made anew all the time.
const maxEligible = 64

// eligibleNodes is the nodes that may take a task at all, for all requirements that ask
// for the same of a node itself, whatever is on it; and how these nodes are
// divided by the preferences.
type eligibleNodes struct {
	eligibility
	constraints []cluster.Constraint
	unreadable  bool // constraints that don't parse are met nowhere
	// fit are the nodes that have all that is asked, by index, once it was needed.
	fit    bitset
	filled bool

	// A branch is all nodes with the same values of the first preferences; those with
	// the same value of all are a leaf. leaf is each node's, by index, and path the
	// branches of each leaf, one for each preference.
	leaf     []int32
	path     []int32
	leaves   map[string]int32
	branches map[string]int32
}

func newEligibleNodes(a eligibility) *eligibleNodes {
	p := &eligibleNodes{eligibility: a}
	var err error
	p.constraints, err = cluster.ParseConstraints(a.conditions)
	p.unreadable = err != nil
	return p
}

// fill finds out about each node. Most services that are planned have nothing to
// place.
func (p *eligibleNodes) fill(nodes []*Node) {
	if p.filled {
		return
	}
	p.filled, p.fit = true, newBitset(len(nodes))
	if len(p.spread) > 0 {
		p.leaf = make([]int32, len(nodes))
		p.leaves, p.branches = make(map[string]int32), make(map[string]int32)
	}
	for _, n := range nodes {
		p.look(n)
	}
}

// meets tells whether the node meets the constraints.
func (p *eligibleNodes) meets(node *cluster.Node) bool {
	if p.unreadable {
		return false
	}
	for _, c := range p.constraints {
		if !c.Match(node) {
			return false
		}
	}
	return true
}

func (p *eligibleNodes) admits(node *cluster.Node) bool {
	return p.meets(node) && cluster.PlatformMatches(node, p.platforms) && p.lacks(node) == "" && p.clashes(node) == ""
}

// clashes names the first network whose addresses the node's machine uses for something else; empty
// when there is none.
func (p *eligibleNodes) clashes(node *cluster.Node) string {
	for _, n := range p.networks {
		if n.Clash(node.Uses) != "" {
			return n.Spec.Name
		}
	}
	return ""
}

// look finds out about one node.
func (p *eligibleNodes) look(n *Node) {
	if p.admits(n.node) {
		p.fit.set(n.index)
	} else {
		p.fit.clear(n.index)
	}
	if len(p.spread) > 0 {
		p.leaf[n.index] = p.leafOf(n.node)
	}
}

// leafOf finds the leaf of a node, or makes it. A label that isn't there is empty,
// so nodes that lack it are a branch too.
func (p *eligibleNodes) leafOf(node *cluster.Node) int32 {
	var key []byte
	for _, descriptor := range p.spread {
		key = append(append(key, cluster.Attribute(descriptor, node)...), 0)
	}
	leaf, known := p.leaves[string(key)]
	if known {
		return leaf
	}
	leaf = int32(len(p.leaves))
	p.leaves[string(key)] = leaf
	end := 0
	for range p.spread {
		for key[end] != 0 {
			end++
		}
		end++
		branch, known := p.branches[string(key[:end])]
		if !known {
			branch = int32(len(p.branches))
			p.branches[string(key[:end])] = branch
		}
		p.path = append(p.path, branch)
	}
	return leaf
}

// pathOf lists the branches that a node is in, the widest first; none without
// preferences.
func (p *eligibleNodes) pathOf(n *Node) []int32 {
	levels := len(p.spread)
	if levels == 0 {
		return nil
	}
	from := int(p.leaf[n.index]) * levels
	return p.path[from : from+levels]
}

// eligibleFor finds the nodes that have what a requirement asks of them.
func (l *Ledger) eligibleFor(a eligibility) *eligibleNodes {
	l.index()
	l.key = a.appendKey(l.key[:0])
	p := l.eligible[string(l.key)]
	if p == nil {
		if len(l.eligible) >= maxEligible {
			clear(l.eligible)
		}
		p = newEligibleNodes(a)
		l.eligible[string(l.key)] = p
	}
	return p
}

// index numbers the nodes by their IDs and sorts them by their tasks, after nodes
// came or went.
func (l *Ledger) index() {
	if l.indexed {
		return
	}
	l.indexed = true
	clear(l.eligible)
	l.sorted = l.sorted[:0]
	for _, n := range l.nodes {
		n.index, n.listed = -1, false
		if n.node != nil {
			l.sorted = append(l.sorted, n)
		}
	}
	sortNodes(l.sorted)
	l.byLoad = loadIndex{size: len(l.sorted)}
	for i, n := range l.sorted {
		n.index = int32(i)
		l.list(n)
	}
}
