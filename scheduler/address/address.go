package address

import (
	"slices"

	"skep/cluster"
)

// Range is the numbers that a network's addresses are given by: each stands for an address
// in each family that it has. The zero value has none.
type Range struct {
	// spans are what numbers are chosen from, in their order.
	spans []span
	// reserved are the numbers in them that nobody is given, in their order.
	reserved []cluster.Host
}

// span is the numbers from the first to the last.
type span struct{ first, last cluster.Host }

func (s span) has(n cluster.Host) bool { return s.first <= n && n <= s.last }

func (s span) size() int {
	if s.last < s.first {
		return 0
	}
	return int(s.last-s.first) + 1
}

// hostBits is at most how many bits of a subnet addresses are numbered by: as many as a
// cluster.Host has, but for the last.
const hostBits = 31

// Of is what a network gives addresses from: it has no size when the network has no subnet,
// or when the ranges of its subnets have no number in common.
func Of(n *cluster.Network) (r Range) {
	if len(n.Subnets) == 0 {
		return r
	}
	spans := []span{{1, 1<<hostBits - 1}}
	for _, s := range n.Subnets {
		var both []span
		for _, part := range s.Given() {
			own := bounds(s, part)
			for _, other := range spans {
				if common := (span{max(own.first, other.first), min(own.last, other.last)}); common.size() > 0 {
					both = append(both, common)
				}
			}
		}
		spans = both
	}
	r.spans = spans
	for _, s := range n.Subnets {
		for _, part := range s.Given() {
			r.reserve(s.Number(part.Gateway))
			for _, addr := range part.Aux {
				r.reserve(s.Number(addr))
			}
		}
	}
	slices.Sort(r.reserved)
	r.reserved = slices.Compact(r.reserved)
	return r
}

func (r *Range) reserve(n cluster.Host, ok bool) {
	if ok && slices.ContainsFunc(r.spans, func(s span) bool { return s.has(n) }) {
		r.reserved = append(r.reserved, n)
	}
}

// bounds are the numbers in a subnet that a part of it has for addresses. The part's first
// address stands for the part, and the last one of IPv4 for all of it.
func bounds(s, part cluster.Subnet) span {
	base, numbered := s.Number(part.Prefix.Masked().Addr())
	if !numbered {
		return span{1, 0}
	}
	bits := min(part.Prefix.Addr().BitLen()-part.Prefix.Bits(), hostBits)
	own := span{base + 1, base + cluster.Host(1)<<bits - 1}
	if part.Prefix.Addr().Is4() && own.last > base {
		own.last--
	}
	if !part.Range.IsValid() {
		return own
	}
	begin, inside := s.Number(part.Range.Masked().Addr())
	if !inside {
		return span{1, 0}
	}
	size := cluster.Host(1) << min(part.Range.Addr().BitLen()-part.Range.Bits(), hostBits)
	return span{max(own.first, begin), min(own.last, begin+(size-1))}
}

// Size is how many addresses can be given, used ones included.
func (r Range) Size() (size int) {
	for _, s := range r.spans {
		size += s.size()
	}
	return size - len(r.reserved)
}

// leaps is in how many places Choose looks before it goes from one number to the next: what one
// plan gives is many numbers in a row.
const leaps = 16

// Choose finds a number that isn't taken for the object of an ID; false when all are.
func (r Range) Choose(id string, taken func(cluster.Host) bool) (cluster.Host, bool) {
	for _, s := range r.spans { // none is empty
		begin, leap := start(id, s.size()), s.size()/leaps
		for i := range leaps + s.size() {
			at := begin + i
			if i < leaps {
				at = begin + i*leap
			}
			if n := s.first + cluster.Host(at%s.size()); r.has(n) && !taken(n) {
				return n, true
			}
		}
	}
	return 0, false
}

// has tells whether the range has a number for somebody.
func (r Range) has(n cluster.Host) bool {
	_, reserved := slices.BinarySearch(r.reserved, n)
	return !reserved && slices.ContainsFunc(r.spans, func(s span) bool { return s.has(n) })
}

// start is where the search for an object's own begins.
func start(id string, size int) int {
	h := uint64(14695981039346656037) // FNV-1a, without the memory that hash/fnv takes
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return int(h % uint64(size))
}
