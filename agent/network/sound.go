package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"skep/cluster"
)

const (
	// lastIndex is the highest index of a node: marks have ten bits for it.
	lastIndex = 1<<10 - 1
	// lastVNI is the highest VXLAN identifier: the MACs of bridges have 16 bits for it.
	lastVNI = 1<<16 - 1
	// The kernel refuses a smaller MTU, and takes IPv6 away from a link with one below leastMTU6.
	leastMTU, leastMTU6 = 68, 1280
	// mostMTU leaves room for the outer headers, of IPv6 too, in the largest packet.
	mostMTU = 1<<16 - 1 - 80
	// longestAlias is what an alias of a link may have, in bytes.
	longestAlias = 255
)

// sound is the account without what makes no sense: of two that claim the same, the first stays.
// A step that the kernel always refuses would hide what else is wrong, and two objects of one
// key would take each other's place for ever.
func (w *Wanted) sound() *Wanted {
	s := *w
	s.Self.Addr = usable(w.Self.Addr)
	s.Nodes, s.Networks, s.Ports = nil, nil, nil
	keys := map[[32]byte]bool{}
	underlay := []netip.Addr{s.Self.Addr}
	for _, node := range w.Nodes {
		node.Addr = usable(node.Addr)
		if !node.Addr.IsValid() || node.Index == 0 || node.Index > lastIndex || node.Index == w.Self.Index || node.Addr == s.Self.Addr ||
			slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Index == node.Index || n.Addr == node.Addr }) {
			continue
		}
		for i, key := range node.Keys {
			if keys[key.Public] {
				node.Keys[i] = cluster.WireKey{}
			}
			keys[key.Public] = true
		}
		s.Nodes, underlay = append(s.Nodes, node), append(underlay, node.Addr)
	}
	if !s.carries() {
		s.Nodes = nil
	}
	if s.MTU < leastMTU6+wireOverhead || s.MTU > mostMTU {
		s.Generation = 0
	}
	for _, n := range w.Networks {
		if n.VNI == 0 || n.VNI > lastVNI || n.MTU < leastMTU || n.MTU > mostMTU || n.ID == "" || len(n.alias(w)) > longestAlias ||
			strings.ContainsFunc(n.ID, func(r rune) bool { return r < ' ' || r == '/' }) ||
			slices.ContainsFunc(s.Networks, func(o Network) bool { return o.VNI == n.VNI || o.Ingress && n.Ingress }) {
			continue
		}
		n.Subnets = n.soundSubnets(s.Networks, underlay)
		if len(n.Subnets) == 0 {
			continue
		}
		gateways := n.Gateways
		n.Gateways = nil
		n.Gateways = n.hosts(gateways, netip.Addr.Is4)
		n.Endpoints, n.Services = n.soundEndpoints(), n.soundServices()
		s.Networks = append(s.Networks, n)
	}
	s.Ports = w.soundPorts(s.Networks)
	return &s
}

// carries tells whether the node can be one end of a tunnel.
func (w *Wanted) carries() bool {
	return w.Self.Addr.IsValid() && w.Self.Index > 0 && w.Self.Index <= lastIndex && w.DataPort != 0
}

// usable is an address that packets can be for, in the short form of those of IPv4; of others it
// is invalid.
func usable(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Zone() != "" || !a.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return a
}

// soundSubnets are one for each family, that takes no address from another network or the nodes.
func (n *Network) soundSubnets(others []Network, underlay []netip.Addr) (subnets []Subnet) {
	for _, s := range n.Subnets {
		s.Gateway = usable(s.Gateway)
		taken := func(o Subnet) bool { return o.Prefix.Overlaps(s.Prefix) }
		if s.Prefix.Bits() <= 0 || s.Prefix.Addr().Is4In6() || !s.Prefix.Contains(s.Gateway) || !usable(s.Prefix.Masked().Addr()).IsValid() ||
			s.Gateway.Is6() && n.MTU < leastMTU6 ||
			slices.ContainsFunc(subnets, func(o Subnet) bool { return o.Gateway.Is6() == s.Gateway.Is6() }) ||
			slices.ContainsFunc(others, func(o Network) bool { return slices.ContainsFunc(o.Subnets, taken) }) ||
			slices.ContainsFunc(underlay, s.Prefix.Contains) {
			continue
		}
		subnets = append(subnets, s)
	}
	return subnets
}

