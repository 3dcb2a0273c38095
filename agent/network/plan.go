package network

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Step is one change of the kernel's objects.
type Step struct {
	Do     Verb
	Object Object
	// Was is the object that a Replace has the place of.
	Was Object
}

// Verb is what a step does.
type Verb uint8

// The verbs. Replace changes an object in place where the kernel can, and is one
// transaction where it is nftables'.
const (
	Add Verb = iota
	Replace
	Remove
)

func (v Verb) String() string { return [...]string{"add", "replace", "remove"}[v] }

func (s Step) String() string {
	if s.Do == Replace {
		return "replace " + s.Object.String() + "  # was " + s.Was.String()
	}
	return s.Do.String() + " " + s.Object.String()
}

// Plan lists the steps from the objects that there are to those that there should be, in an
// order in which each finds what it needs: first what is added and replaced, links before
// what lies on them and chains before what leads to them, then what is removed, the other
// way round. Unless complete is set, nothing is removed or replaced: what the node knows may
// be older than what is there, and lack something that is there for a reason.
//
// A table of nftables that is replaced takes all in it along, so that is added again.
func Plan(desired, existing []Object, complete bool) []Step {
	have := make(map[ObjectKey]Object, len(existing)) // and, in the end, what isn't desired
	for _, o := range existing {
		have[KeyOf(o)] = o
	}
	replaced := map[bool]bool{} // the families whose table is
	for _, o := range desired {
		if t, is := o.(Table); is {
			was, there := have[KeyOf(t)]
			replaced[t.IPv6] = complete && there && !same(was, o)
		}
	}
	var steps, removals []Step
	for _, o := range desired {
		key := KeyOf(o)
		was, there := have[key]
		delete(have, key)
		switch {
		case !there || inTable(o, replaced):
			steps = append(steps, Step{Do: Add, Object: o})
		case complete && !same(was, o):
			steps = append(steps, Step{Do: Replace, Object: o, Was: was})
		}
	}
	order(steps, cmp.Compare[kind])
	if !complete {
		return steps
	}
	for _, o := range have {
		if !inTable(o, replaced) {
			removals = append(removals, Step{Do: Remove, Object: o})
		}
	}
	order(removals, func(a, b kind) int { return cmp.Compare(b, a) })
	return append(steps, removals...)
}

// order sorts steps by their objects' kinds, and those of a kind by what they are called. There may be tens of
// thousands: each is called so once.
func order(steps []Step, kinds func(a, b kind) int) {
	type called struct {
		Step
		text string
	}
	list := make([]called, len(steps))
	for i, s := range steps {
		list[i] = called{s, s.Object.String()}
	}
	slices.SortFunc(list, func(a, b called) int {
		return cmp.Or(kinds(a.Object.kind(), b.Object.kind()), strings.Compare(a.text, b.text))
	})
	for i := range list {
		steps[i] = list[i].Step
	}
}

// KeyOf tells objects of all kinds apart.
func KeyOf(o Object) ObjectKey { return ObjectKey{o.kind(), o.Key()} }

// ObjectKey is what at most one object of all can have.
type ObjectKey struct {
	kind kind
	key  any
}

// same tells whether two objects of a key are the same. Of a chain a kernel may know the
// digest of its backends only; a device's key and whom it has met are only listed.
func same(a, b Object) bool {
	switch x := a.(type) {
	case Chain:
		y := b.(Chain)
		x.Backends, y.Backends = Digest(x.Backends), Digest(y.Backends)
		return x == y
	case Wire:
		y := b.(Wire)
		x.Public, y.Public = [32]byte{}, [32]byte{}
		return x == y
	case WirePeer:
		y := b.(WirePeer)
		x.Met, y.Met = false, false
		return x == y
	}
	return a == b
}

// Digest is a short form of a chain's backends, which a rule's comment has room for. The digest of a digest is
// itself.
func Digest(backends string) string {
	if strings.HasPrefix(backends, "#") {
		return backends
	}
	sum := sha256.Sum256([]byte(backends))
	return "#" + hex.EncodeToString(sum[:16])
}

// inTable tells whether an object is in a table of one of the families.
func inTable(o Object, families map[bool]bool) bool {
	switch o := o.(type) {
	case Chain:
		return families[o.IPv6]
	case Element:
		return families[o.IPv6]
	}
	return false
}
