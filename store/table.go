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

// tableOf is all objects of a kind, and their indexes.
type tableOf[T any] struct {
	kind    *kindOf[T]
	rows    tree[T]
	names   *byText[T] // nil when the kind has no names
	indexes []tree[T]
	weighs  weight // what the objects count for together
}

func (k *kindOf[T]) newTable() table {
	t := &tableOf[T]{kind: k}
	if k.rows != nil {
		t.rows = k.rows()
	} else {
		t.rows = newByText(k.key)
	}
	if k.name != nil {
		t.names = newByText(func(object *T) string { return nameKey(k.name(object)) })
	}
	for _, index := range k.indexes {
		t.indexes = append(t.indexes, index())
	}
	return t
}

// nameKey is how names are compared: without regard to case.
func nameKey(name string) string { return strings.ToLower(name) }

// copy returns a table that may be written to without being seen through t.
func (t *tableOf[T]) copy() table {
	c := &tableOf[T]{kind: t.kind, rows: t.rows.copy(), weighs: t.weighs}
	if t.names != nil {
		c.names = t.names.copy().(*byText[T])
	}
	if len(t.indexes) > 0 {
		c.indexes = make([]tree[T], len(t.indexes))
		for i, index := range t.indexes {
			c.indexes[i] = index.copy()
		}
	}
	return c
}

func (t *tableOf[T]) len() int { return t.rows.Len() }

func (t *tableOf[T]) weight() weight { return t.weighs }

func (t *tableOf[T]) all() iter.Seq[any] {
	return func(yield func(any) bool) { t.rows.each(func(object *T) bool { return yield(object) }) }
}

// find returns the object with the same key as pivot, or nil.
func (t *tableOf[T]) find(pivot any) any { return orNil(t.rows.find(pivot.(*T))) }

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
	t.rows.add(object)
	if t.names != nil {
		t.names.add(object)
	}
	for _, index := range t.indexes {
		index.add(object)
	}
}

// delete removes an object that is there.
func (t *tableOf[T]) delete(before any) {
	object := before.(*T)
	t.rows.remove(object)
	t.unindex(object)
	t.weighs = t.weighs.minus(t.kind.weightOf(before))
}

func (t *tableOf[T]) unindex(object *T) {
	if t.names != nil {
		t.names.remove(object)
	}
	for _, index := range t.indexes {
		index.remove(object)
	}
}

// nameTaken tells whether another object has the object's name, and how that one writes
// it; word is for objects of the kind.
func (t *tableOf[T]) nameTaken(object any) (word, name string, taken bool) {
	if t.names == nil {
		return "", "", false
	}
	same := t.names.find(object.(*T))
	if same == nil || t.kind.key(same) == t.kind.key(object.(*T)) {
		return "", "", false
	}
	return t.kind.word, t.kind.name(same), true
}

// has tells whether the object that ref refers to is there, under the name in ref.
func (t *tableOf[T]) has(ref Reference) bool {
	object := t.rows.(*byText[T]).get(ref.ID)
	return object != nil && t.kind.name(object) == ref.Name
}

// tree has objects in one order. Trees share structure between copies.
type tree[T any] interface {
	copy() tree[T]
	Len() int
	each(yield func(*T) bool)
	find(pivot *T) *T
	add(object *T)
	remove(object *T)
}

// byText has objects by a text of theirs. It compares inline and looks up without
// allocating, which a tree with a function for its order can't.
type byText[T any] struct {
	*btree.Map[string, *T]
	text func(*T) string
}

func newByText[T any](text func(*T) string) *byText[T] {
	return &byText[T]{new(btree.Map[string, *T]), text}
}

func (b *byText[T]) copy() tree[T] { return &byText[T]{b.Map.Copy(), b.text} }

func (b *byText[T]) each(yield func(*T) bool) {
	b.Scan(func(_ string, object *T) bool { return yield(object) })
}

func (b *byText[T]) find(pivot *T) *T { return b.get(b.text(pivot)) }

func (b *byText[T]) get(text string) *T {
	found, _ := b.Get(text)
	return found
}

func (b *byText[T]) add(object *T) { b.Set(b.text(object), object) }

func (b *byText[T]) remove(object *T) { b.Delete(b.text(object)) }

// inOrder has objects in the order of a function; only those that has wants, if it isn't
// nil.
type inOrder[T any] struct {
	*btree.BTreeG[*T]
	has func(*T) bool
}

func newInOrder[T any](less func(a, b *T) bool, has func(*T) bool) *inOrder[T] {
	return &inOrder[T]{btree.NewBTreeGOptions(less, btree.Options{NoLocks: true}), has}
}

func (o *inOrder[T]) copy() tree[T] { return &inOrder[T]{o.BTreeG.Copy(), o.has} }

func (o *inOrder[T]) each(yield func(*T) bool) { o.Scan(yield) }

func (o *inOrder[T]) find(pivot *T) *T {
	found, _ := o.Get(pivot)
	return found
}

func (o *inOrder[T]) add(object *T) {
	if o.has == nil || o.has(object) {
		o.Set(object)
	}
}

func (o *inOrder[T]) remove(object *T) {
	if o.has == nil || o.has(object) {
		o.Delete(object)
	}
}

// The lookups of View's methods.

// in returns the kind's table.
func (k *kindOf[T]) in(v View) *tableOf[T] { return v.s.tables[k.number-1].(*tableOf[T]) }

// get finds an object by its key, where rows are in the order of keys.
func (k *kindOf[T]) get(v View, key string) *T { return k.in(v).rows.(*byText[T]).get(key) }

// named finds an object by its name.
func (k *kindOf[T]) named(v View, name string) *T { return k.in(v).names.get(nameKey(name)) }

// list lists all objects.
func (k *kindOf[T]) list(v View) iter.Seq[*T] { return k.in(v).rows.each }

// withPrefix lists the objects whose key begins with prefix, where rows are in the order
// of keys.
func (k *kindOf[T]) withPrefix(v View, prefix string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		k.in(v).rows.(*byText[T]).Ascend(prefix, func(key string, object *T) bool { return strings.HasPrefix(key, prefix) && yield(object) })
	}
}

// index returns an index in the order of a function, by its place in the kind's indexes.
func (k *kindOf[T]) index(v View, place int) *inOrder[T] { return k.in(v).indexes[place].(*inOrder[T]) }
