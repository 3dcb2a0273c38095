package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// errRefused is the response to an entry that was proposed on another state than
// it met: nothing of it was written, on any manager.
var errRefused = errors.New("the entry was proposed on an older state")

// fsm is the Store as raft sees it. Raft calls it from one goroutine.
type fsm struct{ store *Store }

var _ raft.FSM = fsm{}

// FSM is what to give to raft.
func (s *Store) FSM() raft.FSM { return fsm{s} }

// Apply writes one committed entry. Its response is nil or an error.
//
// It must do the same on every manager, today and when the log is read again, so
// it has no clock, makes no IDs and knows no rules: those were all applied by
// whoever proposed the entry.
func (f fsm) Apply(log *raft.Log) any {
	// The clock is for the measure only.
	err := f.store.metrics.Apply.Measure(f.store.clock.machine, func() error { return f.store.apply(log.Index, log.Data) })
	if err != nil {
		return err
	}
	return nil
}

func (s *Store) apply(index uint64, data []byte) error {
	e, objects, forms, err := s.decode(index, data)
	span := s.startApply(index, e, objects)
	defer span.End(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failed != nil:
		return s.failed
	case err != nil:
		return s.failLocked(fmt.Errorf("apply entry %d: %w", index, err))
	case index <= s.current.applied:
		return s.failLocked(fmt.Errorf("apply entry %d: entry %d is applied already", index, s.current.applied))
	case e.Base > s.current.applied:
		// Its base was committed before it, so this manager has missed something.
		return s.failLocked(fmt.Errorf("apply entry %d: it follows entry %d, but this manager's database ends at %d: its log or snapshot lacks entries",
			index, e.Base, s.current.applied))
	case e.Base < s.current.applied:
		return fmt.Errorf("apply entry %d: %w: %d instead of %d", index, errRefused, e.Base, s.current.applied)
	}
	changes := make([]Change, 0, len(objects))
	for i, object := range objects {
		before := s.current.table(e.Changes[i].Kind).find(object)
		switch r := e.Changes[i]; {
		case r.Object != nil:
			s.current.put(r.Kind, before, object, forms[i])
			changes = append(changes, Change{Before: before, After: object, By: r.By})
		case before != nil:
			s.current.delete(r.Kind, before)
			changes = append(changes, Change{Before: before, By: r.By})
		}
	}
	s.current.applied = index
	s.publishLocked(changes, false)
	return nil
}

// decode reads an entry and all the objects in it, as they are at its index.
func (s *Store) decode(index uint64, data []byte) (entry, []any, []form, error) {
	e, err := decodeEntry(data)
	if err != nil {
		return e, nil, nil, err
	}
	objects, forms := make([]any, len(e.Changes)), make([]form, len(e.Changes))
	for i, r := range e.Changes {
		var k kind
		var same bool
		if k, objects[i], same, err = r.object(s.intern); err == nil && r.Object != nil {
			forms[i], err = r.finish(k, objects[i], same, index)
		}
		if c, ok := objects[i].(*cluster.Cluster); ok && err == nil && r.Object != nil {
			err = s.build.Fits(c.ClusterLevel)
		}
		if err != nil {
			return e, nil, nil, fmt.Errorf("decode change %d: %w", i, err)
		}
	}
	return e, objects, forms, nil
}

// Snapshot costs nothing: the published state never changes.
func (f fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.store.View()}, nil }

// Restore replaces the database by a snapshot, whole or not at all. A snapshot
// that can't be read ends the process: raft would go on with an older one and a
// log that doesn't reach back to it.
func (f fsm) Restore(source io.ReadCloser) error {
	s := f.store
	restored, err := readCompressed(source, s.intern)
	if err == nil {
		if c := (View{restored}).Cluster(); c != nil {
			err = s.build.Fits(c.ClusterLevel)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if err != nil {
		return s.failLocked(fmt.Errorf("restore snapshot: %w", err))
	}
	s.current = restored
	s.publishLocked(nil, true)
	return nil
}

// snapshot is a View that raft may write to a sink while Apply goes on.
type snapshot struct{ view View }

// Persist writes the snapshot, and closes or cancels the sink.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.compress(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release has nothing to do.
func (s snapshot) Release() {}
