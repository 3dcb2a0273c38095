package address_test

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/cluster"
	"skep/scheduler/address"
)

// network is one of the subnets in text: each a prefix, and behind it the words range=,
// gateway= and aux=.
func network(text string) *cluster.Network {
	n := &cluster.Network{ID: "n1", VNI: cluster.FirstVNI}
	for _, part := range strings.Split(text, ", ") {
		words := strings.Fields(part)
		s := cluster.Subnet{Prefix: netip.MustParsePrefix(words[0]), Aux: map[string]netip.Addr{}}
		for _, word := range words[1:] {
			switch key, value, _ := strings.Cut(word, "="); key {
			case "range":
				s.Range = netip.MustParsePrefix(value)
			case "gateway":
				s.Gateway = netip.MustParseAddr(value)
			default:
				s.Aux[value] = netip.MustParseAddr(value)
			}
		}
		n.Subnets = append(n.Subnets, s)
	}
	return n
}

func TestRange_Size(t *testing.T) {
	for text, want := range map[string]int{
		"10.0.0.0/24": 254, "10.0.0.0/29": 6, "10.0.0.0/30": 2, "10.0.0.0/16": 65534, "10.0.0.0/8": 1<<24 - 2, "fd00::/64": 1<<31 - 1,
		"10.0.0.0/24 range=10.0.0.0/28": 15, "10.0.0.0/24 range=10.0.0.16/28": 16, "10.0.0.0/24 range=10.0.0.240/28": 15,
		"10.0.0.0/24 range=10.1.0.0/28": 0, "10.0.0.0/31": 0, "10.0.0.0/32": 0, "fd00::/64 range=fd00::1:0:0:0/80": 0,
		"10.0.0.0/24 gateway=10.0.0.1": 253, "10.0.0.0/24 gateway=10.0.0.1 aux=10.0.0.7 aux=10.0.0.9": 251,
		"10.0.0.0/24 gateway=10.0.0.1 aux=10.0.0.1":                       253,
		"10.0.0.0/24 range=10.0.0.16/28 gateway=10.0.0.1 aux=10.0.0.20":   15,
		"10.0.0.0/24 gateway=10.0.0.1, fd00::/64 gateway=fd00::1":         253,
		"10.0.0.0/24 gateway=10.0.0.1, fd00::/64 gateway=fd00::2":         252,
		"10.0.0.0/24, fd00::/64 range=fd00::10/124":                       16,
		"10.0.0.0/24, fd00::/64 range=fd00::1:0/112":                      0,
		"10.0.0.0/24 gateway=10.0.0.1, fd00::/64 gateway=fd00::1:0:0:0:1": 253,
	} {
		if got := address.Of(network(text)).Size(); got != want {
			t.Errorf("%s has %d addresses, want %d", text, got, want)
		}
	}
	if got := address.Of(&cluster.Network{}).Size(); got != 0 {
		t.Errorf("a network without subnets has %d addresses", got)
	}
}

// TestRange_Choose hands addresses out and takes them back, at random: none has two owners,
// all are what the network says may be given, and all are handed out before one says that
// there is none.
func TestRange_Choose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw4 := rapid.Custom(func(t *rapid.T) netip.Addr { return netip.AddrFrom4([4]byte{10, 20, 30, rapid.Byte().Draw(t, "byte")}) })
		n := &cluster.Network{Subnets: []cluster.Subnet{{
			Prefix: netip.PrefixFrom(netip.MustParseAddr("10.20.30.0"), rapid.IntRange(24, 30).Draw(t, "bits")), Gateway: draw4.Draw(t, "gateway"),
			Aux: map[string]netip.Addr{"a": draw4.Draw(t, "aux")},
		}}}
		if rapid.Bool().Draw(t, "range") {
			n.Subnets[0].Range = netip.PrefixFrom(draw4.Draw(t, "from"), rapid.IntRange(n.Subnets[0].Prefix.Bits(), 32).Draw(t, "from bits")).Masked()
		}
		if rapid.Bool().Draw(t, "IPv6") {
			n.Subnets = append(n.Subnets, cluster.Subnet{
				Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1"), Aux: map[string]netip.Addr{"b": netip.MustParseAddr("fd00::5")},
				Range: netip.PrefixFrom(netip.MustParseAddr("fd00::"), rapid.IntRange(118, 126).Draw(t, "bits of IPv6")),
			})
		}
		r, owners := address.Of(n), map[cluster.Host]string{}
		for _, id := range rapid.SliceOfN(rapid.StringN(1, 25, 25), 1, 300).Draw(t, "ids") {
			h, ok := r.Choose(id, func(n cluster.Host) bool { return owners[n] != "" })
			if !ok {
				if len(owners) != r.Size() {
					t.Fatalf("no address, and %d of %d are in use", len(owners), r.Size())
				}
				clear(owners)
				continue
			}
			if owners[h] != "" {
				t.Fatalf("%d has two owners", h)
			}
			owners[h] = id
			for _, s := range n.Subnets {
				addr := s.Addr(h)
				if !s.Prefix.Contains(addr) || s.Range.IsValid() && !s.Range.Contains(addr) || addr == s.Prefix.Addr() || addr == s.Gateway || slices.Contains(slices.Collect(maps.Values(s.Aux)), addr) {
					t.Fatalf("%s isn't one of %v", addr, s)
				}
				if back, ok := s.Number(addr); !ok || back != h {
					t.Fatalf("%s is number %d, %v, want %d", addr, back, ok, h)
				}
			}
		}
	})
}

