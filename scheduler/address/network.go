package address

import (
	"crypto/sha256"
	"net/netip"
	"slices"

	"skep/cluster"
)

// Neighbours are what a new network must fit in with.
type Neighbours struct {
	Settings cluster.NetworkSettings
	// Used are ranges of addresses that it must not overlap.
	Used []Use
	// Avoided are others that a subnet that isn't asked for keeps off, if it can: what the nodes use.
	Avoided []cluster.AddressUse
	// VNITaken tells of an identifier that another network has.
	VNITaken func(vni uint32) bool
}

// Use is a range of addresses, and who has it, as a user would say it: "network web".
type Use struct {
	Prefix netip.Prefix
	By     string
}

const (
	// The longest prefixes have room for a gateway and a task, the shortest of IPv4 is the
	// default pool.
	longestSubnet4, shortestSubnet4 = 30, 8
	// A subnet of IPv6 must hold as many addresses as a usual one of IPv4 does.
	longestSubnet6, shortestSubnet6 = 120, 16
)

// unusable are ranges that no container can have an address in.
var unusable = []Use{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified address"}, {netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"}, {netip.MustParsePrefix("224.0.0.0/3"), "multicast and reserved addresses"},
	{netip.MustParsePrefix("::/16"), "loopback and addresses that stand for IPv4"}, {netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// Complete gives a network that spans nodes what its user left open: its VXLAN identifier,
// subnets (one of IPv4, from the pools, and with IPv6Enabled a unique local one of IPv6) and
// their gateways. It refuses Subnets that make no sense or that somebody else has. What it
// chooses hangs on the network's ID and on the neighbours alone.
func (w Neighbours) Complete(n *cluster.Network) error {
	var ok bool
	if n.VNI, ok = VNI(n.ID, w.VNITaken); !ok {
		return cluster.Errorf(cluster.ErrPrecondition, "all %d VXLAN identifiers are in use: remove networks that nobody needs", vnis)
	}
	var four, six []cluster.Subnet
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is4() {
			four = append(four, s)
		} else {
			six = append(six, s)
		}
	}
	n.Subnets = nil
	switch {
	case len(six) > 1:
		return cluster.Errorf(cluster.ErrUnsupported, "several subnets of IPv6: a network has one: give one that is large enough, such as a /64")
	case len(six) > 0 && !n.Spec.IPv6Enabled:
		return cluster.Errorf(cluster.ErrInvalid, "subnet %s: a network has addresses of IPv6 only with --ipv6: add it", six[0].Prefix)
	case len(four) == 0:
		prefix, err := w.fromPools()
		if err != nil {
			return err
		}
		four = []cluster.Subnet{{Prefix: prefix}}
	}
	if n.Spec.IPv6Enabled && len(six) == 0 {
		six = []cluster.Subnet{{Prefix: w.local6(n.ID)}}
	}
	for i := range four {
		if err := w.check(&four[i]); err != nil {
			return err
		}
	}
	whole, err := w.cover(four)
	if err != nil {
		return err
	}
	n.Subnets = []cluster.Subnet{whole}
	if len(six) > 0 {
		if err := w.check(&six[0]); err != nil {
			return err
		}
		n.Subnets = append(n.Subnets, six[0])
	}
	if Of(n).Size() < 1 {
		return cluster.Errorf(cluster.ErrInvalid, "subnets of network %s: no address is left for tasks: give larger ones, or larger ranges; a task has the same number in the subnet of IPv4 and in that of IPv6", n.Spec.Name)
	}
	return nil
}

// fromPools is a subnet of the cluster's pools that keeps off all that nodes use; where that leaves
// none, off what it couldn't be beside of; and else off what it can't overlap at all, so that some nodes
// don't have the network.
func (w Neighbours) fromPools() (prefix netip.Prefix, err error) {
	pools, used := Pools{w.Settings.Pools, w.Settings.SubnetBits}, prefixes(w.Used)
	for _, wide := range []bool{true, false} {
		avoided := slices.Clone(used)
		for _, u := range w.Avoided {
			if wide || u.Engine || u.Prefix.Bits() >= pools.Bits {
				avoided = append(avoided, u.Prefix)
			}
		}
		if prefix, err = pools.Subnet(avoided); err == nil {
			return prefix, nil
		}
	}
	return pools.Subnet(used)
}

// maxParts is how many subnets of IPv4 a network has at most: bridges answer at a gateway of each.
const maxParts = 64

