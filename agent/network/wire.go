package network

import (
	"fmt"
	"net/netip"
	"slices"

	"skep/cluster"
)

// What encrypted networks need: a WireGuard device of the node for each generation of keys, with all
// nodes that have a key of it as its peers. The VXLAN ports of such networks speak between
// addresses that only these devices carry.

const (
	// WirePrefix begins the names of the devices.
	WirePrefix = "skw"
	// wirePort is the first of wirePorts: a device's port follows from its generation, so that a new one
	// gets its port while the two before still have theirs.
	wirePort, wirePorts = 27054, 3
	// wireOverhead is what WireGuard and the outer headers, of IPv6 at most, take of a packet.
	wireOverhead = 80
	// mainTable is Linux's table of routes that is looked into for everybody.
	mainTable = 254
)

// Wire is a WireGuard device of this node, up. Whoever makes it makes its private key, which nobody
// else is told.
type Wire struct {
	Name, Alias string
	MTU         int
	Port        uint16
	// Public is its public key, in a listing.
	Public [32]byte
}

// Key is the link's name.
func (w Wire) Key() any   { return w.Name }
func (w Wire) kind() kind { return kindWire }
func (w Wire) String() string {
	return fmt.Sprintf("wireguard %s listen-port %d mtu %d alias %s", w.Name, w.Port, w.MTU, w.Alias)
}

// Generation is that of the device's keys, which its name tells; 0 when that isn't a device's.
func (w Wire) Generation() uint32 {
	var index uint16
	var generation uint32
	if _, err := fmt.Sscanf(w.Name, WirePrefix+"%x-%x", &index, &generation); err != nil || wireName(index, generation) != w.Name {
		return 0
	}
	return generation
}

// wireName is the name of a device. The index tells the nodes of one machine apart, which share a
// folder for what devices are configured by.
func wireName(index uint16, generation uint32) string {
	return fmt.Sprintf("%s%x-%x", WirePrefix, index, generation)
}

// WirePeer is another node's device, as one of this node's knows it.
type WirePeer struct {
	Link     string
	Public   [32]byte
	Endpoint netip.AddrPort
	// Allowed is the address that it may send from, and that is sent to it.
	Allowed netip.Addr
	// Met is set in a listing when both have agreed on a session: either knows the other's key.
	Met bool
}

// Key is the device and the peer's key.
func (p WirePeer) Key() any   { return [2]any{p.Link, p.Public} }
func (p WirePeer) kind() kind { return kindWirePeer }
func (p WirePeer) String() string {
	return fmt.Sprintf("wireguard %s peer %.8x endpoint %s allowed-ips %s", p.Link, p.Public, p.Endpoint, p.Allowed)
}

// wireAddr is a node's address within the devices. Subnets are never of link-local addresses, and
// those of 169.254.192 to 195 stand for nodes on the ingress bridge.
func wireAddr(index uint16) netip.Addr {
	return netip.AddrFrom4([4]byte{169, 254, 200 + byte(index>>8), byte(index)})
}

// wires are the node's devices, their peers, and the ways to these. The nodes that can be sent to
// come back with their addresses there: one whose key isn't known isn't among them.
//
// A device of the generation before stays beside the new one, and a node is sent to by the newest
// by which it was met, so that a rotation of keys loses no packet: both take what comes.
func (w *Wanted) wires(out objects, peers []Node, existing []Object) []Node {
	if w.Generation == 0 || !w.carries() || !slices.ContainsFunc(w.Networks, func(n Network) bool { return n.Encrypted }) {
		return nil
	}
	alias := "skep/" + w.Cluster + "/wire"
	there := map[string]bool{}
	met := map[any]bool{}
	for _, o := range existing {
		switch o := o.(type) {
		case Wire:
			there[o.Name] = o.Alias == alias
		case WirePeer:
			met[o.Key()] = o.Met
		}
	}
	ways := map[uint16]Route{} // by the peer's index
	best := map[uint16]bool{}  // those that were met
	for _, generation := range []uint32{w.Generation - 1, w.Generation} {
		name := wireName(w.Self.Index, generation)
		if generation != w.Generation && !there[name] {
			continue
		}
		out.add(
			Wire{Name: name, Alias: alias, MTU: w.MTU - wireOverhead, Port: wirePortOf(generation)},
			Address{Link: name, Prefix: netip.PrefixFrom(wireAddr(w.Self.Index), 32)},
		)
		for _, node := range peers {
			key := node.Keys.Of(generation)
			if key.Generation == 0 {
				continue
			}
			addr := wireAddr(node.Index)
			peer := WirePeer{Link: name, Public: key.Public, Endpoint: netip.AddrPortFrom(node.Addr, wirePortOf(generation)), Allowed: addr}
			out.add(peer)
			if met := met[peer.Key()]; met || !best[node.Index] {
				ways[node.Index], best[node.Index] = Route{Dst: netip.PrefixFrom(addr, 32), Link: name, Table: mainTable}, met
			}
		}
	}
	for _, way := range ways {
		out.add(way)
	}
	return w.reached(peers)
}

// reached are the nodes whose keys are known, with their addresses within the devices. Where there is no
// device that has met one, what is for it goes nowhere.
func (w *Wanted) reached(peers []Node) (reached []Node) {
	for _, node := range peers {
		if node.Keys.Of(w.Generation).Generation != 0 || node.Keys.Of(w.Generation-1).Generation != 0 {
			node.Addr = wireAddr(node.Index)
			reached = append(reached, node)
		}
	}
	return reached
}

func wirePortOf(generation uint32) uint16 { return wirePort + uint16(generation%wirePorts) }

// wireKeys are the public keys of the node's devices: those of the newest two generations.
func wireKeys(w *Wanted, existing Existing) (keys cluster.WireKeys) {
	for _, o := range existing.Objects {
		wire, is := o.(Wire)
		if !is || wire.Public == [32]byte{} {
			continue
		}
		key := cluster.WireKey{Generation: wire.Generation(), Public: wire.Public}
		switch {
		case key.Generation > keys[0].Generation:
			keys[0], keys[1] = key, keys[0]
		case key.Generation > keys[1].Generation:
			keys[1] = key
		}
	}
	return keys
}
