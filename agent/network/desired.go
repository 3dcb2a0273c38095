package network

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Layout is the number of the form that nftables' base chains have: a table of another
// form is replaced as a whole, in one transaction.
const Layout = 7

// NamesPort is where the node's name server listens at the gateways. What containers send to a
// gateway's port 53 is led there, since a resolver of the node itself may have that port
// at all addresses.
const NamesPort = 27053

const (
	// localTable is Linux's table of the addresses that are this machine's.
	localTable = 255
	// peerTables is the first of the tables that lead back to peers, and the first of the
	// rules that choose them: a peer's index is added.
	peerTables = 10000
	// mainRule is Linux's rule that looks into the table main.
	mainRule = 32766
)

// Bridge is the name of a network's bridge. Names of links have at most 15 bytes.
func (n *Network) Bridge() string { return fmt.Sprintf("skb%x", n.VNI) }

// Tunnel is the name of the network's VXLAN port.
func (n *Network) Tunnel() string { return fmt.Sprintf("skx%x", n.VNI) }

// alias says whose the network's links are.
func (n *Network) alias(w *Wanted) string { return "skep/" + w.Cluster + "/" + n.ID }

// objects collects kernel objects.
type objects map[Object]struct{}

func (o objects) add(objs ...Object) {
	for _, obj := range objs {
		o[obj] = struct{}{}
	}
}

// Desired lists the kernel objects that a node needs, in no order, beside what others have made there:
// containers' ports, which need a setting, and firewalls, which need a rule.
// What makes no sense in the account is left out, and what depends on it; there is at most one
// object of a key.
func Desired(w *Wanted, existing Existing) []Object {
	w = w.sound()
	out := objects{}
	if w.KeepBridges {
		w.keepBridges(out, existing.Objects)
	}
	if len(w.Networks) == 0 {
		return slices.Collect(maps.Keys(out))
	}
	var peers []Node
	for _, n := range w.Nodes {
		if n.Addr.Is6() == w.Self.Addr.Is6() { // A tunnel has one family.
			peers = append(peers, n)
		}
	}
	reached := w.wires(out, peers, existing.Objects)
	for i := range w.Networks {
		n, at, peers := &w.Networks[i], w.Self.Addr, peers
		if n.Encrypted {
			at, peers = wireAddr(w.Self.Index), reached
		}
		n.links(out, w, at, peers, existing.Ports[n.Bridge()])
		n.services(out, w)
		if n.Ingress {
			n.mesh(out, w, peers, existing.Guarded)
		}
	}
	for _, v6 := range []bool{false, true} {
		w.table(out, v6)
	}
	return slices.Collect(maps.Keys(out))
}

// keepBridges has the cluster's bridges stay that are no wanted network's.
func (w *Wanted) keepBridges(out objects, existing []Object) {
	for _, o := range existing {
		b, is := o.(Bridge)
		if is && strings.HasPrefix(b.Alias, "skep/"+w.Cluster+"/") && !slices.ContainsFunc(w.Networks, func(n Network) bool { return n.Bridge() == b.Name }) {
			out.add(b)
		}
	}
}

// table is the table of one family, unless nothing here has addresses of it.
func (w *Wanted) table(out objects, v6 bool) {
	t := Table{IPv6: v6, Layout: Layout, Marks: w.Marks, DataPort: w.DataPort}
	used := false
	for i := range w.Networks {
		n := &w.Networks[i]
		has := slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Addr().Is6() == v6 })
		used = used || has
		if has && n.Ingress {
			t.Ingress = n.Bridge()
		}
	}
	if w.Self.Addr.IsValid() && w.Self.Addr.Is6() == v6 {
		t.Self, used = w.Self.Addr, true // VXLAN packets come in there.
	}
	if !used {
		return
	}
	out.add(t)
	for _, node := range append(slices.Clone(w.Nodes), w.Self) {
		if node.Addr.IsValid() && node.Addr.Is6() == v6 {
			out.add(Element{IPv6: v6, Set: SetNodes, A: node.Addr.String()})
		}
	}
	for i := range w.Networks {
		if n := &w.Networks[i]; n.Encrypted {
			out.add(n.secret(v6))
		}
	}
	w.published(out, v6)
}