// cover is the one subnet that several are to nodes: the smallest that has them all. Engines have
// one for a network, and containers see what is in theirs without asking the gateway.
func (w Neighbours) cover(parts []cluster.Subnet) (cluster.Subnet, error) {
	whole := parts[0]
	if len(parts) == 1 {
		return whole, nil
	}
	if len(parts) > maxParts {
		return whole, cluster.Errorf(cluster.ErrInvalid, "%d subnets of IPv4: a network has %d at most", len(parts), maxParts)
	}
	whole = cluster.Subnet{Prefix: whole.Prefix, Gateway: whole.Gateway, Parts: parts}
	for i, part := range parts {
		for _, other := range parts[:i] {
			if part.Prefix.Overlaps(other.Prefix) {
				return whole, cluster.Errorf(cluster.ErrInvalid, "subnets %s and %s of one network overlap", other.Prefix, part.Prefix)
			}
		}
		for !whole.Prefix.Contains(part.Prefix.Addr()) || whole.Prefix.Bits() > part.Prefix.Bits() {
			whole.Prefix = netip.PrefixFrom(whole.Prefix.Addr(), whole.Prefix.Bits()-1).Masked()
		}
	}
	check := whole
	if err := w.check(&check); err != nil {
		return whole, cluster.Errorf(err, "several subnets of IPv4 are one to nodes, here %s: %v; give some that are closer together, such as 10.9.0.0/24 and 10.9.1.0/24, or one that is large enough", whole.Prefix, err)
	}
	return whole, nil
}

func prefixes(used []Use) []netip.Prefix {
	list := make([]netip.Prefix, len(used))
	for i, u := range used {
		list[i] = u.Prefix
	}
	return list
}

// local6 is a unique local /64 (RFC 4193) that nobody of the neighbours has: 56 bits behind
// the fd are from the digest of an ID.
func (w Neighbours) local6(id string) netip.Prefix {
	for digest := sha256.Sum256([]byte(id)); ; digest = sha256.Sum256(digest[:]) {
		b := [16]byte{0: 0xfd}
		copy(b[1:8], digest[:])
		prefix := netip.PrefixFrom(netip.AddrFrom16(b), 64)
		if !slices.ContainsFunc(w.Used, func(u Use) bool { return u.Prefix.Overlaps(prefix) }) {
			return prefix
		}
	}
}

// check refuses a subnet that can't be, and gives it a gateway if it has none.
func (w Neighbours) check(s *cluster.Subnet) error {
	p := s.Prefix
	if !p.IsValid() || p != p.Masked() {
		return cluster.Errorf(cluster.ErrInvalid, "invalid subnet %s: it should be %s", p, p.Masked())
	}
	longest, shortest := longestSubnet6, shortestSubnet6
	if p.Addr().Is4() {
		longest, shortest = longestSubnet4, shortestSubnet4
	}
	if p.Bits() < shortest || p.Bits() > longest {
		return cluster.Errorf(cluster.ErrInvalid, "invalid subnet %s: the length of its prefix must be from %d to %d", p, shortest, longest)
	}
	for _, u := range unusable {
		if u.Prefix.Overlaps(p) {
			return cluster.Errorf(cluster.ErrInvalid, "invalid subnet %s: %s is for %s", p, u.Prefix, u.By)
		}
	}
	for _, u := range w.Used {
		if u.Prefix.Overlaps(p) {
			return cluster.Errorf(cluster.ErrPrecondition, "invalid pool request: Pool overlaps with other one on this address space: subnet %s overlaps %s of %s: choose another, or give none to get a free one", p, u.Prefix, u.By)
		}
	}
	if r := s.Range; r.IsValid() && (r != r.Masked() || r.Bits() < p.Bits() || !p.Overlaps(r)) {
		return cluster.Errorf(cluster.ErrInvalid, "invalid ip-range %s: it must be a range within the subnet %s, such as %s", r, p, netip.PrefixFrom(p.Addr(), min(p.Bits()+1, p.Addr().BitLen())))
	}
	for name, addr := range s.Aux {
		if !usable(*s, addr) {
			return cluster.Errorf(cluster.ErrInvalid, "invalid auxiliary address %s: %s isn't an address for hosts in subnet %s", name, addr, p)
		}
	}
	if !s.Gateway.IsValid() {
		s.Gateway = firstFree(*s)
	}
	switch aux := nameOf(s.Aux, s.Gateway); {
	case !usable(*s, s.Gateway):
		return cluster.Errorf(cluster.ErrInvalid, "invalid gateway %s: it isn't an address for hosts in subnet %s", s.Gateway, p)
	case aux != "":
		return cluster.Errorf(cluster.ErrInvalid, "invalid gateway %s: it is the auxiliary address %s, too", s.Gateway, aux)
	}
	return nil
}

// usable tells whether an address of a subnet can be a host's.
func usable(s cluster.Subnet, addr netip.Addr) bool {
	return s.Prefix.Contains(addr) && addr != s.Prefix.Addr() && (addr.Is6() || addr != last(s.Prefix))
}

// firstFree is the first address of a subnet that isn't an auxiliary one. There are fewer of
// these than a subnet has addresses, or it is the last.
func firstFree(s cluster.Subnet) netip.Addr {
	addr := s.Addr(1)
	for nameOf(s.Aux, addr) != "" && usable(s, addr.Next()) {
		addr = addr.Next()
	}
	return addr
}

func nameOf(aux map[string]netip.Addr, addr netip.Addr) string {
	for name, a := range aux {
		if a == addr {
			return name
		}
	}
	return ""
}
