package address

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// Host is the number of an address in its subnet: 1 for 10.0.1.1 in 10.0.1.0/24.
type Host uint32

// Range is what addresses of a subnet are taken from.
type Range struct {
	// Subnet is the whole.
	Subnet netip.Prefix
	// From is the part of it that is handed out; the zero value means all.
	From netip.Prefix
}

// hostBits is at most how many bits of a subnet addresses are numbered by: as many as a Host has, but for the
// last.
const hostBits = 31

// bounds are the first and the last number that are handed out. The first address of a subnet stands for the
// subnet, and the last one of IPv4 for all of it.
func (r Range) bounds() (first, last Host) {
	bits := r.Subnet.Addr().BitLen() - r.Subnet.Bits()
	whole := Host(1)<<min(bits, hostBits) - 1
	first, last = 1, whole
	if r.Subnet.Addr().Is4() && last > 0 {
		last--
	}
	if r.From.IsValid() {
		begin, inside := Number(r.Subnet, r.From.Masked().Addr())
		if !inside {
			return 1, 0
		}
		end := begin + Host(1)<<min(r.From.Addr().BitLen()-r.From.Bits(), hostBits) - 1
		first, last = max(first, begin), min(last, end)
	}
	return first, last
}

// Size is how many addresses there are, used ones and the gateway's included.
func (r Range) Size() int {
	first, last := r.bounds()
	if last < first {
		return 0
	}
	return int(last-first) + 1
}

// Choose finds a number that isn't taken for the object of an ID; false when all are.
func (r Range) Choose(id string, taken func(Host) bool) (Host, bool) {
	size := r.Size()
	first, _ := r.bounds()
	for i, begin := 0, start(id, size); i < size; i++ {
		if n := first + Host((begin+i)%size); !taken(n) {
			return n, true
		}
	}
	return 0, false
}

// start is where the search for an object's own begins.
func start(id string, size int) int {
	if size == 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(id))
	return int(h.Sum64() % uint64(size))
}

// Addr is the address of a number. Number is the other way round; false for what isn't in
// the subnet or has no number.
func Addr(subnet netip.Prefix, n Host) netip.Addr {
	b := subnet.Masked().Addr().As16()
	low := binary.BigEndian.Uint32(b[12:])
	binary.BigEndian.PutUint32(b[12:], low|uint32(n))
	addr := netip.AddrFrom16(b)
	if subnet.Addr().Is4() {
		return addr.Unmap()
	}
	return addr
}

// Number is the number of an address in its subnet.
func Number(subnet netip.Prefix, addr netip.Addr) (Host, bool) {
	if !subnet.Contains(addr) {
		return 0, false
	}
	base, b := subnet.Masked().Addr().As16(), addr.As16()
	for i := range 12 {
		if b[i] != base[i] {
			return 0, false // of a subnet of IPv6, far behind its first addresses
		}
	}
	n := binary.BigEndian.Uint32(b[12:]) &^ binary.BigEndian.Uint32(base[12:])
	return Host(n), n>>hostBits == 0
}