// secret has the network's packets neither come nor go in clear, by either family.
func (n *Network) secret(v6 bool) Element {
	return Element{IPv6: v6, Set: SetEncrypted, A: strconv.FormatUint(uint64(n.VNI), 10)}
}

// links are the network's bridge, its tunnel from this node's address, and where the others' addresses are.
func (n *Network) links(out objects, w *Wanted, at netip.Addr, peers []Node, ports []string) {
	bridge, tunnel := n.Bridge(), n.Tunnel()
	alias := n.alias(w)
	var own uint16 // Without a tunnel nobody else sees the MAC, and another node on the engine may come to carry this.
	if w.carries() {
		own = w.Self.Index
	}
	out.add(Bridge{Name: bridge, Alias: alias, MAC: BridgeMAC(n.VNI, own), MTU: n.MTU})
	if w.carries() {
		out.add(Tunnel{Name: tunnel, Alias: alias, Bridge: bridge, VNI: n.VNI, MTU: n.MTU, Local: at, Port: w.DataPort})
	}
	for _, s := range n.Subnets {
		v6 := s.Prefix.Addr().Is6()
		out.add(
			Address{Link: bridge, Prefix: netip.PrefixFrom(s.Gateway, s.Prefix.Bits())},
			Element{IPv6: v6, Set: SetGateways, A: bridge, B: s.Gateway.String()},
			Element{IPv6: v6, Set: SetSame, A: bridge, B: bridge},
		)
		if n.Internal {
			out.add(Element{IPv6: v6, Set: SetInternal, A: bridge})
		}
	}
	for _, gateway := range n.Gateways {
		// No address of the bridge: engines take one of these for the network's gateway.
		out.add(Route{Dst: netip.PrefixFrom(gateway, gateway.BitLen()), Link: bridge, Table: localTable}, Element{Set: SetGateways, A: bridge, B: gateway.String()})
	}
	if n.Ingress {
		// What a program of the node sends to 127.0.0.1 leaves by the bridge, translated.
		out.add(Sysctl{Name: "net.ipv4.conf." + bridge + ".route_localnet", Value: "1"})
	}
	for _, port := range ports {
		out.add(Hairpin{Link: port, Bridge: bridge, On: true})
	}
	nodes := map[uint16]netip.Addr{}
	for _, node := range peers {
		nodes[node.Index] = node.Addr
	}
	for _, e := range n.Endpoints {
		if e.Node == w.Self.Index {
			for _, addr := range e.Addrs {
				out.add(Element{IPv6: addr.Is6(), Set: SetHair, A: addr.String(), B: addr.String()})
			}
			continue
		}
		at, known := nodes[e.Node]
		if !known || len(e.Addrs) == 0 || !e.Addrs[0].Is4() {
			continue
		}
		mac := EndpointMAC(e.Addrs[0])
		out.add(BridgeEntry{Link: tunnel, MAC: mac}, Forward{Link: tunnel, MAC: mac, Node: at})
		for _, addr := range e.Addrs {
			out.add(Neighbour{Link: bridge, Addr: addr, MAC: mac})
			if e.Gone {
				out.add(Element{IPv6: addr.Is6(), Set: SetGone, A: addr.String()})
			}
		}
	}
	for _, node := range peers {
		mac := BridgeMAC(n.VNI, node.Index)
		out.add(BridgeEntry{Link: tunnel, MAC: mac}, Forward{Link: tunnel, MAC: mac, Node: node.Addr})
	}
}

// services are the network's virtual IPs. Each is an address of the node itself, so that it
// answers whoever asks where it is, and pings.
func (n *Network) services(out objects, w *Wanted) {
	for _, s := range n.Services {
		v6 := s.VIP.Is6()
		chain := fmt.Sprintf("v-%x-%s", n.VNI, strings.ReplaceAll(s.VIP.String(), ":", "_"))
		own := netip.PrefixFrom(s.VIP, s.VIP.BitLen())
		if v6 {
			out.add(Address{Link: n.Bridge(), Prefix: own}) // Neighbour discovery answers for nothing less.
		} else {
			out.add(Route{Dst: own, Link: n.Bridge(), Table: localTable})
		}
		out.add(
			Chain{IPv6: v6, Name: chain, Backends: join(s.Backends), Seed: w.seed(s.Affinity)},
			Element{IPv6: v6, Set: SetVIP, A: n.Bridge(), B: s.VIP.String(), Value: chain},
		)
	}
}