// host is an address that one of the network's subnets has, if it isn't a gateway's; else it is invalid.
func (n *Network) host(a netip.Addr) netip.Addr {
	a = usable(a)
	for i := range n.Subnets {
		if s := &n.Subnets[i]; s.Prefix.Contains(a) && a != s.Gateway && !slices.Contains(n.Gateways, a) {
			return a
		}
	}
	return netip.Addr{}
}

// hosts are those of the addresses that are hosts and that are wanted. Mostly all are, as they come, and it is the same list.
func (n *Network) hosts(addrs []netip.Addr, wanted func(netip.Addr) bool) []netip.Addr {
	same := func(a netip.Addr) bool { return a.IsValid() && n.host(a) == a && wanted(a) }
	at := slices.IndexFunc(addrs, func(a netip.Addr) bool { return !same(a) })
	if at < 0 {
		return addrs
	}
	hosts := slices.Clone(addrs[:at])
	for _, a := range addrs[at:] {
		if a = n.host(a); a.IsValid() && wanted(a) {
			hosts = append(hosts, a)
		}
	}
	return hosts
}

func anyHost(netip.Addr) bool { return true }

// addresses is a set, in rows of 64: who is in one mostly has others beside it.
type addresses map[[2]uint64]uint64

func (s addresses) place(a netip.Addr) (row [2]uint64, bit uint64) {
	b := a.As16()
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	return [2]uint64{high, low / 64}, 1 << (low % 64)
}

func (s addresses) has(a netip.Addr) bool {
	row, bit := s.place(a)
	return s[row]&bit != 0
}

func (s addresses) add(a netip.Addr) {
	row, bit := s.place(a)
	s[row] |= bit
}

// soundEndpoints are those on a node, with addresses that no other one has.
func (n *Network) soundEndpoints() []Endpoint {
	seen, endpoints := addresses{}, make([]Endpoint, 0, len(n.Endpoints))
	for _, e := range n.Endpoints {
		hosts := n.hosts(e.Addrs, anyHost)
		if e.Node == 0 || e.Node > lastIndex || len(hosts) == 0 || hosts[0] != e.Addrs[0].Unmap() || slices.ContainsFunc(hosts, seen.has) {
			continue // Without the first address the MAC isn't known.
		}
		e.Addrs = hosts
		for _, a := range e.Addrs {
			seen.add(a)
		}
		endpoints = append(endpoints, e)
	}
	return endpoints
}

func (n *Network) soundServices() []Service {
	seen, services := addresses{}, make([]Service, 0, len(n.Services))
	for _, s := range n.Services {
		s.VIP = n.host(s.VIP)
		if !s.VIP.IsValid() || seen.has(s.VIP) {
			continue
		}
		seen.add(s.VIP)
		s.Backends = n.hosts(s.Backends, func(a netip.Addr) bool { return a.Is6() == s.VIP.Is6() })
		services = append(services, s)
	}
	return services
}

// soundPorts are those that can be published, with the backends that the ingress network has.
func (w *Wanted) soundPorts(networks []Network) (ports []Port) {
	type claim struct {
		protocol  string
		hostIP    netip.Addr
		published uint16
	}
	seen := map[claim]bool{}
	for _, p := range w.Ports {
		hostIP := p.HostIP.Unmap()
		at := claim{p.Protocol, hostIP, p.Published}
		if !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol) || p.Published == 0 || p.Target == 0 || seen[at] ||
			hostIP.IsValid() && !hostIP.IsLoopback() && !usable(hostIP).IsValid() {
			continue
		}
		p.HostIP, seen[at] = hostIP, true
		backends := p.Backends
		p.Backends = nil
		for i := range networks {
			if networks[i].Ingress {
				p.Backends = networks[i].hosts(backends, anyHost)
			}
		}
		ports = append(ports, p)
	}
	return ports
}
