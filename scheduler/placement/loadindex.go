package placement

import (
	"cmp"
	"math/bits"
	"slices"
)

// bitset is a set of nodes by their index. Its second level, a bit for each word
// that isn't empty, makes a few nodes among thousands quick to find.
type bitset struct{ words, filled []uint64 }

func newBitset(size int) bitset {
	words := (size + 63) / 64
	return bitset{words: make([]uint64, words), filled: make([]uint64, (words+63)/64)}
}

func (b bitset) set(i int32) {
	b.words[i/64] |= 1 << (i % 64)
	b.filled[i/4096] |= 1 << (i / 64 % 64)
}

func (b bitset) clear(i int32) {
	b.words[i/64] &^= 1 << (i % 64)
	if b.words[i/64] == 0 {
		b.filled[i/4096] &^= 1 << (i / 64 % 64)
	}
}

// both calls visit with what is in both sets, the lowest index first, until it
// returns false, which both then returns as well.
func (b bitset) both(other bitset, visit func(i int32) bool) bool {
	for f, filled := range b.filled {
		for ; filled != 0; filled &= filled - 1 {
			at := f*64 + bits.TrailingZeros64(filled)
			for word := b.words[at] & other.words[at]; word != 0; word &= word - 1 {
				if !visit(int32(at*64 + bits.TrailingZeros64(word))) {
					return false
				}
			}
		}
	}
	return true
}

// loadIndex has the nodes that take new tasks, by how many tasks they have. To find
// the eligible ones among them takes a few instructions for 64 nodes.
type loadIndex struct {
	size    int
	buckets []*bucket // the fewest tasks first; none is empty
	spare   []*bucket
}

// bucket is the nodes with so many tasks.
type bucket struct {
	tasks, count int
	nodes        bitset
}

func (o *loadIndex) find(tasks int) (int, bool) {
	return slices.BinarySearchFunc(o.buckets, tasks, func(b *bucket, tasks int) int { return cmp.Compare(b.tasks, tasks) })
}

func (o *loadIndex) add(i int32, tasks int) {
	at, found := o.find(tasks)
	if !found {
		var b *bucket
		if last := len(o.spare) - 1; last >= 0 {
			b, o.spare = o.spare[last], o.spare[:last]
		} else {
			b = &bucket{nodes: newBitset(o.size)}
		}
		b.tasks = tasks
		o.buckets = slices.Insert(o.buckets, at, b)
	}
	o.buckets[at].nodes.set(i)
	o.buckets[at].count++
}

func (o *loadIndex) remove(i int32, tasks int) {
	at, _ := o.find(tasks)
	b := o.buckets[at]
	b.nodes.clear(i)
	if b.count--; b.count == 0 {
		o.buckets = slices.Delete(o.buckets, at, at+1)
		o.spare = append(o.spare, b)
	}
}

// scan calls visit with the nodes of a set, those with the fewest tasks first and
// of these the lowest index, until it returns false. The index must not change
// meanwhile.
func (o *loadIndex) scan(among bitset, visit func(i int32) bool) {
	for _, b := range o.buckets {
		if !b.nodes.both(among, visit) {
			return
		}
	}
}