func (w *Wanted) seed(affinity bool) uint32 {
	if !affinity {
		return 0
	}
	return cmp.Or(w.Seed, 1)
}

// mesh are the ways back to the nodes that connections come by: the reply leaves the task's
// node by a table of routes whose default is that node.
func (n *Network) mesh(out objects, w *Wanted, peers []Node, guarded map[bool]bool) {
	bridge := n.Bridge()
	peers = slices.DeleteFunc(slices.Clone(peers), func(node Node) bool { return !w.Marks.holds(node.Index) })
	for _, s := range n.Subnets {
		v6 := s.Prefix.Addr().Is6()
		if guarded[v6] {
			out.add(Pass{IPv6: v6, Bridge: bridge}, Pass{IPv6: v6, Bridge: bridge, In: true})
		}
		if len(peers) > 0 {
			// All other packets pass by the rules of the peers at once.
			out.add(Rule{Priority: peerTables - 1, IPv6: v6, In: bridge, Not: true, Goto: mainRule})
		}
		for _, node := range peers {
			mark := w.Marks.of(node.Index)
			mac := BridgeMAC(n.VNI, node.Index)
			table := peerTables + uint32(node.Index)
			via := peerAddr(v6, node.Index)
			out.add(
				Element{IPv6: v6, Set: SetPeers, A: mac.String(), Value: strconv.FormatUint(uint64(mark), 10)},
				Neighbour{Link: bridge, Addr: via, MAC: mac},
				Route{Via: via, Link: bridge, Table: table},
				Rule{Priority: table, IPv6: v6, In: bridge, Mark: mark, Mask: w.Marks.Peer, Table: table},
			)
		}
	}
}

// of is the mark of a peer: its index in the bits for it.
func (m Marks) of(index uint16) uint32 {
	return uint32(index) << bits.TrailingZeros32(m.Peer) & m.Peer
}

// holds tells whether the mark of a peer is its own: where there is no room for all of the index it is
// another's, or that of all packets.
func (m Marks) holds(index uint16) bool {
	mark := m.of(index)
	return mark != 0 && mark>>bits.TrailingZeros32(m.Peer) == uint32(index)
}

// peerAddr is a link-local address that stands for a node on the ingress bridge, only in
// this node's neighbours: nobody answers it.
func peerAddr(v6 bool, index uint16) netip.Addr {
	hi, lo := byte(index>>8), byte(index)
	if v6 {
		return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: 0x5b, 14: hi, 15: lo})
	}
	return netip.AddrFrom4([4]byte{169, 254, 192 + hi, lo}) // Clouds serve their metadata from others of 169.254.
}

// published are the ports of the node.
func (w *Wanted) published(out objects, v6 bool) {
	for _, p := range w.Ports {
		if p.HostIP.IsValid() && p.HostIP.Is6() != v6 {
			continue
		}
		backends := slices.DeleteFunc(slices.Clone(p.Backends), func(a netip.Addr) bool { return a.Is6() != v6 })
		port := strconv.Itoa(int(p.Published))
		chain := "p-" + p.Protocol + "-" + port
		element := Element{IPv6: v6, Set: SetMesh, A: p.Protocol, B: port}
		if p.HostIP.IsValid() {
			h := fnv.New32a()
			h.Write([]byte(p.HostIP.String()))
			chain += fmt.Sprintf("-%08x", h.Sum32())
			element = Element{IPv6: v6, Set: SetMeshAddr, A: p.HostIP.String(), B: p.Protocol + "/" + port}
		}
		element.Value = chain
		out.add(Chain{IPv6: v6, Name: chain, Port: p.Target, Backends: join(backends), Seed: w.seed(p.Affinity)}, element)
	}
}

func join(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}