// A task that comes in the place of another doesn't get its address while there are others.
func TestRange_FreedAddressesRest(t *testing.T) {
	r, again := address.Of(network("10.0.0.0/24 gateway=10.0.0.1")), 0
	var before cluster.Host
	for i := range 1000 {
		n, _ := r.Choose(strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("y", i%11), func(cluster.Host) bool { return false })
		if n == before {
			again++
		}
		before = n
	}
	if again > 20 {
		t.Errorf("%d of 1000 got the address of the one before", again)
	}
}

func TestAddr_OfIPv6(t *testing.T) {
	subnet := netip.MustParsePrefix("fd00:1:2:3::/64")
	if got := (cluster.Subnet{Prefix: subnet}).Addr(300); got != netip.MustParseAddr("fd00:1:2:3::12c") {
		t.Error(got)
	}
	if _, ok := (cluster.Subnet{Prefix: subnet}).Number(netip.MustParseAddr("fd00:1:2:3:1::")); ok {
		t.Error("an address that nobody is given has a number")
	}
	if _, ok := (cluster.Subnet{Prefix: subnet}).Number(netip.MustParseAddr("10.0.0.1")); ok {
		t.Error("an address of another family has a number")
	}
}

// TestSubnet_IsFreeAndTheFirst compares with a search that tries each subnet.
func TestSubnet_IsFreeAndTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := address.Pools{Bits: rapid.IntRange(26, 29).Draw(t, "bits"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25"), netip.MustParsePrefix("10.0.1.0/26")}}
		used := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, rapid.Byte().Draw(t, "c") % 2, rapid.Byte().Draw(t, "d")}), rapid.IntRange(23, 32).Draw(t, "length"))
		}), 0, 6).Draw(t, "used")
		want := netip.Prefix{}
		for _, pool := range pools.Prefixes {
			for at := pool.Addr(); pool.Contains(at) && !want.IsValid(); at = at.Next() {
				if subnet := netip.PrefixFrom(at, pools.Bits); subnet == subnet.Masked() && !slices.ContainsFunc(used, subnet.Overlaps) {
					want = subnet
				}
			}
		}
		got, err := pools.Subnet(used)
		if got != want || (err != nil) == want.IsValid() {
			t.Fatalf("%v, %v, want %v", got, err, want)
		}
	})
	_, err := address.Pools{Bits: 24, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}.Subnet([]netip.Prefix{netip.MustParsePrefix("10.0.0.128/25")})
	if !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), "--subnet") {
		t.Errorf("of a pool in use: %v", err)
	}
	// The end of all addresses isn't the beginning of a loop.
	if _, err := (address.Pools{Bits: 29, Prefixes: []netip.Prefix{netip.MustParsePrefix("255.255.255.0/24")}}).Subnet([]netip.Prefix{netip.MustParsePrefix("255.255.255.0/24")}); err == nil {
		t.Error("a subnet behind the last address")
	}
}

func TestPools_Check(t *testing.T) {
	for pools, says := range map[string]string{
		"10.0.0.0/8": "", "10.0.0.0/24": "", "10.0.0.0/8 172.16.0.0/12": "", "10.0.0.1/8": "want 10.0.0.0/8", "10.0.0.0/25": "must be from 25",
		"10.0.0.0/8 10.1.0.0/16": "overlaps", "fd00::/16": "--ipv6",
	} {
		p := address.Pools{Bits: 24}
		for _, word := range strings.Fields(pools) {
			p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(word))
		}
		if err := p.Check(); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", pools, err, says)
		}
	}
}

func TestVNI_AndPort(t *testing.T) {
	used := map[uint32]bool{}
	for i := range 2000 {
		vni, ok := address.VNI(strings.Repeat("n", i%25)+string(rune(i)), func(v uint32) bool { return used[v] })
		if !ok || used[vni] || vni <= 4096 || vni > 65535 {
			t.Fatalf("VNI %d, %v", vni, ok)
		}
		used[vni] = true
	}
	if _, ok := address.VNI("n", func(uint32) bool { return true }); ok {
		t.Error("a VNI when all are taken")
	}
	if port, ok := address.Port(func(p uint16) bool { return p < 30005 }); !ok || port != 30005 {
		t.Errorf("port %d, %v", port, ok)
	}
	if _, ok := address.Port(func(uint16) bool { return true }); ok {
		t.Error("a port when all are taken")
	}
}
