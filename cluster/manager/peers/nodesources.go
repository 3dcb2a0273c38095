package peers

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// nodePace is how many handshakes begin in a second with the address of a known node
	// before it has to wait among strangers, once nodeBurst have. A node needs one for its
	// session. Whatever else is behind that address, such as its containers, has no more.
	nodePace  = 4
	nodeBurst = 16
	// managerWeight is for how many nodes a manager counts: when it forwards more requests
	// than it has idle connections for, each has a handshake of its own.
	managerWeight = 32
	// maxNodePace and maxNodeBurst are for all nodes behind one address; the first is 40 %
	// of a core. maxNodeOpen is how many of these handshakes are under way.
	maxNodePace  = 1024
	maxNodeBurst = 4096
	maxNodeOpen  = 256
	// sourcesLook is how often it is looked where the nodes are.
	sourcesLook = time.Second
)

// nodeSources are the addresses of known nodes, whose connections don't wait among strangers'.
type nodeSources struct {
	weights func() map[netip.Addr]int
	now     func() time.Time

	mu     sync.Mutex // guards the fields below
	looked time.Time
	all    map[netip.Addr]*nodeSource
}

type nodeSource struct {
	weight int // how many nodes it is the address of
	begun  pace
	open   int
}

func newNodeSources(weights func() map[netip.Addr]int, now func() time.Time) *nodeSources {
	return &nodeSources{weights: weights, now: now}
}

// admit tells whether a handshake with an address may begin at once; shaken is to be called
// when it is done.
func (n *nodeSources) admit(source netip.Addr) (shaken func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	if since := now.Sub(n.looked); n.all == nil || since < 0 || since >= sourcesLook {
		n.looked = now
		n.lookLocked()
	}
	from := n.all[source]
	if from == nil || from.open >= maxNodeOpen {
		return nil, false
	}
	weight := float64(from.weight)
	if !from.begun.take(now, min(nodePace*weight, maxNodePace), min(nodeBurst*weight, maxNodeBurst)) {
		return nil, false
	}
	from.open++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		from.open--
	}, true
}

func (n *nodeSources) lookLocked() {
	all := map[netip.Addr]*nodeSource{}
	for addr, weight := range n.weights() {
		from := n.all[addr]
		if from == nil {
			from = &nodeSource{}
		}
		from.weight = weight
		all[addr] = from
	}
	n.all = all
}

// nodeWeights are the addresses of nodes and of managers' control ports, each with for how
// many nodes it counts. A manager that listens everywhere reaches itself by loopback.
func nodeWeights(nodes, managers []string) map[netip.Addr]int {
	weights := map[netip.Addr]int{
		sourceAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1})): managerWeight,
		sourceAddr(netip.IPv6Loopback()):                   managerWeight,
	}
	for _, node := range nodes {
		if addr, err := netip.ParseAddr(node); err == nil {
			weights[sourceAddr(addr)]++
		}
	}
	seen := map[string]bool{}
	for _, manager := range managers {
		if source := Source(manager); source.IsValid() && !seen[manager] {
			seen[manager] = true
			weights[source] += managerWeight
		}
	}
	return weights
}
