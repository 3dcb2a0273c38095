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
		at := pool.Addr()
		for _, u := range used {
			if last(u).Compare(at) < 0 || u.Addr().Is4() != at.Is4() {
				continue
			}
			if u.Addr().Compare(last(netip.PrefixFrom(at, p.Bits))) > 0 {
				break // and so are all that follow
			}
			// On to the first subnet behind it.
			end := last(u).Next()
			if at = netip.PrefixFrom(end, p.Bits).Masked().Addr(); at.Compare(end) < 0 {
				at = last(netip.PrefixFrom(end, p.Bits).Masked()).Next()
			}
			if !at.IsValid() || !pool.Contains(at) {
				break
			}
		}
		if at.IsValid() && pool.Contains(at) {
			return netip.PrefixFrom(at, p.Bits), nil
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
	firstVNI = cluster.FirstVNI
	// vnis is how many there are: those of 16 bits, since the MACs of bridges have room for them.
	vnis = cluster.LastVNI + 1 - firstVNI
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
