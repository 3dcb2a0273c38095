package cluster

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"strconv"

	"github.com/docker/docker/api/types/swarm"
)

// Network is one of the cluster's networks.
type Network struct {
	ID string
	Meta
	// Spec is the user's, with the defaults that clients need filled in.
	Spec swarm.NetworkSpec
	// VNI is the VXLAN identifier of a network that spans nodes (driver overlay). Others are
	// made by each node's engine, have none and no Subnets.
	VNI uint32 `cbor:",omitempty"`
	// Subnets are what addresses are from: one of IPv4, and one of IPv6 with --ipv6.
	Subnets []Subnet `cbor:",omitempty"`
}

// Spans tells whether the network is skep's: one that spans nodes.
func (n *Network) Spans() bool { return n.VNI != 0 }

// Driver is the name of the engine's driver for it.
func (n *Network) Driver() string {
	if n.Spec.DriverConfiguration == nil {
		return OverlayDriver
	}
	return n.Spec.DriverConfiguration.Name
}

// Encrypted tells whether its packets between nodes are encrypted. As in Swarm the option needs no
// value.
func (n *Network) Encrypted() bool {
	if n.Spec.DriverConfiguration == nil {
		return false
	}
	value, given := n.Spec.DriverConfiguration.Options[OptionEncrypted]
	on, err := strconv.ParseBool(value)
	return given && (on || err != nil)
}

// EncryptNew has a network that is being made be encrypted, as if its user had said so, where the cluster's
// spec wants that of all that span nodes. One that was to be in clear is refused then.
func (n *Network) EncryptNew(spec swarm.Spec) error {
	all, _ := LabelEncryptNetworks.Of(spec.Labels)
	if !all || n.Driver() != OverlayDriver || n.Encrypted() {
		return nil
	}
	driver := swarm.Driver{Name: OverlayDriver, Options: map[string]string{}}
	if d := n.Spec.DriverConfiguration; d != nil {
		maps.Copy(driver.Options, d.Options)
	}
	if value, given := driver.Options[OptionEncrypted]; given {
		return Errorf(ErrInvalid, "option %s: all overlay networks of this cluster are to be encrypted, and %q has this one not be: leave it out, or allow it with `skep cluster update --encrypt-networks=false`",
			OptionEncrypted, value)
	}
	driver.Options[OptionEncrypted] = ""
	n.Spec.DriverConfiguration = &driver
	return nil
}

// EndpointMAC is the MAC of the container that has an address of IPv4: one that engines derive, too. Nobody has to
// tell it.
func EndpointMAC(addr netip.Addr) [6]byte {
	ip := addr.As4()
	return [6]byte{0x02, 0x42, ip[0], ip[1], ip[2], ip[3]}
}

// OptionEncrypted is the driver option of encrypted networks.
const OptionEncrypted = "encrypted"

// WireKey is the public key of a node's WireGuard device of one generation. The private one never
// leaves the node.
type WireKey struct {
	// Generation is that of NetworkSettings; 0 is no key.
	Generation uint32   `cbor:"1,keyasint"`
	Public     [32]byte `cbor:"2,keyasint"`
}

// PacketAddr is where a node takes packets of networks; invalid when it hasn't said an address
// that others can send to.
func (n *Node) PacketAddr() netip.Addr {
	text := n.DataAddr
	if text == "" {
		text = n.Status.Addr
	}
	addr, err := netip.ParseAddr(text)
	if addr = addr.Unmap(); err != nil || addr.Zone() != "" || !addr.IsGlobalUnicast() && !addr.IsLoopback() {
		return netip.Addr{}
	}
	return addr
}

// SharedEngine is the engine that a node may share with others; "" when it shares none. Only
// nodes on loopback do, which are on one machine: whoever carries networks for others gets all
// that is sent to them, and a worker could say that it has another one's engine. Dispatch
// believes nobody from elsewhere to be on loopback.
func (n *Node) SharedEngine() string {
	if !n.PacketAddr().IsLoopback() {
		return ""
	}
	return n.Engine
}

// WireKeys are a node's: while keys are rotated there are two.
type WireKeys [2]WireKey

// Of is the key of a generation; zero when there is none.
func (k WireKeys) Of(generation uint32) (key WireKey) {
	for _, one := range k {
		if one.Generation == generation && generation != 0 && one.Public != [32]byte{} {
			key = one
		}
	}
	return key
}

