package store

import (
	"iter"
	"time"

	"skep/cluster"
)

var nodes = &kindOf[cluster.Node]{
	number: 2,
	word:   "node",
	key:    func(n *cluster.Node) string { return n.ID },
	blank:  func(id string) (*cluster.Node, error) { return &cluster.Node{ID: id}, nil },
	meta:   inMeta[cluster.Node](func(n *cluster.Node) *cluster.Meta { return &n.Meta }),
	times: func(n *cluster.Node) []time.Time {
		return []time.Time{n.CreatedAt, n.UpdatedAt, n.Status.Since, n.Certificate.Ends}
	},
	share: func(in *interner, n *cluster.Node) { in.share(&n.ID) },
	uniques: func(n *cluster.Node) []cluster.Unique {
		if n.Index == 0 {
			return nil
		}
		return []cluster.Unique{cluster.UniqueIndex(n.Index)}
	},
}

// Node finds a node by its ID.
func (v View) Node(id string) *cluster.Node { return nodes.get(v, id) }

// Nodes lists the nodes in the order of their IDs.
func (v View) Nodes() iter.Seq[*cluster.Node] { return nodes.list(v) }

// NodesWithPrefix lists the nodes whose ID begins with prefix.
func (v View) NodesWithPrefix(prefix string) iter.Seq[*cluster.Node] {
	return nodes.withPrefix(v, prefix)
}

// NodeCount is the number of nodes.
func (v View) NodeCount() int { return nodes.in(v).len() }
