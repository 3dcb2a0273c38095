package placement

import (
	"slices"

	"skep/cluster"
)

// want is how many of one kind of generic resource a task needs.
type want struct {
	kind  string
	count int64
}

func generic(r *cluster.Revision) []want {
	reserved := reservations(r)
	if reserved == nil {
		return nil
	}
	var wants []want
	for _, g := range reserved.GenericResources {
		if d := g.DiscreteResourceSpec; d != nil && d.Value > 0 {
			wants = append(wants, want{d.Kind, d.Value})
		}
	}
	return wants
}

// genericResource is what a node has of one kind of generic resource. Where it has names,
// they are what is given out, else a number.
type genericResource struct {
	names   []string
	count   int64
	taken   map[string]int32
	claimed int64
}

// refreshGeneric takes in what the node offers. What was claimed stays claimed.
func (n *Node) refreshGeneric() {
	offered := n.node.Description.Resources.GenericResources
	if len(offered) == 0 && len(n.generic) == 0 {
		return
	}
	for _, s := range n.generic {
		s.names, s.count = nil, 0
	}
	for _, g := range offered {
		switch {
		case g.NamedResourceSpec != nil:
			s := n.genericOf(g.NamedResourceSpec.Kind)
			s.names = append(s.names, g.NamedResourceSpec.Value)
		case g.DiscreteResourceSpec != nil:
			n.genericOf(g.DiscreteResourceSpec.Kind).count += g.DiscreteResourceSpec.Value
		}
	}
	for _, s := range n.generic {
		slices.Sort(s.names)
		s.names = slices.Compact(s.names)
	}
}

// genericOf finds what the node has of a kind, or begins it.
func (n *Node) genericOf(kind string) *genericResource {
	s := n.generic[kind]
	if s == nil {
		if n.generic == nil {
			n.generic = make(map[string]*genericResource)
		}
		s = &genericResource{taken: make(map[string]int32)}
		n.generic[kind] = s
	}
	return s
}

// free lists the names that nobody has.
func (s *genericResource) free() []string {
	var free []string
	for _, name := range s.names {
		if s.taken[name] == 0 {
			free = append(free, name)
		}
	}
	return free
}

// enough tells whether the node has as many left as w wants.
func (n *Node) enough(w want) bool {
	s := n.generic[w.kind]
	switch {
	case s == nil:
		return false
	case len(s.names) > 0:
		return int64(len(s.free())) >= w.count
	}
	return s.count-s.claimed >= w.count
}

// choose says what a task gets that wants so much, when there is enough.
func (n *Node) choose(wants []want) []cluster.Claim {
	var claims []cluster.Claim
	for _, w := range wants {
		claim := cluster.Claim{Kind: w.kind}
		if s := n.generic[w.kind]; len(s.names) > 0 {
			claim.Names = s.free()[:w.count]
		} else {
			claim.Count = w.count
		}
		claims = append(claims, claim)
	}
	return claims
}

// claim notes that a task got something, or gave it back when times is -1.
func (n *Node) claim(claims []cluster.Claim, times int32) {
	for _, c := range claims {
		s := n.genericOf(c.Kind)
		s.claimed += int64(times) * c.Count
		for _, name := range c.Names {
			if s.taken[name] += times; s.taken[name] == 0 {
				delete(s.taken, name)
			}
		}
	}
}

// lost tells whether the node no longer has something that was claimed by name.
func (n *Node) lost(claims []cluster.Claim) bool {
	for _, c := range claims {
		for _, name := range c.Names {
			if _, has := slices.BinarySearch(n.genericOf(c.Kind).names, name); !has {
				return true
			}
		}
	}
	return false
}
