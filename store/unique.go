package store

import (
	"iter"
	"math"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Holder is an object that has a cluster.Unique.
type Holder struct {
	// Kind is what users call objects of the kind: "task", "service".
	Kind string
	ID   string
}

// owner is a Holder in short: there is one for each number.
type owner struct {
	kind kindNumber
	key  string
}

func (o owner) holder() Holder { return Holder{kinds[o.kind-1].wordOf(), o.key} }

// renumber gives after its numbers and frees those that only before had; either may be nil. When another object has
// one of them, it says which and who, and changes nothing.
func (s *state) renumber(n kindNumber, before, after any) (u cluster.Unique, other owner, taken bool) {
	k := kinds[n-1]
	had, has := k.uniquesOf(before), k.uniquesOf(after)
	if slices.Equal(had, has) {
		return 0, other, false
	}
	free := func(list, kept []cluster.Unique) {
		for _, u := range list {
			if !slices.Contains(kept, u) {
				s.uniques.Delete(u)
			}
		}
	}
	for i, u := range has {
		if slices.Contains(had, u) {
			continue
		}
		me := owner{n, k.keyOf(after)}
		if other, taken = s.uniques.Set(u, me); taken && other != me {
			s.uniques.Set(u, other)
			free(has[:i], had)
			return u, other, true
		}
	}
	free(had, has)
	return 0, other, false
}

// Holder finds the object that has a number.
func (v View) Holder(u cluster.Unique) (Holder, bool) {
	o, held := v.s.uniques.Get(u)
	if !held {
		return Holder{}, false
	}
	return o.holder(), true
}

// TasksOfNetwork lists the tasks that have an address in the network with a VXLAN identifier, in
// the order of addresses; ended ones too, as long as they have it.
func (v View) TasksOfNetwork(vni uint32) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		v.owners(addressesOf(vni), func(_ cluster.Unique, o owner) bool {
			return o.kind != tasks.number || yield(v.Task(o.key))
		})
	}
}

// Publishes tells whether a service publishes ports on all nodes, or anybody has an address in the
// network by which these are carried.
func (v View) Publishes(ingress *cluster.Network) bool {
	ports := between{cluster.UniquePort(swarm.PortConfigProtocolTCP, 0), cluster.UniquePort(swarm.PortConfigProtocolSCTP, math.MaxUint16)}
	none := func(cluster.Unique, owner) bool { return false }
	return !v.owners(addressesOf(ingress.VNI), none) || !v.owners(ports, none)
}

// AddressesIn is how many addresses of a network are in use.
func (v View) AddressesIn(vni uint32) (n int) {
	v.owners(addressesOf(vni), func(cluster.Unique, owner) bool {
		n++
		return true
	})
	return n
}

// AddressHolders lists who has an address of a network, and which, in the order of addresses.
func (v View) AddressHolders(vni uint32) iter.Seq2[cluster.Host, Holder] {
	return func(yield func(cluster.Host, Holder) bool) {
		v.owners(addressesOf(vni), func(u cluster.Unique, o owner) bool {
			a, _ := u.Address()
			return yield(a.Host, o.holder())
		})
	}
}

// between are the numbers from one to another, both included.
type between struct{ from, to cluster.Unique }

func addressesOf(vni uint32) between {
	return between{cluster.UniqueAddress(cluster.Address{VNI: vni}), cluster.UniqueAddress(cluster.Address{VNI: vni + 1}) - 1}
}

// owners gives numbers with who has them, in their order; it tells whether all were wanted.
func (v View) owners(of between, yield func(cluster.Unique, owner) bool) bool {
	more := true
	v.s.uniques.Ascend(of.from, func(u cluster.Unique, o owner) bool {
		more = u > of.to || yield(u, o)
		return u <= of.to && more
	})
	return more
}
