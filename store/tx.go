package store

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"skep/cluster"
)

// maxUpdate is how many bytes of changes one Update may make. Raft handles an
// entry as one piece, so larger ones would stall everything else.
const maxUpdate = 8 << 20

// ErrUpdateTooLarge is the error of an Update with more changes than that.
var ErrUpdateTooLarge = fmt.Errorf("%w: the changes of one update are over %d MiB; make several of it", cluster.ErrInvalid, maxUpdate>>20)

// Tx is a transaction: a View that sees its own writes. It is valid only inside
// the function it was given to. An object that is put belongs to the store from
// then on. An object that another Update of the same batch has just written has
// a version that equals no version seen before.
type Tx struct {
	View
	now     time.Time
	by      string
	changes []txChange
	size    int
	refused error // set when the transaction grew too large
}

// txChange is one put (after is set) or delete (after is nil), and its form in
// the log.
type txChange struct {
	before, after any
	record        record
	// form is before's.
	form form
}

// Writes is how many puts and deletes there were so far.
func (tx *Tx) Writes() int { return len(tx.changes) }

// Now is the database's time, the same through the whole transaction.
func (tx *Tx) Now() time.Time { return tx.now }

// Put creates or replaces an object: a *cluster.Cluster, Node, or whatever else has a
// kind. It stamps CreatedAt (when there was no such object) and UpdatedAt. It fails with
// ErrNameTaken when another object of the kind has the name, with ErrPrecondition when another
// has a cluster.Unique of it or a user wants more than the database may hold, and with ErrVersion when something in it is of a level
// that the cluster isn't at.
func (tx *Tx) Put(object any) error {
	n, ok := kindNumbers[reflect.TypeOf(object)]
	if !ok {
		return fmt.Errorf("put %T: %w: it isn't an object of the database", object, cluster.ErrInvalid)
	}
	k, table := kinds[n-1], tx.s.table(n)
	id := k.keyOf(object)
	if id == "" {
		return fmt.Errorf("put %T: %w: it has no ID", object, cluster.ErrInvalid)
	}
	before := table.find(object)
	if before == object {
		return fmt.Errorf("put %T %s: %w: it is the stored object itself; change a copy", object, id, cluster.ErrInvalid)
	}
	if word, name, taken := table.nameTaken(object); taken {
		return fmt.Errorf("put %s %s: %w: %s %s already exists", word, id, cluster.ErrNameTaken, word, name)
	}
	if tx.by != "" {
		if err := tx.checkBounds(n, before, object); err != nil {
			return err
		}
	}
	if err := checkLevel(object, tx.levelFor(object)); err != nil {
		return fmt.Errorf("put %T %s: %w", object, id, err)
	}
	stamp(k, object, before, tx.now)
	data, err := encodeNext(n, tx.s.formOf(n, before), object)
	if err != nil {
		return fmt.Errorf("put %T %s: %w", object, id, err)
	}
	if u, other, taken := tx.s.renumber(n, before, object); taken {
		return fmt.Errorf("put %s %s: %w: %s %s has %s", k.wordOf(), id, cluster.ErrPrecondition, other.holder().Kind, other.key, u)
	}
	if err := tx.add(before, object, record{Kind: n, Object: data}); err != nil {
		tx.s.renumber(n, object, before)
		return err
	}
	table.put(before, object)
	return nil
}

// checkLevel is replaced by tests: this source may have no field of a level above 1.
var checkLevel = cluster.CheckLevel

// levelFor is the level that the object may be of: the cluster's, or what its record is
// raised to.
func (tx *Tx) levelFor(object any) int {
	c, ok := object.(*cluster.Cluster)
	if !ok {
		c = tx.Cluster()
	}
	if c == nil {
		return cluster.Level
	}
	return c.At()
}

// Delete removes an object, given as read from this transaction. Removing what
// isn't there any more does nothing.
func (tx *Tx) Delete(object any) {
	n, ok := kindNumbers[reflect.TypeOf(object)]
	if !ok {
		return
	}
	before := tx.s.table(n).find(object)
	if before == nil || tx.add(before, nil, record{Kind: n, ID: kinds[n-1].keyOf(object)}) != nil {
		return
	}
	tx.s.delete(n, before)
}

// add notes a change, unless there are too many: then Update fails, whatever its
// function makes of the error.
func (tx *Tx) add(before, after any, r record) error {
	r.By = tx.by
	if tx.refused == nil && tx.size+r.size() > maxUpdate {
		tx.refused = ErrUpdateTooLarge
	}
	if tx.refused != nil {
		return tx.refused
	}
	if len(tx.changes) == cap(tx.changes) {
		tx.changes = slices.Grow(tx.changes, len(tx.changes)+1) // append alone grows by a quarter, and copies five times as much
	}
	tx.changes = append(tx.changes, txChange{before: before, after: after, record: r, form: tx.s.formOf(r.Kind, before)})
	tx.size += r.size()
	return nil
}

// undo takes all changes back, the last first.
func (tx *Tx) undo() {
	for i := len(tx.changes) - 1; i >= 0; i-- {
		if c := tx.changes[i]; c.before == nil {
			tx.s.delete(c.record.Kind, c.after)
		} else {
			tx.s.put(c.record.Kind, c.after, c.before, c.form)
		}
	}
	tx.changes, tx.size = nil, 0
}
