package api

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/network"

	"skep/cluster"
	"skep/scheduler/address"
)

// FuzzNetworkBody creates a network beside another: what is refused changes nothing, and what is
// taken has addresses to give that nobody else has.
func FuzzNetworkBody(f *testing.F) {
	for _, asked := range []network.CreateRequest{
		overlay("web"), overlay("six", withIPv6), overlay("in", func(asked *network.CreateRequest) { asked.Ingress = true }),
		overlay("rich", withIPv6, subnets(
			network.IPAMConfig{Subnet: "10.9.0.0/16", IPRange: "10.9.8.0/24", Gateway: "10.9.255.254", AuxAddress: map[string]string{"a": "10.9.8.1"}},
			network.IPAMConfig{Subnet: "fd00:1::/64", IPRange: "fd00:1::800/120"})),
		overlay("small", subnets(network.IPAMConfig{Subnet: "10.7.0.0/30", AuxAddress: map[string]string{"a": "10.7.0.2"}})),
		overlay("mtu", func(asked *network.CreateRequest) {
			asked.Options = map[string]string{optionMTU: "1400", "encrypted": "0"}
		}),
	} {
		body, err := json.Marshal(asked)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"Name":"n","Driver":"overlay","IPAM":{"Config":[{"Subnet":"255.255.255.0/24"},{"Subnet":"ffff::/16"}]},"EnableIPv6":true}`))
	f.Add([]byte(`{"Name":"lan","Driver":"macvlan","Scope":"swarm","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := newBench(t)
		b.createNetwork(overlay("first", subnets(network.IPAMConfig{Subnet: "10.0.0.0/24"})))
		before := b.view()
		got := b.do("POST", pathCreateNetwork, string(body))
		if got.status != 201 {
			if got.status < 400 || got.status >= 500 && got.status != 501 || b.view().Index() != before.Index() {
				t.Fatalf("%d %s, and something may have changed", got.status, got.body)
			}
			return
		}
		var made network.CreateResponse
		got.into(t, &made)
		n := b.view().Network(made.ID)
		if !n.Spans() { // Each engine makes it by itself, and gives its addresses.
			if len(n.Subnets) > 0 || n.VNI != 0 || n.Spec.Ingress || n.Spec.Attachable {
				t.Fatalf("%+v", n)
			}
			return
		}
		if len(n.Subnets) == 0 || len(n.Subnets) > 2 || !n.Subnets[0].Prefix.Addr().Is4() || (len(n.Subnets) == 2) != n.Spec.IPv6Enabled || n.VNI < cluster.FirstVNI || n.VNI > cluster.LastVNI {
			t.Fatalf("%+v", n)
		}
		hosts := address.Of(n)
		var given []cluster.Host
		for range min(hosts.Size(), 5) {
			host, ok := hosts.Choose(n.ID, func(h cluster.Host) bool { return slices.Contains(given, h) })
			if !ok {
				t.Fatalf("%d addresses of %d: %+v", len(given), hosts.Size(), n)
			}
			given = append(given, host)
			for i, addr := range n.Addrs(host) {
				s := n.Subnets[i]
				if !s.Prefix.Contains(addr) || addr == s.Gateway || s.Range.IsValid() && !s.Range.Contains(addr) {
					t.Fatalf("%s of %+v", addr, s)
				}
			}
		}
		if len(given) == 0 {
			t.Fatalf("no address to give: %+v", n)
		}
		for other := range b.view().Networks() {
			for _, s := range other.Subnets {
				for _, own := range n.Subnets {
					if other != n && own.Prefix.Overlaps(s.Prefix) || !own.Prefix.Contains(own.Gateway) {
						t.Fatalf("%+v beside %+v", n, other)
					}
				}
			}
		}
		b.do("GET", pathClusterNetworks+"/"+n.ID+"?verbose=1", nil).want(t, 200, n.ID)
	})
}
