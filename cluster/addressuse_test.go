package cluster

import (
	"net/netip"
	"testing"
)

func TestClash(t *testing.T) {
	prefix := netip.MustParsePrefix
	n := &Network{ID: "web", Subnets: []Subnet{{Prefix: prefix("10.0.1.0/24")}, {Prefix: prefix("fd01::/64")}}}
	for _, c := range []struct {
		use  AddressUse
		want string
	}{
		{AddressUse{Prefix: prefix("10.0.2.0/24"), Engine: true}, ""},
		{AddressUse{Prefix: prefix("10.0.0.0/16"), By: "a", Engine: true}, "its subnet 10.0.1.0/24 overlaps 10.0.0.0/16, which a has here"},
		{AddressUse{Prefix: prefix("10.0.1.128/25"), By: "a", Engine: true}, "its subnet 10.0.1.0/24 overlaps 10.0.1.128/25, which a has here"},
		{AddressUse{Prefix: prefix("10.0.1.0/24"), By: "a", Engine: true, NetworkID: "web"}, ""},
		{AddressUse{Prefix: prefix("10.0.1.0/24"), By: "a", Engine: true, NetworkID: "gone"}, "its subnet 10.0.1.0/24 overlaps 10.0.1.0/24, which a has here"},
		// A route that is wider leads elsewhere only what the network's own doesn't have.
		{AddressUse{Prefix: prefix("10.0.0.0/8"), By: "eth0"}, ""},
		{AddressUse{Prefix: prefix("10.0.1.0/24"), By: "eth0"}, "its subnet 10.0.1.0/24 overlaps 10.0.1.0/24, which eth0 has here"},
		{AddressUse{Prefix: prefix("10.0.1.7/32"), By: "eth0"}, "its subnet 10.0.1.0/24 overlaps 10.0.1.7/32, which eth0 has here"},
		{AddressUse{Prefix: prefix("fd01::/80"), By: "eth0"}, "its subnet fd01::/64 overlaps fd01::/80, which eth0 has here"},
	} {
		if got := n.Clash([]AddressUse{c.use}); got != c.want {
			t.Errorf("%+v: %q, want %q", c.use, got, c.want)
		}
	}
}
