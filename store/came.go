package store

import (
	"bytes"
	"fmt"

	"skep/cluster"
)

// All managers have the same bytes at the same index, whatever versions of skep they
// are, since what is in the log is what is in the database: an object that this version
// would write otherwise is kept as it came beside what was decoded of it (state.came).
// Between managers of one version there is nothing of that kind, so it costs no memory.

// form is how an object is written when it isn't as this version would write it; nil
// when it is.
type form []byte

// finish gives an object that was decoded from the record its final version, and
// returns its form. same means that this version would write the record just so.
func (r record) finish(k kind, object any, same bool, version uint64) (form, error) {
	if same {
		k.setVersion(object, version)
		return nil, nil
	}
	known, err := cluster.Encode(object)
	if err != nil {
		return nil, err
	}
	k.setVersion(object, version)
	if bytes.Equal(known, r.Object) {
		return nil, nil
	}
	next, err := cluster.Encode(object)
	if err != nil {
		return nil, err
	}
	merged, err := cluster.Merge(r.Object, known, next)
	if bytes.Equal(merged, next) {
		return nil, err
	}
	return merged, err
}

// encodeNext writes an object that takes the place of one with the form f, with what
// this version doesn't know of that one.
func encodeNext(n kindNumber, f form, object any) ([]byte, error) {
	next, err := cluster.Encode(object)
	if err != nil || f == nil {
		return next, err
	}
	_, before, _, err := record{Kind: n, Object: f}.object(newInterner())
	if err != nil {
		return nil, fmt.Errorf("read the object again: %w", err)
	}
	known, err := cluster.Encode(before)
	if err != nil {
		return nil, err
	}
	return cluster.Merge(f, known, next)
}

func cameKey(n kindNumber, object any) string {
	return string([]byte{byte(n)}) + kinds[n-1].keyOf(object)
}

// keep notes the form of an object that is there; nil forgets it.
func (s *state) keep(n kindNumber, object any, f form) {
	switch {
	case f != nil:
		s.came.Set(cameKey(n, object), f)
	case s.came.Len() > 0:
		s.came.Delete(cameKey(n, object))
	}
}

// formOf is the form of an object that is there.
func (s *state) formOf(n kindNumber, object any) form {
	if object == nil || s.came.Len() == 0 {
		return nil
	}
	f, _ := s.came.Get(cameKey(n, object))
	return f
}

// encode writes an object that is there as all managers do.
func (s *state) encode(n kindNumber, object any) ([]byte, error) {
	if f := s.formOf(n, object); f != nil {
		return f, nil
	}
	return cluster.Encode(object)
}
