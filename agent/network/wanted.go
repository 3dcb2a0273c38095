package network

import (
	"net/netip"

	"skep/cluster"
)

// Wanted is what a node knows of the cluster's networks.
type Wanted struct {
	// Cluster is the cluster's ID: a link's alias begins with it, which is how the links
	// of this cluster are told from others'.
	Cluster string
	// Self is the node itself, and Nodes all others that carry networks.
	Self  Node
	Nodes []Node
	// DataPort is the UDP port of VXLAN packets.
	DataPort uint16
	// MTU is that of the interface that packets between nodes use. Generation is that of the keys of
	// encrypted networks.
	MTU        int
	Generation uint32
	// Seed makes session affinity choose alike on all nodes.
	Seed uint32
	// Marks are the bits of packet marks that are skep's.
	Marks Marks
	// Networks are those that the node has tasks on, and the ingress network.
	Networks []Network
	// KeepBridges has bridges of other networks of the cluster stay: the engine's may stand on them.
	KeepBridges bool
	// Ports are the ports that are published on this node.
	Ports []Port
}

// Node is a node as networks see it.
type Node struct {
	// Index is 1 to 1023, and no other node's.
	Index uint16
	// Addr is where the node takes VXLAN packets.
	Addr netip.Addr
	// Keys are what encrypted networks are sent to it under; of the node itself they aren't looked at.
	Keys cluster.WireKeys
}

// Marks are bits of packet marks.
type Marks struct {
	// Peer holds the index of the node that a connection through the mesh came by.
	Peer uint32
	// LocalClient is set on what a container of the same node sends into the mesh.
	LocalClient uint32
}

// Network is a network as it is on one node.
type Network struct {
	ID  string
	VNI uint32
	// Subnets has one subnet for each family, and Gateways other addresses of IPv4 that the bridge answers at.
	Subnets  []Subnet
	Gateways []netip.Addr
	// MTU is that of the containers.
	MTU int
	// Internal networks have no way out. Ingress is the one that published ports are
	// carried by.
	Internal, Ingress bool
	// Encrypted networks are never carried in clear.
	Encrypted bool
	// Endpoints are all addresses of tasks, this node's as well.
	Endpoints []Endpoint
	// Services are the virtual IPs.
	Services []Service
}

// Subnet is a range of addresses, and its gateway, which each node's bridge has.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Endpoint is a task's place in a network.
type Endpoint struct {
	// Addrs are its addresses, IPv4 first: the MAC follows from that one.
	Addrs []netip.Addr
	// Node is the index of the node that runs it.
	Node uint16
	// Gone is set when that node's machine is dead: who sends to the task is refused.
	Gone bool
}

// Service is a virtual IP and those who answer it.
type Service struct {
	VIP netip.Addr
	// Backends are the addresses of serving tasks, of the VIP's family, in the order of
	// the tasks' IDs.
	Backends []netip.Addr
	// Affinity sends each client to the same backend, as long as there is the same set.
	Affinity bool
}

// Port is a published port.
type Port struct {
	// Protocol is tcp, udp or sctp.
	Protocol string
	// HostIP is the only address of the node that is published on; invalid means all.
	HostIP netip.Addr
	// Published is the node's port, and Target the tasks'.
	Published, Target uint16
	// Backends are the tasks' addresses in the ingress network, in the order of IDs.
	Backends []netip.Addr
	Affinity bool
}
