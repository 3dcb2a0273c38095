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
// way round. Unless complete is set, nothing is removed: what the node knows may lack
// something that is there for a reason.
//
// A table of nftables that is replaced takes all in it along, so that is added again; and
// until complete is set the table stays as it is.
func Plan(desired, existing []Object, complete bool) []Step {
	have := make(map[any]Object, len(existing))
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
	wanted := make(map[any]struct{}, len(desired))
	for _, o := range desired {
		key := KeyOf(o)
		wanted[key] = struct{}{}
		was, there := have[key]
		switch {
		case !there || inTable(o, replaced):
			steps = append(steps, Step{Do: Add, Object: o})
		case o.kind() == kindTable && !complete:
		case !same(was, o):
			steps = append(steps, Step{Do: Replace, Object: o, Was: was})
		}
	}
	slices.SortFunc(steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.Object.kind(), b.Object.kind()), strings.Compare(a.Object.String(), b.Object.String()))
	})
	if !complete {
		return steps
	}
	for key, o := range have {
		if _, keep := wanted[key]; !keep && !inTable(o, replaced) {
			removals = append(removals, Step{Do: Remove, Object: o})
		}
	}
	slices.SortFunc(removals, func(a, b Step) int {
		return cmp.Or(cmp.Compare(b.Object.kind(), a.Object.kind()), strings.Compare(a.Object.String(), b.Object.String()))
	})
	return append(steps, removals...)
}

// KeyOf tells objects of all kinds apart.
func KeyOf(o Object) any { return [2]any{o.kind(), o.Key()} }

// same tells whether two objects of a key are the same. Of a chain a kernel may know the
// digest of its backends only.
func same(a, b Object) bool {
	if a, is := a.(Chain); is {
		b := b.(Chain)
		a.Backends, b.Backends = Digest(a.Backends), Digest(b.Backends)
		return a == b
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
