package networks

import (
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// group are the nodes that share an engine with a node, and itself.
func group(view store.View, n *cluster.Node) []*cluster.Node {
	engine := n.SharedEngine()
	if engine == "" {
		return []*cluster.Node{n}
	}
	var nodes []*cluster.Node
	for other := range view.Nodes() {
		if other.SharedEngine() == engine {
			nodes = append(nodes, other)
		}
	}
	return nodes
}

// carrierOf is the one of a group that carries networks for all: of those that may be there and can,
// the one with the lowest index. A node that is disconnected, or whose daemon was stopped in order,
// may be: were another one to take its place for the seconds that a daemon takes to restart, all
// would have to be made anew. It is nil when none has an index.
func carrierOf(group []*cluster.Node) (carrier *cluster.Node) {
	rank := func(n *cluster.Node) int {
		switch {
		case !present(n):
			return 2
		case !capable(n):
			return 1
		}
		return 0
	}
	for _, n := range group {
		if n.Index != 0 && (carrier == nil || rank(n) < rank(carrier) || rank(n) == rank(carrier) && n.Index < carrier.Index) {
			carrier = n
		}
	}
	return carrier
}

// capable tells whether a node says that it can carry networks.
func capable(n *cluster.Node) bool {
	return slices.Contains(n.Description.Engine.Plugins, swarm.PluginDescription{Type: "Network", Name: cluster.OverlayDriver})
}

func present(n *cluster.Node) bool {
	return n.Status.State != cluster.NodeDown && !(n.Status.State == cluster.NodeUnknown && n.Awaited)
}

// carriers finds which nodes carry the networks of which, in one view.
type carriers struct {
	view  store.View
	known map[string]carried
}

// carried is what endpoints on a node need to know of it.
type carried struct {
	// index is that of the node that carries its networks; 0 when none does.
	index uint16
	// down is set while the node itself is down, and dark while the one that carries its networks is.
	down, dark bool
}

func newCarriers(view store.View) *carriers { return &carriers{view, map[string]carried{}} }

func (c *carriers) of(nodeID string) carried {
	found, known := c.known[nodeID]
	if known {
		return found
	}
	if n := c.view.Node(nodeID); n != nil {
		found.down = n.Status.State == cluster.NodeDown
		if carrier := carrierOf(group(c.view, n)); carrier != nil {
			found.index, found.dark = carrier.Index, carrier.Status.State == cluster.NodeDown
		}
	}
	c.known[nodeID] = found
	return found
}

// before tells which of two nodes that say they have the same address has it: of those that
// aren't down the one that joined first. So a machine that is installed anew has its address, and
// nobody takes that of a node that was there before.
func before(a, b *cluster.Node) bool {
	if down := a.Status.State == cluster.NodeDown; down != (b.Status.State == cluster.NodeDown) {
		return !down
	}
	if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
		return c < 0
	}
	return a.ID < b.ID
}
