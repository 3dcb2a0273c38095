package store

import (
	"fmt"
	"iter"
	"math"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// kinds are all kinds of objects, in the order of their numbers, which is that of
// snapshots. A new kind is a file that describes it, as config.go does, and a line at
// the end of this list.
var kinds = [...]kind{
	clusters,
	nodes,
	services,
	revisions,
	rollouts,
	tasks,
	secrets,
	configs,
	networks,
	attachments,
}

// kindNumber is a kind in logs and snapshots: its place in kinds, from 1. It is never
// given a new meaning.
type kindNumber uint8

// find returns the kind that has the number.
func (n kindNumber) find() (kind, error) {
	if n == 0 || int(n) > len(kinds) {
		return nil, fmt.Errorf("kind %d isn't known", n)
	}
	return kinds[n-1], nil
}

// kindNumbers finds the kind of an object.
var kindNumbers = func() map[reflect.Type]kindNumber {
	types := make(map[reflect.Type]kindNumber, len(kinds))
	for i, k := range kinds {
		types[k.objectType()] = kindNumber(i + 1)
	}
	return types
}()

// kindOf describes a kind of object, of the type *T.
type kindOf[T any] struct {
	// number is the kind's place in kinds, from 1.
	number kindNumber
	// word is what users call an object of the kind.
	word string

	// key is what an object is found by. blank is the inverse: it makes an object with
	// nothing but its key, to look it up or to decode into.
	key   func(*T) string
	blank func(key string) (*T, error)
	// name is what users call the object. No two of the kind have the same, without regard
	// to case. Optional.
	name func(*T) string

	// meta is where an object has its version and the times of its writes.
	meta metaOf[T]
	// times are all time.Times in an object. Optional.
	times func(*T) []time.Time
	// share has an object that was decoded share the strings that many have in common.
	// Optional.
	share func(*interner, *T)
	// references are the IDs and names of objects of the kind that tasks of a spec are
	// given. Optional.
	references func(*swarm.TaskSpec) iter.Seq2[string, string]
	// refersByID is set when there are no names in references.
	refersByID bool

	// uniques are the numbers that an object has and no other object may have. Optional.
	uniques func(*T) []cluster.Unique

	// most is how many there may be, and weigh is what each counts for: see checkBounds.
	// Optional.
	most  int
	weigh func(*T) weight

	// place is what objects are kept by, and in snapshots in the order of; by default their
	// key. Optional.
	place func(*T) string
	// before is the order in which objects are kept, and are in snapshots, where that isn't
	// one of texts; there is no place then. Optional.
	before func(a, b *T) bool
	// indexes are more orders that objects are found in. Optional.
	indexes [maxIndexes]index[T]
}

// maxIndexes is as many as a kind has, so that a table is one piece of memory: all are
// copied with each entry.
const maxIndexes = 2

// index is an order of objects; of those that has wants, if it isn't nil.
type index[T any] struct {
	before func(a, b *T) bool
	has    func(*T) bool
}

// metaOf reads and writes an object's version and the times of its writes.
type metaOf[T any] interface {
	get(object *T) cluster.Meta
	set(object *T, m cluster.Meta)
	setVersion(object *T, version uint64)
}

// inMeta is for objects that have them in a cluster.Meta, as all but tasks do.
type inMeta[T any] func(*T) *cluster.Meta

func (in inMeta[T]) get(object *T) cluster.Meta    { return *in(object) }
func (in inMeta[T]) set(object *T, m cluster.Meta) { *in(object) = m }

func (in inMeta[T]) setVersion(object *T, version uint64) { in(object).Version = version }

// kind is a kindOf[T] whose objects are any: what reads and writes them is the same for
// all kinds.
type kind interface {
	String() string
	objectType() reflect.Type
	newTable() table

	keyOf(object any) string
	blankOf(key string) (any, error)
	metaOf(object any) cluster.Meta
	setMeta(object any, m cluster.Meta)
	setVersion(object any, version uint64)
	timesOf(object any) []time.Time
	intern(in *interner, object any)
	referencesIn(spec *swarm.TaskSpec) iter.Seq[Reference]
	wordOf() string
	uniquesOf(object any) []cluster.Unique
	mostOf() int
	weightOf(object any) weight
}

func (k *kindOf[T]) String() string { return k.word }

func (k *kindOf[T]) objectType() reflect.Type { return reflect.TypeFor[*T]() }

func (k *kindOf[T]) keyOf(object any) string { return k.key(object.(*T)) }

func (k *kindOf[T]) blankOf(key string) (any, error) {
	object, err := k.blank(key)
	return orNil(object), err
}

func (k *kindOf[T]) metaOf(object any) cluster.Meta { return k.meta.get(object.(*T)) }

func (k *kindOf[T]) setMeta(object any, m cluster.Meta) { k.meta.set(object.(*T), m) }

func (k *kindOf[T]) setVersion(object any, version uint64) { k.meta.setVersion(object.(*T), version) }

func (k *kindOf[T]) wordOf() string { return k.word }

// uniquesOf is nil for no object, too.
func (k *kindOf[T]) uniquesOf(object any) []cluster.Unique {
	if k.uniques == nil || object == nil {
		return nil
	}
	return k.uniques(object.(*T))
}

func (k *kindOf[T]) mostOf() int { return k.most }

func (k *kindOf[T]) weightOf(object any) weight {
	if k.weigh == nil {
		return weight{}
	}
	return k.weigh(object.(*T))
}

func (k *kindOf[T]) timesOf(object any) []time.Time {
	if k.times == nil {
		return nil
	}
	return k.times(object.(*T))
}

func (k *kindOf[T]) intern(in *interner, object any) {
	if k.share != nil {
		k.share(in, object.(*T))
	}
}

func (k *kindOf[T]) referencesIn(spec *swarm.TaskSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		if k.references == nil {
			return
		}
		for id, name := range k.references(spec) {
			if !yield(Reference{k.word, id, name}) {
				return
			}
		}
	}
}

// provisional is the version of an object that the transaction's batch has
// written but raft hasn't: no reader can have seen it, so whoever checks a
// version against it conflicts, as they must.
const provisional = math.MaxUint64

// stamp gives an object that is to be put its times and its provisional version.
// before is the object in its place, or nil.
func stamp(k kind, object, before any, now time.Time) {
	m := cluster.Meta{Version: provisional, CreatedAt: now, UpdatedAt: now}
	if before != nil {
		m.CreatedAt = k.metaOf(before).CreatedAt
	}
	k.setMeta(object, m)
}
