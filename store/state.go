package store

import (
	"iter"

	"github.com/tidwall/btree"

	"skep/cluster"
)

// state is all tables at one index. Trees share structure between copies, so a
// copy costs a few allocations. Only the FSM and a transaction's scratch copy
// are ever written to.
type state struct {
	// applied is the log index of the last applied entry.
	applied uint64
	// tables has the objects of each kind, in the order of kinds.
	tables []table
	// uniques are who has which number, of all kinds.
	uniques *btree.Map[cluster.Unique, owner]
	// came are the objects of which this version would write something else than came:
	// another version wrote them, with fields that this one doesn't know.
	came *btree.Map[string, form] // by cameKey
}

func newState() *state {
	s := &state{tables: make([]table, len(kinds)), uniques: new(btree.Map[cluster.Unique, owner]), came: new(btree.Map[string, form])}
	for i, k := range kinds {
		s.tables[i] = k.newTable()
	}
	return s
}

// copy returns a state that may be written to without being seen through s. It
// must not run at the same time as a write to s.
func (s *state) copy() *state {
	c := &state{applied: s.applied, tables: make([]table, len(s.tables)), uniques: s.uniques.Copy(), came: s.came.Copy()}
	for i, t := range s.tables {
		c.tables[i] = t.copy()
	}
	return c
}

// table has the objects of a kind.
func (s *state) table(n kindNumber) table { return s.tables[n-1] }

// put writes after, which is written as f, in the place of before, which may be nil: an
// object with the same key.
func (s *state) put(n kindNumber, before, after any, f form) {
	s.renumber(n, before, after)
	s.table(n).put(before, after)
	s.keep(n, after, f)
}

// delete removes an object that is there.
func (s *state) delete(n kindNumber, before any) {
	s.renumber(n, before, nil)
	s.table(n).delete(before)
	s.keep(n, before, nil)
}

// count is the number of all objects.
func (s *state) count() (n uint64) {
	for _, t := range s.tables {
		n += uint64(t.len())
	}
	return n
}

// objects lists all objects, table by table, each in its order.
func (s *state) objects() iter.Seq2[kindNumber, any] {
	return func(yield func(kindNumber, any) bool) {
		for i, t := range s.tables {
			for object := range t.all() {
				if !yield(kindNumber(i+1), object) {
					return
				}
			}
		}
	}
}
