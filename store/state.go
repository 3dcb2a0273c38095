package store

import (
	"iter"
	"strings"

	"github.com/tidwall/btree"

	"skep/cluster"
)

// state is all tables at one index. Trees share structure between copies, so a
// copy costs a few allocations. Only the FSM and a transaction's scratch copy
// are ever written to.
type state struct {
	// applied is the log index of the last applied entry.
	applied uint64

	cluster   *cluster.Cluster
	nodes     *table[cluster.Node]
	services  *table[cluster.Service]
	names     *table[cluster.Service] // by lower-case name
	revisions *btree.BTreeG[*cluster.Revision]
	rollouts  *table[cluster.Rollout] // by service

	tasks     *table[cluster.Task]
	byService *btree.BTreeG[*cluster.Task] // by service, slot, ID
	byNode    *btree.BTreeG[*cluster.Task] // by node, ID; tasks with a node only

	secrets     *table[cluster.Secret]
	secretNames *table[cluster.Secret] // by lower-case name
	configs     *table[cluster.Config]
	configNames *table[cluster.Config] // by lower-case name

	// came are the objects of which this version would write something else than came:
	// another version wrote them, with fields that this one doesn't know.
	came *btree.Map[string, form] // by cameKey
}

// table has objects by their ID. It compares inline and looks up without
// allocating, which a tree with a function for its order can't.
type table[T any] = btree.Map[string, *T]