// Subnet is a range of addresses of a network.
type Subnet struct {
	Prefix netip.Prefix
	// Range is the part that addresses are given from; the zero value is all.
	Range netip.Prefix `cbor:",omitzero"`
	// Gateway is the address of the network's bridge, the same on each node.
	Gateway netip.Addr
	// Aux are addresses that nothing is given, by the user's names for them.
	Aux map[string]netip.Addr `cbor:",omitempty"`
	// Parts are the subnets that the user gave where these are several of a family: addresses are of
	// these alone, in their order. To nodes and their engines the network has one subnet, the smallest
	// that covers them, whose Gateway is that of the first part.
	Parts []Subnet `cbor:",omitempty"`
}

// Given are the subnets as the user knows them.
func (s Subnet) Given() []Subnet {
	if len(s.Parts) > 0 {
		return s.Parts
	}
	return []Subnet{s}
}

// Host is the number of an address in its subnet: 1 for 10.0.1.1 in 10.0.1.0/24.
type Host uint32

// hostBits is at most how many bits of a subnet hosts are numbered by: as many as a Host
// has, but for the last.
const hostBits = 31

// Addr is the address of a host in the subnet.
func (s Subnet) Addr(n Host) netip.Addr {
	b := s.Prefix.Masked().Addr().As16()
	low := binary.BigEndian.Uint32(b[12:])
	binary.BigEndian.PutUint32(b[12:], low|uint32(n))
	addr := netip.AddrFrom16(b)
	if s.Prefix.Addr().Is4() {
		return addr.Unmap()
	}
	return addr
}

// Number is the inverse of Addr; false for what isn't in the subnet or has no number.
func (s Subnet) Number(addr netip.Addr) (Host, bool) {
	if !s.Prefix.Contains(addr) {
		return 0, false
	}
	base, b := s.Prefix.Masked().Addr().As16(), addr.As16()
	for i := range 12 {
		if b[i] != base[i] {
			return 0, false // of a subnet of IPv6, far behind its first addresses
		}
	}
	n := binary.BigEndian.Uint32(b[12:]) &^ binary.BigEndian.Uint32(base[12:])
	return Host(n), n>>hostBits == 0
}

// Address is a place in a network: it has the same number in each of the network's subnets.
type Address struct {
	VNI  uint32 `cbor:"1,keyasint"`
	Host Host   `cbor:"2,keyasint"`
}

// Addrs are the addresses of a host, IPv4 first.
func (n *Network) Addrs(host Host) []netip.Addr {
	addrs := make([]netip.Addr, len(n.Subnets))
	for i, s := range n.Subnets {
		addrs[i] = s.Addr(host)
	}
	return addrs
}

// AddressIn is the place in a network among addresses; 0 when there is none.
func AddressIn(addresses []Address, vni uint32) Host {
	for _, a := range addresses {
		if a.VNI == vni {
			return a.Host
		}
	}
	return 0
}

// Attachment is the place in a network of a container that is no task: one that a user has put on
// it by `docker run --network`, or by `docker network connect`. It says nothing of how the container
// is: its node's engine knows.
type Attachment struct {
	ID string
	Meta
	// NodeID is the node whose API was asked, and whose engine has the container.
	NodeID    string
	NetworkID string
	Address   Address
	// Name is the container's name, and Aliases are others that it has in this network.
	Name    string   `cbor:",omitempty"`
	Aliases []string `cbor:",omitempty"`
	// Ended is when it was freed, by the database's time; zero while it is in use. The record stays
	// for a while, so that nobody else gets the address at once.
	Ended Time `cbor:",omitempty"`
}

// Unique is a number that only one object of the database can have: an address in a
// network, a published port, a VXLAN identifier, a node's index.
type Unique uint64

// Numbers of 32 bits, in spaces: each network is one, by its VNI, and these are others.
const (
	spaceVNI   = 1
	spaceIndex = 2
	spacePort  = 16 // and the protocol's number
)

func unique(space, number uint32) Unique { return Unique(space)<<32 | Unique(number) }

// UniqueAddress is an address in a network.
func UniqueAddress(a Address) Unique { return unique(a.VNI, uint32(a.Host)) }

// UniqueVNI is a network's VXLAN identifier.
func UniqueVNI(vni uint32) Unique { return unique(spaceVNI, vni) }

// UniqueIndex is a node's index.
func UniqueIndex(index uint16) Unique { return unique(spaceIndex, uint32(index)) }

// UniquePort is a port that is published on all nodes.
func UniquePort(protocol swarm.PortConfigProtocol, port uint32) Unique {
	number := uint32(0)
	switch protocol {
	case swarm.PortConfigProtocolUDP:
		number = 1
	case swarm.PortConfigProtocolSCTP:
		number = 2
	}
	return unique(spacePort+number, port)
}

