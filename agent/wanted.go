package agent

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"skep/agent/network"
	"skep/cluster"
)

const (
	// optionMTU is the driver option by which users choose a network's MTU.
	optionMTU = "com.docker.network.driver.mtu"
	// defaultMTU is what an interface has whose MTU isn't known.
	defaultMTU = 1500
	// overhead4 and overhead6 are what VXLAN and the outer headers take of a packet, overheadWire is
	// what both and WireGuard do.
	overhead4, overhead6, overheadWire = 50, 70, 130
)

// marks are the bits of packet marks that are skep's.
var marks = network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000}

// facts are all that the node's plane and its names follow from. They don't change.
type facts struct {
	Cluster, Node string
	// MTU is that of the interface that packets between nodes use; 0 when it isn't known.
	MTU int
	// Accounts are what managers told, by network; "" is that of the nodes. Complete is set when
	// they are all.
	Accounts map[string]*account
	Complete bool
	// Encrypts is set when the node can carry encrypted networks.
	Encrypts bool
	// EngineTold is set when no network that isn't among them can be the engine's.
	EngineTold bool
	// Away are other nodes that gossip misses: see missed. Gone are those of them whose machines are dead.
	Away, Gone map[string]bool
	// Tasks are the node's own that have addresses, in the order of their IDs.
	Tasks []ownTask
}

// ownTask is a task of this node, as the node itself knows it.
type ownTask struct {
	ID        string
	Addresses []cluster.Address
	// Revision is nil for one that is only to be removed.
	Revision *cluster.Revision
	// Serves tells whether it may be led to, and Ended whether its container has ended. Managers
	// know both later.
	Serves, Ended bool
}

// self is the node itself, as networks see it; zero when it carries none.
func (f *facts) self() cluster.NetworkNode {
	if a := f.Accounts[""]; a != nil {
		for _, n := range a.Nodes {
			if n.ID == f.Node {
				return n
			}
		}
	}
	return cluster.NetworkNode{}
}

// own finds a task of this node.
func (f *facts) own(id string) *ownTask {
	i, found := slices.BinarySearchFunc(f.Tasks, id, func(t ownTask, id string) int { return cmp.Compare(t.ID, id) })
	if !found {
		return nil
	}
	return &f.Tasks[i]
}

// networks are those that the node is told of, in the order of their IDs.
func (f *facts) networks() []*account {
	var list []*account
	for _, id := range slices.Sorted(maps.Keys(f.Accounts)) {
		if a := f.Accounts[id]; a.Network != nil && !a.Dropped && (f.Encrypts || !a.Network.Encrypted()) {
			list = append(list, a)
		}
	}
	return list
}

// serving are the endpoints of a network that clients are led to, by service as the account has them, each in the
// order of the tasks' IDs. Those on nodes that are missed aren't while the service has others.
func (f *facts) serving(a *account) [][]*cluster.NetworkEndpoint {
	number := make(map[string]int, len(a.Services))
	for i := range a.Services {
		number[a.Services[i].ID] = i
	}
	serving := make([][]*cluster.NetworkEndpoint, len(a.Services))
	for i, serves := range f.serves(a) {
		if of, known := number[a.Endpoints[i].ServiceID]; known && serves {
			serving[of] = append(serving[of], &a.Endpoints[i])
		}
	}
	away := f.indexes(f.Away)
	if len(away) == 0 {
		return serving
	}
	for i, all := range serving {
		near := slices.DeleteFunc(slices.Clone(all), func(e *cluster.NetworkEndpoint) bool { return away[e.Node] })
		if len(near) > 0 {
			serving[i] = near
		}
	}
	return serving
}

// indexes are the numbers of nodes.
func (f *facts) indexes(nodeIDs map[string]bool) map[uint16]bool {
	indexes := map[uint16]bool{}
	if nodes := f.Accounts[""]; nodes != nil && len(nodeIDs) > 0 {
		for _, n := range nodes.Nodes {
			if nodeIDs[n.ID] {
				indexes[n.Index] = true
			}
		}
	}
	return indexes
}

// serves tells of each endpoint whether clients are led to it: never to those on machines that are dead. The node
// knows first when a task of its own stops, or isn't there any more.
func (f *facts) serves(a *account) []bool {
	serves, tasks, gone := make([]bool, len(a.Endpoints)), f.Tasks, f.indexes(f.Gone)
	for i := range a.Endpoints {
		e := &a.Endpoints[i]
		for len(tasks) > 0 && tasks[0].ID < e.ID {
			tasks = tasks[1:] // Both are in the order of IDs.
		}
		serves[i] = e.Phase == cluster.EndpointServing && !gone[e.Node] && (len(tasks) == 0 || tasks[0].ID != e.ID || tasks[0].Serves)
	}
	return serves
}