func newTree[T any](less func(a, b T) bool) *btree.BTreeG[T] {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

func newState() *state {
	return &state{
		nodes:    new(table[cluster.Node]),
		services: new(table[cluster.Service]),
		names:    new(table[cluster.Service]),
		rollouts: new(table[cluster.Rollout]),
		tasks:    new(table[cluster.Task]),
		secrets:  new(table[cluster.Secret]), secretNames: new(table[cluster.Secret]),
		configs: new(table[cluster.Config]), configNames: new(table[cluster.Config]),
		came: new(btree.Map[string, form]),
		revisions: newTree(func(a, b *cluster.Revision) bool {
			if c := strings.Compare(a.ServiceID, b.ServiceID); c != 0 {
				return c < 0
			}
			return a.Number < b.Number
		}),
		byService: newTree(func(a, b *cluster.Task) bool {
			if c := strings.Compare(a.ServiceID, b.ServiceID); c != 0 {
				return c < 0
			}
			if a.Slot != b.Slot {
				return a.Slot < b.Slot
			}
			return a.ID < b.ID
		}),
		byNode: newTree(func(a, b *cluster.Task) bool {
			if c := strings.Compare(a.NodeID, b.NodeID); c != 0 {
				return c < 0
			}
			return a.ID < b.ID
		}),
	}
}

// copy returns a state that may be written to without being seen through s. It
// must not run at the same time as a write to s.
func (s *state) copy() *state {
	c := *s
	c.nodes, c.services, c.names = s.nodes.Copy(), s.services.Copy(), s.names.Copy()
	c.revisions, c.rollouts = s.revisions.Copy(), s.rollouts.Copy()
	c.tasks, c.byService, c.byNode = s.tasks.Copy(), s.byService.Copy(), s.byNode.Copy()
	c.secrets, c.secretNames = s.secrets.Copy(), s.secretNames.Copy()
	c.configs, c.configNames = s.configs.Copy(), s.configNames.Copy()
	c.came = s.came.Copy()
	return &c
}

// find returns the object of the same kind and key as pivot, or nil.
func (s *state) find(pivot any) any {
	switch o := pivot.(type) {
	case *cluster.Cluster:
		return orNil(s.cluster)
	case *cluster.Node:
		return orNil(find(s.nodes, o.ID))
	case *cluster.Service:
		return orNil(find(s.services, o.ID))
	case *cluster.Revision:
		found, _ := s.revisions.Get(o)
		return orNil(found)
	case *cluster.Rollout:
		return orNil(find(s.rollouts, o.ServiceID))
	case *cluster.Task:
		return orNil(find(s.tasks, o.ID))
	case *cluster.Secret:
		return orNil(find(s.secrets, o.ID))
	case *cluster.Config:
		return orNil(find(s.configs, o.ID))
	}
	return nil
}

// orNil makes a nil pointer a nil interface, so that it can be compared.
func orNil[T any](object *T) any {
	if object == nil {
		return nil
	}
	return object
}

// put writes after in the place of before, which may be nil: an object of the
// same kind and ID. It knows no rules.
func (s *state) put(before, after any) {
	switch after := after.(type) {
	case *cluster.Cluster:
		s.cluster = after
	case *cluster.Node:
		s.nodes.Set(after.ID, after)
	case *cluster.Service:
		if before, ok := before.(*cluster.Service); ok {
			s.names.Delete(nameKey(before.Spec.Name))
		}
		s.services.Set(after.ID, after)
		s.names.Set(nameKey(after.Spec.Name), after)
	case *cluster.Revision:
		s.revisions.Set(after)
	case *cluster.Rollout:
		s.rollouts.Set(after.ServiceID, after)
	case *cluster.Task:
		if before, ok := before.(*cluster.Task); ok {
			s.unindex(before)
		}
		s.tasks.Set(after.ID, after)
		s.byService.Set(after)
		if after.NodeID != "" {
			s.byNode.Set(after)
		}
	case *cluster.Secret:
		if before, ok := before.(*cluster.Secret); ok {
			s.secretNames.Delete(nameKey(before.Spec.Name))
		}
		s.secrets.Set(after.ID, after)
		s.secretNames.Set(nameKey(after.Spec.Name), after)
	case *cluster.Config:
		if before, ok := before.(*cluster.Config); ok {
			s.configNames.Delete(nameKey(before.Spec.Name))
		}
		s.configs.Set(after.ID, after)
		s.configNames.Set(nameKey(after.Spec.Name), after)
	}
}

// delete removes an object that is there.
func (s *state) delete(before any) {
	switch before := before.(type) {
	case *cluster.Cluster:
		s.cluster = nil
	case *cluster.Node:
		s.nodes.Delete(before.ID)
	case *cluster.Service:
		s.services.Delete(before.ID)
		s.names.Delete(nameKey(before.Spec.Name))
	case *cluster.Revision:
		s.revisions.Delete(before)
	case *cluster.Rollout:
		s.rollouts.Delete(before.ServiceID)
	case *cluster.Task:
		s.tasks.Delete(before.ID)
		s.unindex(before)
	case *cluster.Secret:
		s.secrets.Delete(before.ID)
		s.secretNames.Delete(nameKey(before.Spec.Name))
	case *cluster.Config:
		s.configs.Delete(before.ID)
		s.configNames.Delete(nameKey(before.Spec.Name))
	}
}

// nameKey is how names are compared: without regard to case.
func nameKey(name string) string { return strings.ToLower(name) }

func (s *state) unindex(t *cluster.Task) {
	s.byService.Delete(t)
	if t.NodeID != "" {
		s.byNode.Delete(t)
	}
}

// count is the number of all objects.
func (s *state) count() uint64 {
	n := s.nodes.Len() + s.services.Len() + s.revisions.Len() + s.rollouts.Len() + s.tasks.Len() +
		s.secrets.Len() + s.configs.Len()
	if s.cluster != nil {
		n++
	}
	return uint64(n)
}

// objects lists all objects, table by table, in the order of their keys.
func (s *state) objects() iter.Seq[any] {
	return func(yield func(any) bool) {
		if s.cluster != nil && !yield(s.cluster) {
			return
		}
		for _, objects := range []iter.Seq[any]{
			anyOf(all(s.nodes)), anyOf(all(s.services)), anyOf(allOf(s.revisions)), anyOf(all(s.rollouts)), anyOf(all(s.tasks)),
			anyOf(all(s.secrets)), anyOf(all(s.configs)),
		} {
			for object := range objects {
				if !yield(object) {
					return
				}
			}
		}
	}
}

func anyOf[T any](objects iter.Seq[*T]) iter.Seq[any] {
	return func(yield func(any) bool) {
		for object := range objects {
			if !yield(object) {
				return
			}
		}
	}
}
