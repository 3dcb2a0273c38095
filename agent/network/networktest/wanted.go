// Package networktest draws accounts of networks for tests of what makes kernel objects of
// them, in memory and in a kernel.
package networktest

import (
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	"skep/agent/network"
)

// Wanted draws an account of networks: few values, so that those of two draws often meet.
func Wanted(t *rapid.T) *network.Wanted {
	w := &network.Wanted{
		Cluster: "c", DataPort: 4789, Seed: 7, Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		Self: network.Node{Index: 1, Addr: netip.MustParseAddr(rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.101", "2001:db8::1"}).Draw(t, "self"))},
	}
	for index := uint16(2); index < 5; index++ {
		if rapid.Bool().Draw(t, "node") {
			w.Nodes = append(w.Nodes, network.Node{Index: index, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(index)})})
		}
	}
	ingress := []netip.Addr{}
	for vni := uint32(4097); vni < 4100; vni++ {
		if !rapid.Bool().Draw(t, "network") {
			continue
		}
		third := byte(vni - 4096)
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, third, 0}), 24)
		n := network.Network{
			ID: fmt.Sprint("net", vni), VNI: vni, MTU: rapid.SampledFrom([]int{1450, 1400}).Draw(t, "mtu"),
			Ingress: vni == 4097, Internal: vni == 4098 && rapid.Bool().Draw(t, "internal"),
			Subnets: []network.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}},
		}
		v6 := rapid.Bool().Draw(t, "v6")
		if v6 {
			prefix := netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: third}), 64)
			n.Subnets = append(n.Subnets, network.Subnet{Prefix: prefix, Gateway: prefix.Addr().Next()})
		}
		var backends []netip.Addr
		for host := byte(2); host < 5; host++ {
			if !rapid.Bool().Draw(t, "endpoint") {
				continue
			}
			e := network.Endpoint{Node: uint16(rapid.IntRange(1, 4).Draw(t, "at")), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, third, host})}}
			if v6 {
				e.Addrs = append(e.Addrs, netip.AddrFrom16([16]byte{0: 0xfd, 7: third, 15: host}))
			}
			n.Endpoints = append(n.Endpoints, e)
			backends = append(backends, e.Addrs[0])
		}
		if v6 && rapid.Bool().Draw(t, "service6") {
			n.Services = append(n.Services, network.Service{VIP: netip.AddrFrom16([16]byte{0: 0xfd, 7: third, 15: 200})})
		}
		if rapid.Bool().Draw(t, "service") {
			n.Services = append(n.Services, network.Service{VIP: netip.AddrFrom4([4]byte{10, 0, third, 200}), Backends: backends, Affinity: rapid.Bool().Draw(t, "affinity")})
		}
		if n.Ingress {
			ingress = backends
		}
		w.Networks = append(w.Networks, n)
	}
	if len(w.Networks) > 0 {
		for _, published := range []uint16{80, 443} {
			if rapid.Bool().Draw(t, "port") {
				w.Ports = append(w.Ports, network.Port{Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"), Published: published, Target: 8080, Backends: ingress})
			}
		}
	}
	return w
}