// wanted is what the node's plane should carry; nil when the node carries no networks, or
// doesn't know.
func (f *facts) wanted() *network.Wanted {
	self := f.self()
	if self.Index == 0 {
		return nil
	}
	nodes := f.Accounts[""]
	settings := (&cluster.Cluster{Networks: nodes.Settings}).NetworkSettings()
	w := &network.Wanted{
		Cluster: f.Cluster, Self: network.Node{Index: self.Index, Addr: self.Addr},
		DataPort: settings.DataPort, Seed: settings.Seed, Marks: marks, MTU: cmp.Or(f.MTU, defaultMTU), Generation: settings.Generation,
		KeepBridges: !f.EngineTold,
	}
	for _, n := range nodes.Nodes {
		if n.Index != self.Index {
			w.Nodes = append(w.Nodes, network.Node{Index: n.Index, Addr: n.Addr, Keys: n.Keys})
		}
	}
	gone := f.indexes(f.Gone)
	for _, a := range f.networks() {
		n, serving := f.link(a.Network, self.Addr), f.serving(a)
		n.Endpoints = make([]network.Endpoint, 0, len(a.Endpoints))
		addrs := make([]netip.Addr, 0, len(a.Endpoints)*len(a.Network.Subnets)) // of all, in one piece
		for i := range a.Endpoints {
			e, at := &a.Endpoints[i], len(addrs)
			for _, subnet := range a.Network.Subnets {
				addrs = append(addrs, subnet.Addr(e.Host))
			}
			n.Endpoints = append(n.Endpoints, network.Endpoint{Node: e.Node, Addrs: addrs[at:len(addrs):len(addrs)], Gone: gone[e.Node]})
		}
		for i := range a.Services {
			s := &a.Services[i]
			if s.VirtualIP != 0 {
				for _, subnet := range a.Network.Subnets {
					n.Services = append(n.Services, network.Service{
						VIP: subnet.Addr(s.VirtualIP), Backends: addrsIn(subnet, serving[i]), Affinity: s.Affinity,
					})
				}
			}
			if n.Ingress {
				w.Ports = append(w.Ports, published(a.Network, s, serving[i], self.Index)...)
			}
		}
		w.Networks = append(w.Networks, n)
	}
	// The bridge of a network that isn't needed any more goes after the engine's network.
	for _, id := range slices.Sorted(maps.Keys(f.Accounts)) {
		if a := f.Accounts[id]; a.Dropped && (f.Encrypts || !a.Network.Encrypted()) {
			n := f.link(a.Network, self.Addr)
			n.Ingress = false // There may be another one.
			w.Networks = append(w.Networks, n)
		}
	}
	return w
}

// link is a network without what is in it.
func (f *facts) link(n *cluster.Network, addr netip.Addr) network.Network {
	overhead := overhead4
	switch {
	case n.Encrypted():
		overhead = overheadWire
	case addr.Is6():
		overhead = overhead6
	}
	link := network.Network{
		ID: n.ID, VNI: n.VNI, MTU: cmp.Or(f.MTU, defaultMTU) - overhead, Internal: n.Spec.Internal, Ingress: n.Spec.Ingress, Encrypted: n.Encrypted(),
	}
	if driver := n.Spec.DriverConfiguration; driver != nil {
		if mtu, err := strconv.Atoi(driver.Options[optionMTU]); err == nil {
			link.MTU = mtu
		}
	}
	for _, s := range n.Subnets {
		link.Subnets = append(link.Subnets, network.Subnet{Prefix: s.Prefix.Masked(), Gateway: s.Gateway})
		for _, part := range s.Given()[1:] {
			link.Gateways = append(link.Gateways, part.Gateway)
		}
	}
	return link
}

// addrsIn are the addresses of endpoints in a subnet.
func addrsIn(subnet cluster.Subnet, endpoints []*cluster.NetworkEndpoint) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(endpoints))
	for _, e := range endpoints {
		addrs = append(addrs, subnet.Addr(e.Host))
	}
	return addrs
}

// published are the ports of a service on the node with an index.
func published(ingress *cluster.Network, s *cluster.NetworkService, serving []*cluster.NetworkEndpoint, self uint16) (ports []network.Port) {
	if s.Local != cluster.PublishAnywhere {
		elsewhere := func(e *cluster.NetworkEndpoint) bool { return e.Node != self }
		if here := slices.DeleteFunc(slices.Clone(serving), elsewhere); len(here) > 0 || s.Local == cluster.PublishLocal {
			serving = here
		}
	}
	var backends []netip.Addr
	for _, subnet := range ingress.Subnets {
		backends = append(backends, addrsIn(subnet, serving)...)
	}
	for _, p := range s.Ports {
		ports = append(ports, network.Port{
			Protocol: p.Protocol, HostIP: p.HostIP, Published: p.Published, Target: p.Target, Backends: backends, Affinity: s.Affinity,
		})
	}
	return ports
}
