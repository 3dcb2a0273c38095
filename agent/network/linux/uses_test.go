package linux_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"skep/agent/network"
	"skep/cluster"
)

// TestAddressUses_OfTheMachine: its own addresses and where its routes lead. What is a network's is
// told as its; virtual IPs, the way to everything else and loopback aren't told.
func TestAddressUses_OfTheMachine(t *testing.T) {
	plane := kernel(t)
	for _, args := range [][]string{
		{"link", "add", "lan0", "type", "veth", "peer", "name", "lan1"}, {"link", "set", "lan1", "up"}, {"link", "set", "lan0", "up"}, {"addr", "add", "10.61.0.5/16", "dev", "lan0"}, {"addr", "add", "fd61::5/64", "dev", "lan0"},
		{"route", "add", "10.62.0.0/24", "via", "10.61.0.1"}, {"route", "add", "default", "via", "10.61.0.1"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	defer func() { _ = exec.Command("ip", "link", "delete", "lan0").Run() }()
	w := &network.Wanted{
		Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("10.61.0.5")}, DataPort: 4789, MTU: 1500, Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		Networks: []network.Network{{ID: "web", VNI: 4100, MTU: 1450,
			Subnets:  []network.Subnet{{Prefix: netip.MustParsePrefix("10.63.0.0/24"), Gateway: netip.MustParseAddr("10.63.0.1")}, {Prefix: netip.MustParsePrefix("fd63::/64"), Gateway: netip.MustParseAddr("fd63::1")}},
			Services: []network.Service{{VIP: netip.MustParseAddr("10.63.0.9")}, {VIP: netip.MustParseAddr("fd63::9")}}}},
	}
	settle(t, t.Context(), plane, w)
	defer settle(t, context.Background(), plane, &network.Wanted{Cluster: "c"})
	uses, err := plane.AddressUses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range cluster.SortAddressUses(uses) {
		got = append(got, fmt.Sprintf("%s %s %s", u.Prefix, u.By, u.NetworkID))
	}
	want := []string{
		"10.61.0.0/16 interface lan0 ", "10.61.0.5/32 interface lan0 ", "10.62.0.0/24 the route by lan0 ", "10.63.0.0/24 interface skb1004 web",
		"fd61::/64 interface lan0 ", "fd61::5/128 interface lan0 ", "fd63::/64 interface skb1004 web",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
