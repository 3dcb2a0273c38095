package address_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"skep/cluster"
	"skep/scheduler/address"
)

// TestRange_OfSeveralSubnets: each has a gateway, the second gives addresses when the first has none
// any more, and what is between them is given to nobody.
func TestRange_OfSeveralSubnets(t *testing.T) {
	w := address.Neighbours{VNITaken: func(uint32) bool { return false }}
	n := network("10.9.3.0/29 aux=10.9.3.6, 10.9.1.0/28 range=10.9.1.8/30 gateway=10.9.1.9, 10.9.6.0/30, fd09::/64")
	n.Spec.IPv6Enabled = true
	if err := w.Complete(n); err != nil {
		t.Fatal(err)
	}
	if len(n.Subnets) != 2 || n.Subnets[0].Prefix.String() != "10.9.0.0/21" || n.Subnets[0].Gateway.String() != "10.9.3.1" || n.Subnets[1].Prefix.String() != "fd09::/64" {
		t.Fatalf("subnets %+v", n.Subnets)
	}
	for i, want := range []string{"10.9.3.1", "10.9.1.9", "10.9.6.1"} {
		if got := n.Subnets[0].Parts[i].Gateway.String(); got != want {
			t.Errorf("gateway %d is %s, want %s", i, got, want)
		}
	}
	r := address.Of(n)
	var given []string
	taken := map[cluster.Host]bool{}
	for i := range 20 {
		host, ok := r.Choose(fmt.Sprint("task", i), func(h cluster.Host) bool { return taken[h] })
		if !ok {
			break
		}
		taken[host] = true
		addrs := n.Addrs(host)
		given = append(given, addrs[0].String())
		if back, inside := n.Subnets[1].Number(addrs[1]); !inside || back != host {
			t.Errorf("%s is %s, too", addrs[0], addrs[1])
		}
	}
	want := [][]string{{"10.9.3.2", "10.9.3.3", "10.9.3.4", "10.9.3.5"}, {"10.9.1.10", "10.9.1.11", "10.9.1.8"}, {"10.9.6.2"}}
	if len(given) != 8 || r.Size() != 8 {
		t.Fatalf("%d addresses were given, of %d: %q", len(given), r.Size(), given)
	}
	for _, part := range want {
		got := slices.Clone(given[:len(part)])
		if slices.Sort(got); !slices.Equal(got, part) {
			t.Errorf("given %q, want %q", got, part)
		}
		given = given[len(part):]
	}
	if _, _, err := address.ForAttachment(viewOf(t, n), n, "a", netip.MustParseAddr("10.9.2.5"), 0); err == nil {
		t.Error("an address between the subnets was given to somebody who asked for it")
	}
}
