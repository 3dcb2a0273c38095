package network

import (
	"fmt"
	"net"
	"net/netip"

	"skep/cluster"
)

// Object is something in the kernel that skep makes. All kinds are comparable structs:
// two that are equal are the same thing in the same form.
type Object interface {
	// Key is what tells the object from others of its kind: at most one object of a key
	// can exist.
	Key() any
	// String is the object as a command of ip, bridge or nft would name it.
	String() string
	kind() kind
}

// kind orders objects: what is made first comes first, and goes last.
type kind uint8

const (
	kindBridge kind = iota
	kindWire
	kindAddress
	kindWirePeer
	kindTunnel
	kindSysctl
	kindHairpin
	kindBridgeEntry
	kindForward
	kindNeighbour
	kindRoute
	kindRule
	kindTable
	kindSecret // elements without which an encrypted network isn't safe
	kindChain
	kindElement
	kindPass
)

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// EndpointMAC is the address of the interface of the task whose IPv4 address is addr.
func EndpointMAC(addr netip.Addr) MAC { return cluster.EndpointMAC(addr) }

// BridgeMAC is the address of a network's bridge on one node.
func BridgeMAC(vni uint32, index uint16) MAC {
	return MAC{0x02, 0x5b, byte(vni >> 8), byte(vni), byte(index >> 8), byte(index)}
}

// Bridge is a network's bridge, up, with netfilter called for what it forwards.
type Bridge struct {
	Name, Alias string
	MAC         MAC
	MTU         int
}

// Key is the link's name.
func (b Bridge) Key() any   { return b.Name }
func (b Bridge) kind() kind { return kindBridge }
func (b Bridge) String() string {
	return fmt.Sprintf("bridge %s address %s mtu %d alias %s", b.Name, b.MAC, b.MTU, b.Alias)
}

// Address is an address of a bridge, or of a WireGuard device.
type Address struct {
	Link   string
	Prefix netip.Prefix
}

// Key is the whole of it.
func (a Address) Key() any       { return a }
func (a Address) kind() kind     { return kindAddress }
func (a Address) String() string { return fmt.Sprintf("addr %s dev %s", a.Prefix, a.Link) }

// Tunnel is a network's VXLAN port: it learns nothing and floods nothing.
type Tunnel struct {
	Name, Alias, Bridge string
	VNI                 uint32
	MTU                 int
	Local               netip.Addr
	Port                uint16
}

// Key is the link's name.
func (t Tunnel) Key() any   { return t.Name }
func (t Tunnel) kind() kind { return kindTunnel }
func (t Tunnel) String() string {
	return fmt.Sprintf("vxlan %s id %d local %s dstport %d mtu %d master %s alias %s", t.Name, t.VNI, t.Local, t.Port, t.MTU, t.Bridge, t.Alias)
}

// Sysctl is a setting of a link.
type Sysctl struct{ Name, Value string }

// Key is the setting's name.
func (s Sysctl) Key() any       { return s.Name }
func (s Sysctl) kind() kind     { return kindSysctl }
func (s Sysctl) String() string { return fmt.Sprintf("sysctl %s=%s", s.Name, s.Value) }

// Hairpin is whether a container's port of a bridge sends packets back to where they
// came from: a task whose VIP chooses the task itself needs it.
type Hairpin struct {
	Link, Bridge string
	On           bool
}

// Key is the port's name.
func (h Hairpin) Key() any   { return h.Link }
func (h Hairpin) kind() kind { return kindHairpin }
func (h Hairpin) String() string {
	on := "off"
	if h.On {
		on = "on"
	}
	return fmt.Sprintf("port %s of %s hairpin %s", h.Link, h.Bridge, on)
}

// BridgeEntry has a bridge send what is for MAC to its port Link.
type BridgeEntry struct {
	Link string
	MAC  MAC
}

// Key is the whole of it.
func (e BridgeEntry) Key() any   { return e }
func (e BridgeEntry) kind() kind { return kindBridgeEntry }
func (e BridgeEntry) String() string {
	return fmt.Sprintf("fdb %s dev %s master static", e.MAC, e.Link)
}

// Forward has a tunnel send what is for MAC to a node.
type Forward struct {
	Link string
	MAC  MAC
	Node netip.Addr
}

// Key is the tunnel and the address.
func (f Forward) Key() any   { return [2]any{f.Link, f.MAC} }
func (f Forward) kind() kind { return kindForward }
func (f Forward) String() string {
	return fmt.Sprintf("fdb %s dev %s dst %s self permanent", f.MAC, f.Link, f.Node)
}

// Neighbour is a permanent entry of a bridge's neighbours.
type Neighbour struct {
	Link string
	Addr netip.Addr
	MAC  MAC
}

// Key is the link and the address.
func (n Neighbour) Key() any   { return [2]any{n.Link, n.Addr} }
func (n Neighbour) kind() kind { return kindNeighbour }
func (n Neighbour) String() string {
	return fmt.Sprintf("neigh %s lladdr %s dev %s", n.Addr, n.MAC, n.Link)
}

// Route is a virtual IP in the table of local addresses, the way back to the node that
// a connection through the mesh came by, or the WireGuard device by which a node is sent to.
type Route struct {
	// Dst is the virtual IP or the node; the zero value is the default route.
	Dst netip.Prefix
	// Via is the next hop; invalid where there is none.
	Via   netip.Addr
	Link  string
	Table uint32
}

