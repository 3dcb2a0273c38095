package store

import (
	"iter"
	"strings"

	"github.com/tidwall/btree"
)

// table is a tableOf[T] whose objects are any.
type table interface {
	copy() table
	len() int
	all() iter.Seq[any]
	find(pivot any) any
	put(before, after any)
	delete(before any)
	nameTaken(object any) (word, name string, taken bool)
	has(ref Reference) bool
	weight() weight
}

// tableOf is all objects of a kind, and their indexes. Trees share structure between
// copies.
type tableOf[T any] struct {
	kind *kindOf[T]
	// rows are all objects by their place; where the kind has an order, ordered are.
	rows    *btree.Map[string, *T]
	ordered *btree.BTreeG[*T]
	// names are by lower-case name; nil when the kind has no names.
	names *btree.Map[string, *T]
	// indexes are those of the kind, nil where it has none.
	indexes [maxIndexes]*btree.BTreeG[*T]
	// weighs is what the objects count for together.
	weighs weight
}

func (k *kindOf[T]) newTable() table {
	t := &tableOf[T]{kind: k}
	if k.before != nil {
		t.ordered = newOrdered(k.before)
	} else {
		t.rows = new(btree.Map[string, *T])
	}
	if k.name != nil {
		t.names = new(btree.Map[string, *T])
	}
	for i, index := range k.indexes {
		if index.before != nil {
			t.indexes[i] = newOrdered(index.before)
		}
	}
	return t
}

func newOrdered[T any](before func(a, b *T) bool) *btree.BTreeG[*T] {
	return btree.NewBTreeGOptions(before, btree.Options{NoLocks: true})
}

// nameKey is how names are compared: without regard to case.
func nameKey(name string) string { return strings.ToLower(name) }

// placeOf is what an object is kept by.
func (k *kindOf[T]) placeOf(object *T) string {
	if k.place != nil {
		return k.place(object)
	}
	return k.key(object)
}

// copy returns a table that may be written to without being seen through t.
func (t *tableOf[T]) copy() table {
	c := *t
	if t.ordered != nil {
		c.ordered = t.ordered.Copy()
	} else {
		c.rows = t.rows.Copy()
	}
	if t.names != nil {
		c.names = t.names.Copy()
	}
	for i, index := range t.indexes {
		if index != nil {
			c.indexes[i] = index.Copy()
		}
	}
	return &c
}

func (t *tableOf[T]) len() int {
	if t.ordered != nil {
		return t.ordered.Len()
	}
	return t.rows.Len()
}

func (t *tableOf[T]) weight() weight { return t.weighs }

func (t *tableOf[T]) all() iter.Seq[any] {
	return func(yield func(any) bool) {
		for object := range t.list() {
			if !yield(object) {
				return
			}
		}
	}
}

// list lists all objects in their order.
func (t *tableOf[T]) list() iter.Seq[*T] {
	if t.ordered != nil {
		return t.ordered.Scan
	}
	return func(yield func(*T) bool) {
		t.rows.Scan(func(_ string, object *T) bool { return yield(object) })
	}
}

// find returns the object with the same key as pivot, or nil.
func (t *tableOf[T]) find(pivot any) any { return orNil(t.get(pivot.(*T))) }

func (t *tableOf[T]) get(pivot *T) (found *T) {
	if t.ordered != nil {
		found, _ = t.ordered.Get(pivot)
	} else {
		found, _ = t.rows.Get(t.kind.placeOf(pivot))
	}
	return found
}

// orNil makes a nil pointer a nil interface, so that it can be compared.
func orNil[T any](object *T) any {
	if object == nil {
		return nil
	}
	return object
}

// put writes after in the place of before, which may be nil: an object with the same
// key. It knows no rules.
func (t *tableOf[T]) put(before, after any) {
	object := after.(*T)
	if before != nil {
		t.unindex(before.(*T))
		t.weighs = t.weighs.minus(t.kind.weightOf(before))
	}
	t.weighs = t.weighs.plus(t.kind.weightOf(after))
	if t.ordered != nil {
		t.ordered.Set(object)
	} else {
		t.rows.Set(t.kind.placeOf(object), object)
	}
	if t.names != nil {
		t.names.Set(nameKey(t.kind.name(object)), object)
	}
	for i, index := range t.indexes {
		if index != nil && t.kind.indexes[i].wants(object) {
			index.Set(object)
		}
	}
}

// delete removes an object that is there.
func (t *tableOf[T]) delete(before any) {
	object := before.(*T)
	if t.ordered != nil {
		t.ordered.Delete(object)
	} else {
		t.rows.Delete(t.kind.placeOf(object))
	}
	t.unindex(object)
	t.weighs = t.weighs.minus(t.kind.weightOf(before))
}

func (t *tableOf[T]) unindex(object *T) {
	if t.names != nil {
		t.names.Delete(nameKey(t.kind.name(object)))
	}
	for i, index := range t.indexes {
		if index != nil && t.kind.indexes[i].wants(object) {
			index.Delete(object)
		}
	}
}

func (i *index[T]) wants(object *T) bool { return i.has == nil || i.has(object) }

// nameTaken tells whether another object has the object's name, and how that one writes
// it; word is for objects of the kind.
func (t *tableOf[T]) nameTaken(object any) (word, name string, taken bool) {
	if t.names == nil {
		return "", "", false
	}
	same, ok := t.names.Get(nameKey(t.kind.name(object.(*T))))
	if !ok || t.kind.key(same) == t.kind.key(object.(*T)) {
		return "", "", false
	}
	return t.kind.word, t.kind.name(same), true
}

// has tells whether the object that ref refers to is there, under the name in ref
// where references have names.
func (t *tableOf[T]) has(ref Reference) bool {
	object, ok := t.rows.Get(ref.ID)
	return ok && (t.kind.refersByID || t.kind.name(object) == ref.Name)
}

// The lookups of View's methods.

// in returns the kind's table.
func (k *kindOf[T]) in(v View) *tableOf[T] { return v.s.tables[k.number-1].(*tableOf[T]) }

// get finds an object by its place.
func (k *kindOf[T]) get(v View, place string) *T {
	found, _ := k.in(v).rows.Get(place)
	return found
}

// named finds an object by its name.
func (k *kindOf[T]) named(v View, name string) *T {
	found, _ := k.in(v).names.Get(nameKey(name))
	return found
}

// list lists all objects.
func (k *kindOf[T]) list(v View) iter.Seq[*T] { return k.in(v).list() }

// withPrefix lists the objects whose place begins with prefix.
func (k *kindOf[T]) withPrefix(v View, prefix string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		k.in(v).rows.Ascend(prefix, func(place string, object *T) bool { return strings.HasPrefix(place, prefix) && yield(object) })
	}
}