// Address is the address that it is, if it is one.
func (u Unique) Address() (Address, bool) {
	a := Address{VNI: uint32(u >> 32), Host: Host(u)}
	return a, a.VNI >= FirstVNI
}

func (u Unique) String() string {
	switch space, number := uint32(u>>32), uint32(u); space {
	case spaceVNI:
		return fmt.Sprintf("VXLAN identifier %d", number)
	case spaceIndex:
		return fmt.Sprintf("node index %d", number)
	case spacePort, spacePort + 1, spacePort + 2:
		return fmt.Sprintf("port %d/%s", number, [...]string{"tcp", "udp", "sctp"}[space-spacePort])
	default:
		return fmt.Sprintf("address %d of network %d", number, space)
	}
}

// Labels of the network that a node's engine has for one of the cluster's: whose it is, and
// which node made it.
const (
	EngineLabelNetwork = "skep.network"
	EngineLabelNode    = "skep.node"
)

// IngressName is what the first ingress network is called.
const IngressName = "ingress"

const (
	// FirstVNI is the first VXLAN identifier: Docker Swarm's begin one before it, and may be on
	// the same machines. LastVNI is the last: MACs of bridges have room for 16 bits.
	FirstVNI = 4097
	LastVNI  = 1<<16 - 1
	// MaxIndex is the highest node index: marks of packets have room for ten bits.
	MaxIndex = 1<<10 - 1
	// OverlayDriver is Docker's name for networks that span nodes.
	OverlayDriver = "overlay"
	// EncryptedOverlay is what nodes list beside it that carry encrypted networks, too.
	EncryptedOverlay = "overlay-encrypted"
)

// NetworkSettings are the cluster's own.
type NetworkSettings struct {
	// Pools are what subnets are cut from, into such of SubnetBits; without any, Docker's
	// default.
	Pools      []netip.Prefix `cbor:",omitempty"`
	SubnetBits int            `cbor:",omitempty"`
	// DataPort is the UDP port of packets between nodes.
	DataPort uint16 `cbor:",omitempty"`
	// Seed makes all nodes choose alike where a client is to stay with a task.
	Seed uint32 `cbor:",omitempty"`
	// Generation is that of the keys of encrypted networks, from 1: it grows with each rotation of the
	// gossip keys, and nodes have keys of this one and the one before.
	Generation uint32 `cbor:",omitempty"`
}

// Docker's defaults.
const (
	DefaultSubnetBits = 24
	DefaultDataPort   = 4789
)

// DefaultPool is Docker's default address pool.
var DefaultPool = netip.MustParsePrefix("10.0.0.0/8")

// NetworkSettings are the settings, with defaults for what isn't set.
func (c *Cluster) NetworkSettings() NetworkSettings {
	var s NetworkSettings
	if c != nil {
		s = c.Networks
	}
	if len(s.Pools) == 0 {
		s.Pools = []netip.Prefix{DefaultPool}
	}
	if s.SubnetBits == 0 {
		s.SubnetBits = DefaultSubnetBits
	}
	if s.DataPort == 0 {
		s.DataPort = DefaultDataPort
	}
	if s.Generation == 0 {
		s.Generation = 1
	}
	return s
}

// EngineNetwork is a network that each engine has of itself.
type EngineNetwork struct{ ID, Name, Driver string }

// predefined are the networks that each engine has of itself. As in Swarm, the cluster
// has one object for each kind, with an ID of its own, since those of the engines
// differ from node to node.
var predefined = []EngineNetwork{
	{ID: "skepnetbridge000000000000", Name: "bridge", Driver: "bridge"},
	{ID: "skepnethost00000000000000", Name: "host", Driver: "host"},
	{ID: "skepnetnone00000000000000", Name: "none", Driver: "null"},
}

// LabelPredefined on a network says that it is each engine's own.
const LabelPredefined = "com.docker.swarm.predefined"

// PredefinedNetworks are the networks that each node has.
func PredefinedNetworks() []EngineNetwork { return predefined }

// PredefinedNetwork finds a network that each node has, by its ID or name.
func PredefinedNetwork(ref string) (EngineNetwork, bool) {
	for _, n := range predefined {
		if ref == n.ID || ref == n.Name {
			return n, true
		}
	}
	return EngineNetwork{}, false
}

// NetworkMode is the name of the network that the tasks of a spec are on; empty means
// the engine's default.
func NetworkMode(task *swarm.TaskSpec) string {
	for _, attachment := range task.Networks {
		if n, ok := PredefinedNetwork(attachment.Target); ok {
			return n.Name
		}
	}
	return ""
}
