package address

import (
	"fmt"
	"net/netip"
	"slices"

	"skep/cluster"
)

// Pools are what subnets of networks are cut from.
type Pools struct {
	// Prefixes are the pools, in the order in which they are used.
	Prefixes []netip.Prefix
	// Bits is the length of the subnets' prefixes.
	Bits int
}

// Check tells why no subnets can be cut from the pools.
func (p Pools) Check() error {
	for i, pool := range p.Prefixes {
		switch {
		case !pool.IsValid() || pool != pool.Masked():
			return cluster.Errorf(cluster.ErrInvalid, "address pool %s: it isn't the address of a network: want %s", pool, pool.Masked())
		case !pool.Addr().Is4():
			return cluster.Errorf(cluster.ErrInvalid, "address pool %s: pools are of IPv4; a network gets an IPv6 subnet with --ipv6", pool)
		case p.Bits < pool.Bits() || p.Bits > 29:
			return cluster.Errorf(cluster.ErrInvalid, "address pool %s: its mask length %d must be from %d, the pool's, to 29, which leaves room for five addresses", pool, p.Bits, pool.Bits())
		}
		for _, other := range p.Prefixes[:i] {
			if pool.Overlaps(other) {
				return cluster.Errorf(cluster.ErrInvalid, "address pool %s: it overlaps the pool %s", pool, other)
			}
		}
	}
	return nil
}

// Subnet finds the first subnet that overlaps none of used: networks of the cluster, and what the
// nodes have.
func (p Pools) Subnet(used []netip.Prefix) (netip.Prefix, error) {
	used = slices.Clone(used)
	for i, u := range used {
		used[i] = u.Masked()
	}
	slices.SortFunc(used, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for _, pool := range p.Prefixes {
		for at := pool.Addr(); at.IsValid() && pool.Contains(at); {
			subnet := netip.PrefixFrom(at, p.Bits)
			i := slices.IndexFunc(used, subnet.Overlaps)
			if i < 0 {
				return subnet, nil
			}
			// On to the first subnet behind both.
			at = last(subnet).Next()
			if end := last(used[i]).Next(); end.Compare(at) > 0 {
				at = netip.PrefixFrom(end, p.Bits).Masked().Addr()
				if at.Compare(end) < 0 {
					at = last(netip.PrefixFrom(end, p.Bits).Masked()).Next()
				}
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose a subnet: %w", cluster.Errorf(cluster.ErrInvalid,
		"no subnet of %d bits is free in the address pools %v: remove networks, or give one with --subnet", p.Bits, p.Prefixes))
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := range b {
		if keep := bits - 8*i; keep < 8 {
			b[i] |= 0xff >> max(keep, 0)
		}
	}
	addr := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return addr.Unmap()
	}
	return addr
}

const (
	// firstVNI is the first VXLAN identifier: Docker Swarm's begin one before it, and may be on
	// the same machines.
	firstVNI = 4097
	// vnis is how many there are: those of 16 bits, since the MACs of bridges have room for them.
	vnis = 1<<16 - firstVNI
)

// VNI finds an identifier that isn't taken for the network of an ID; false when all are.
func VNI(id string, taken func(uint32) bool) (uint32, bool) {
	for i, begin := 0, start(id, vnis); i < vnis; i++ {
		if vni := uint32(firstVNI + (begin+i)%vnis); !taken(vni) {
			return vni, true
		}
	}
	return 0, false
}

// The ports that are given to those who don't say which to publish, as Docker Swarm has them.
const (
	FirstDynamicPort = 30000
	LastDynamicPort  = 32767
)

// Port finds the first dynamic port that isn't taken; false when all are.
func Port(taken func(uint16) bool) (uint16, bool) {
	for port := uint16(FirstDynamicPort); port <= LastDynamicPort; port++ {
		if !taken(port) {
			return port, true
		}
	}
	return 0, false
}
