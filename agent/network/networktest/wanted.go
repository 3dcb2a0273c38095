// Package networktest draws accounts of networks for tests of what makes kernel objects of
// them, in memory and in a kernel.
package networktest

import (
	"fmt"
	"net/netip"
	"strings"

	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/cluster"
)

// Wanted draws an account of networks: few values, so that those of two draws often meet.
func Wanted(t *rapid.T) *network.Wanted {
	w := &network.Wanted{
		Cluster: "c", DataPort: 4789, Seed: 7, Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		MTU: 1500, Generation: rapid.Uint32Range(1, 3).Draw(t, "generation"),
		Self: network.Node{Index: 1, Addr: netip.MustParseAddr(rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.101", "2001:db8::1"}).Draw(t, "self"))},
	}
	for index := uint16(2); index < 5; index++ {
		if rapid.Bool().Draw(t, "node") {
			w.Nodes = append(w.Nodes, network.Node{Index: index, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(index)}), Keys: keys(t)})
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
			Encrypted: rapid.Bool().Draw(t, "encrypted"), Ingress: vni == 4097, Internal: vni == 4098 && rapid.Bool().Draw(t, "internal"),
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
			e := network.Endpoint{Node: uint16(rapid.IntRange(1, 4).Draw(t, "at")), Gone: rapid.Bool().Draw(t, "gone"), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, third, host})}}
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

// keys draws a node's keys, few, so that two nodes may have the same.
func keys(t *rapid.T) (keys cluster.WireKeys) {
	for i := range keys {
		keys[i] = cluster.WireKey{Generation: rapid.Uint32Range(0, 3).Draw(t, "generation"), Public: [32]byte{rapid.ByteMax(5).Draw(t, "key")}}
	}
	return keys
}

// Any draws an account in which anything may be wrong, and a network that is sound: for what is wrong in
// another one it is to work all the same.
func Any(t *rapid.T) (w *network.Wanted, sound network.Network) {
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		return rapid.SampledFrom([]netip.Addr{
			{}, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"),
			netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("169.254.192.2"), netip.MustParseAddr("fe80::5b00:0:0:2"),
			netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fd00::3%eth0"), netip.MustParseAddr("::ffff:10.0.3.4"), netip.MustParseAddr("255.255.255.255"),
			netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"),
			netip.MustParseAddr("10.0.3.0"), netip.MustParseAddr("10.0.3.1"), netip.MustParseAddr("10.0.3.2"), netip.MustParseAddr("10.0.3.255"), netip.MustParseAddr("10.0.4.9"),
			netip.MustParseAddr("fd00::"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"),
		}).Draw(t, "addr")
	})
	addrs := rapid.SliceOfN(addr, 0, 4)
	index := rapid.SampledFrom([]uint16{1, 2, 3, 0, 256, 1023, 1024, 65535})
	sound = network.Network{
		ID: "sound", VNI: 5000, MTU: 1450, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}},
		Endpoints: []network.Endpoint{{Node: 1, Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.5")}}, {Node: 2, Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.6")}}},
		Services:  []network.Service{{VIP: netip.MustParseAddr("10.9.0.2"), Backends: []netip.Addr{netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("10.9.0.6")}}},
	}
	w = &network.Wanted{
		Cluster: "c", Seed: rapid.Uint32Max(1).Draw(t, "seed"), Generation: rapid.SampledFrom([]uint32{1, 2, 0, 1<<32 - 1}).Draw(t, "generation"), MTU: rapid.SampledFrom([]int{1500, 0, 70, -1, 1 << 20}).Draw(t, "mtu"), DataPort: rapid.SampledFrom([]uint16{4789, 0}).Draw(t, "data port"),
		Self:  network.Node{Index: index.Draw(t, "self"), Addr: rapid.OneOf(rapid.Just(netip.MustParseAddr("192.0.2.1")), addr).Draw(t, "self")},
		Marks: network.Marks{Peer: rapid.SampledFrom([]uint32{0x3ff00000, 0, 1, 0xff, 0xf0f00000, 1 << 31}).Draw(t, "peer"), LocalClient: rapid.SampledFrom([]uint32{0x40000000, 0, 0x00100000}).Draw(t, "client")},
		Nodes: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Node {
			return network.Node{Index: index.Draw(t, "index"), Addr: addr.Draw(t, "addr"), Keys: keys(t)}
		}), 0, 4).Draw(t, "nodes"),
		Networks: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Network {
			return network.Network{
				ID:        rapid.SampledFrom([]string{"a", "b", "", "a\x00b", strings.Repeat("x", 300)}).Draw(t, "id"),
				VNI:       rapid.SampledFrom([]uint32{4097, 4098, 5001, 0, 1, 1 << 16, 1 << 24, 1<<32 - 1}).Draw(t, "vni"),
				MTU:       rapid.SampledFrom([]int{1450, -1, 0, 67, 68, 1279, 1280, 65455, 65536, 1 << 20}).Draw(t, "mtu"),
				Encrypted: rapid.Bool().Draw(t, "encrypted"), Ingress: rapid.Bool().Draw(t, "ingress"), Internal: rapid.Bool().Draw(t, "internal"),
				Subnets: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Subnet {
					s := rapid.SampledFrom([]network.Subnet{
						{}, {Prefix: netip.MustParsePrefix("10.0.3.0/24"), Gateway: netip.MustParseAddr("10.0.3.1")}, {Prefix: netip.MustParsePrefix("10.0.0.0/16"), Gateway: netip.MustParseAddr("10.0.3.1")},
						{Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")}, {Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.254")},
					}).Draw(t, "subnet")
					if !s.Prefix.IsValid() {
						s.Prefix, s.Gateway = netip.PrefixFrom(addr.Draw(t, "base"), rapid.SampledFrom([]int{-1, 0, 1, 8, 24, 30, 32, 64, 120, 128, 129}).Draw(t, "bits")), addr.Draw(t, "gateway")
					}
					return s
				}), 0, 6).Draw(t, "subnets"),
				Endpoints: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Endpoint {
					return network.Endpoint{Node: index.Draw(t, "at"), Addrs: addrs.Draw(t, "addrs")}
				}), 0, 4).Draw(t, "endpoints"),
				Services: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Service {
					return network.Service{VIP: addr.Draw(t, "vip"), Backends: addrs.Draw(t, "backends"), Affinity: rapid.Bool().Draw(t, "affinity")}
				}), 0, 4).Draw(t, "services"),
			}
		}), 0, 4).Draw(t, "networks"),
		Ports: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Port {
			return network.Port{
				Protocol: rapid.SampledFrom([]string{"tcp", "udp", "sctp", "", "icmp", "TCP"}).Draw(t, "protocol"), HostIP: addr.Draw(t, "host"),
				Published: rapid.Uint16Max(2).Draw(t, "published"), Target: rapid.Uint16Max(2).Draw(t, "target"), Backends: addrs.Draw(t, "backends"),
			}
		}), 0, 4).Draw(t, "ports"),
	}
	w.Networks = append(w.Networks, sound)
	return w, sound
}
