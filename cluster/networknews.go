package cluster

import "net/netip"

// NetworkUpdate is what a node is told of one network, and of the nodes that carry
// networks: the whole of it (Full), or the difference between two store indexes, as with
// Assignments. From must be the To of the update of the same network before; else the
// agent ends the session.
//
// A node is told of the networks that its assigned tasks have addresses in, as long as their
// records are there, of those that its attachments are in, and of the ingress
// network while anything is published on all nodes. An update comes before the assignment of
// the first task on the network, Dropped after that which removes the last.
//
// Nodes that share an engine (daemons on one machine) have one that carries networks for all of
// them: endpoints on any of them have its index, it alone is in the account of nodes, and it is
// told of all their networks. So a node that isn't in the account carries none.
type NetworkUpdate struct {
	// NetworkID is the network's; empty in the account of nodes.
	NetworkID string `cbor:"1,keyasint,omitempty"`
	Full      bool   `cbor:"2,keyasint,omitempty"`
	From      uint64 `cbor:"3,keyasint,omitempty"`
	To        uint64 `cbor:"4,keyasint"`
	// Network is set when it is new to the node or has changed.
	Network *Network `cbor:"5,keyasint,omitempty"`
	// Services and Endpoints are those that are new or have changed, Gone the IDs of both
	// that are no more; also of some that the node was never told of.
	Services  []NetworkService  `cbor:"6,keyasint,omitempty"`
	Endpoints []NetworkEndpoint `cbor:"7,keyasint,omitempty"`
	Gone      []string          `cbor:"8,keyasint,omitempty"`
	// Nodes are those that are new or have changed; GoneNodes are the indexes of others, also of
	// some that the node was never told of.
	// Settings come with the first, and when they change.
	Nodes     []NetworkNode    `cbor:"9,keyasint,omitempty"`
	GoneNodes []uint16         `cbor:"10,keyasint,omitempty"`
	Settings  *NetworkSettings `cbor:"11,keyasint,omitempty"`
	// Dropped is set alone but for From and To: the node needs the network no more.
	Dropped bool `cbor:"12,keyasint,omitempty"`
	// More is set when the account is too large for one update: the next of the same network
	// goes on with it, and nothing is done about either before the last. It is a difference
	// whose From is this one's To, as always.
	More bool `cbor:"13,keyasint,omitempty"`
}

// Join adds the next update to one that has More.
func (u *NetworkUpdate) Join(next *NetworkUpdate) error {
	if next.NetworkID != u.NetworkID || next.Full || next.Dropped || next.From != u.To {
		return Errorf(ErrInvalid, "go on with network %s to %d: the next update is of %q from %d", u.NetworkID, u.To, next.NetworkID, next.From)
	}
	if next.Network != nil {
		u.Network = next.Network
	}
	if next.Settings != nil {
		u.Settings = next.Settings
	}
	u.Services, u.Endpoints = append(u.Services, next.Services...), append(u.Endpoints, next.Endpoints...)
	u.Nodes, u.Gone, u.GoneNodes = append(u.Nodes, next.Nodes...), append(u.Gone, next.Gone...), append(u.GoneNodes, next.GoneNodes...)
	u.To, u.More = next.To, next.More
	return nil
}

// NetworkService is a service as one of its networks has it.
type NetworkService struct {
	ID   string `cbor:"1,keyasint"`
	Name string `cbor:"2,keyasint"`
	// Aliases are the names that it has in this network beside its own.
	Aliases []string `cbor:"3,keyasint,omitempty"`
	// VirtualIP is its place in the network; 0 when its name stands for its tasks
	// (endpoint mode dnsrr).
	VirtualIP Host `cbor:"4,keyasint,omitempty"`
	// Ports are those that it publishes on all nodes; only in the ingress network.
	Ports []PublishedPort `cbor:"5,keyasint,omitempty"`
	// Affinity keeps each client with the same task.
	Affinity bool `cbor:"6,keyasint,omitempty"`
	// Local is how far the node that was asked prefers its own tasks.
	Local PublishLocality `cbor:"7,keyasint,omitempty"`
}

// PublishLocality is which tasks answer on a published port.
type PublishLocality uint8

// All tasks; those of the node that was asked if there are any; those only.
const (
	PublishAnywhere PublishLocality = iota
	PublishPreferLocal
	PublishLocal
)

// PublishedPort is a port that is published on all nodes.
type PublishedPort struct {
	// Protocol is tcp, udp or sctp.
	Protocol string `cbor:"1,keyasint"`
	// Published is the nodes' port, Target the tasks'.
	Published uint16 `cbor:"2,keyasint"`
	Target    uint16 `cbor:"3,keyasint"`
	// HostIP is the only address that is published on; invalid means all.
	HostIP netip.Addr `cbor:"4,keyasint,omitzero"`
}

// NetworkEndpoint is a task's place in a network, or an attachment's, which is of no service.
type NetworkEndpoint struct {
	// ID is the task's, and Name what it is called: web.1.ID. Of an attachment they are its own and
	// its container's.
	ID   string `cbor:"1,keyasint"`
	Name string `cbor:"2,keyasint,omitempty"`
	// ServiceID is the service that it is one of.
	ServiceID string `cbor:"3,keyasint,omitempty"`
	// Node is the index of the node that carries it.
	Node  uint16        `cbor:"4,keyasint"`
	Host  Host          `cbor:"5,keyasint"`
	Phase EndpointPhase `cbor:"6,keyasint,omitempty"`
	// Aliases are other names of an attachment.
	Aliases []string `cbor:"7,keyasint,omitempty"`
}

// EndpointPhase is what may be sent to an endpoint.
type EndpointPhase uint8

const (
	// EndpointKnown has an address, and is in no name and behind no virtual IP: its task
	// doesn't run yet, or isn't healthy yet, or its node is down.
	EndpointKnown EndpointPhase = iota
	// EndpointServing is one that clients are led to.
	EndpointServing
	// EndpointDraining is one that no new client is led to: its task stops, or is to.
	EndpointDraining
)

// NetworkNode is a node as networks see it.
type NetworkNode struct {
	ID string `cbor:"1,keyasint"`
	// Index is 1 to MaxIndex, and no other node's.
	Index uint16 `cbor:"2,keyasint"`
	// Addr is where the node takes packets of networks.
	Addr netip.Addr `cbor:"3,keyasint"`
	// Keys are what encrypted networks are sent to it under.
	Keys WireKeys `cbor:"4,keyasint,omitzero"`
}