// Key is the family, the table, the destination and the link.
func (r Route) Key() any   { return [4]any{r.Via.Is6(), r.Table, r.Dst, r.Link} }
func (r Route) kind() kind { return kindRoute }
func (r Route) String() string {
	if !r.Via.IsValid() && r.Table == mainTable {
		return fmt.Sprintf("route %s dev %s", r.Dst.Addr(), r.Link)
	}
	if !r.Via.IsValid() {
		return fmt.Sprintf("route local %s dev %s table %d", r.Dst.Addr(), r.Link, r.Table)
	}
	return fmt.Sprintf("route default via %s dev %s onlink table %d", r.Via, r.Link, r.Table)
}

// Rule sends packets to a table of routes, by the link they come in by and their mark.
type Rule struct {
	Priority uint32
	// IPv6 is the family.
	IPv6 bool
	// In is the link; with Not all others.
	In  string
	Not bool
	// Mark under Mask; without a Mask all packets.
	Mark, Mask uint32
	// Table is looked up; 0 means to go on at the rule Goto.
	Table, Goto uint32
}

// Key is the whole of it: a kernel has several of a priority.
func (r Rule) Key() any   { return r }
func (r Rule) kind() kind { return kindRule }
func (r Rule) String() string {
	s := fmt.Sprintf("rule pref %d", r.Priority)
	if r.IPv6 {
		s = "-6 " + s
	}
	if r.Not {
		s += " not"
	}
	s += " iif " + r.In
	if r.Mask != 0 {
		s += fmt.Sprintf(" fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.Table == 0 {
		return s + fmt.Sprintf(" goto %d", r.Goto)
	}
	return s + fmt.Sprintf(" lookup %d", r.Table)
}

// Table is skep's table of nftables with its base chains, and its sets and maps, empty.
type Table struct {
	// IPv6 is the family.
	IPv6 bool
	// Layout is the number of the base chains' form.
	Layout int
	// Ingress is the ingress network's bridge, and Self the node's address: base chains
	// name both. Without an ingress network of the family, or an address of it, they are empty.
	Ingress string
	Self    netip.Addr
	Marks   Marks
	// DataPort is where only nodes may send VXLAN packets to.
	DataPort uint16
}

// Key is the family.
func (t Table) Key() any   { return t.IPv6 }
func (t Table) kind() kind { return kindTable }
func (t Table) String() string {
	s := fmt.Sprintf("table %s layout %d port %d marks %#x %#x", family(t.IPv6), t.Layout, t.DataPort, t.Marks.Peer, t.Marks.LocalClient)
	if t.Ingress != "" {
		s += " ingress " + t.Ingress
	}
	if t.Self.IsValid() {
		s += " self " + t.Self.String()
	}
	return s
}

func family(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

// Chain translates what comes to it to one of a list of addresses.
type Chain struct {
	IPv6 bool
	Name string
	// Port is the backends' port; 0 leaves it as it is, and lets pings through.
	Port uint16
	// Backends are addresses, separated by spaces, or the Digest of that. Without any, packets
	// aren't translated, and so rejected.
	Backends string
	// Seed is that of session affinity; 0 means to choose at random.
	Seed uint32
}

// Key is the family and the chain's name.
func (c Chain) Key() any   { return [2]any{c.IPv6, c.Name} }
func (c Chain) kind() kind { return kindChain }
func (c Chain) String() string {
	s := "chain " + family(c.IPv6) + " " + c.Name
	if c.Backends == "" {
		return s + " reject"
	}
	s += " to " + c.Backends
	if c.Port != 0 {
		s += fmt.Sprintf(" port %d", c.Port)
	}
	if c.Seed != 0 {
		s += fmt.Sprintf(" affinity %d", c.Seed)
	}
	return s
}

// Element is one of a set or a map of skep's table.
type Element struct {
	IPv6 bool
	Set  Set
	// A and B are the parts of the key; B is empty where there is one only.
	A, B string
	// Value is the chain, or the mark as a number; empty in sets.
	Value string
}

// Set is the name of a set or map.
type Set string

// The sets and maps.
const (
	SetVIP      Set = "vip"      // bridge . VIP : chain
	SetMesh     Set = "mesh"     // protocol . port : chain
	SetMeshAddr Set = "meshaddr" // address . protocol/port : chain
	SetPeers    Set = "peers"    // a peer's MAC on the ingress bridge : its mark
	SetNodes    Set = "nodes"    // address of a node
	SetHair     Set = "hair"     // address of a task here, twice
	SetGateways Set = "gws"      // bridge . gateway
	SetInternal Set = "internal" // bridge of an internal network
	SetSame     Set = "same"     // the same bridge, twice
	SetGone     Set = "gone"     // address of a task on a machine that is dead
	// SetEncrypted has the VXLAN identifiers whose packets only WireGuard devices carry.
	SetEncrypted Set = "encrypted"
)

// Key is all but the value.
func (e Element) Key() any { e.Value = ""; return e }
func (e Element) kind() kind {
	if e.Set == SetEncrypted {
		return kindSecret
	}
	return kindElement
}
func (e Element) String() string {
	s := fmt.Sprintf("element %s %s %s", family(e.IPv6), e.Set, e.A)
	if e.B != "" {
		s += " . " + e.B
	}
	if e.Value != "" {
		s += " : " + e.Value
	}
	return s
}

// Pass is a rule of the engine's firewall, in its chain for users' rules, by which packets of
// published ports get to the ingress network's bridge, or with In what answers them gets away from it.
type Pass struct {
	IPv6   bool
	Bridge string
	In     bool
	// Lacking is set in a listing when one of several firewalls lacks it.
	Lacking bool
}

// Key is all but what it lacks.
func (p Pass) Key() any   { p.Lacking = false; return p }
func (p Pass) kind() kind { return kindPass }
func (p Pass) String() string {
	if p.In {
		return fmt.Sprintf("pass %s what answers from %s", family(p.IPv6), p.Bridge)
	}
	return fmt.Sprintf("pass %s what is published to %s", family(p.IPv6), p.Bridge)
}
