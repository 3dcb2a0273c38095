package store

import (
	"context"
	"sync"
	"time"
)

// Memory is a Store without raft, for tests and benchmarks of what reads and
// writes one: Update writes at once, and there is always a leader. Everything
// else is the Store's own.
type Memory struct {
	*Store
	updating sync.Mutex // held through each Update
}

// NewMemory makes an empty one, whose clock is now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{Store: New(Config{Now: now})}
}

// Update does what Store.Update does, in place.
func (m *Memory) Update(_ context.Context, fn func(*Tx) error) error {
	m.updating.Lock()
	defer m.updating.Unlock()
	b := m.newBatch()
	tx := &Tx{View: View{b.scratch}, now: b.now}
	if err := fn(tx); err != nil {
		return err
	}
	if tx.refused != nil {
		return tx.refused
	}
	if len(tx.changes) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b.scratch.applied++
	changes := make([]Change, len(tx.changes))
	for i, c := range tx.changes {
		if c.after != nil {
			kinds[c.record.Kind-1].setVersion(c.after, b.scratch.applied)
		}
		changes[i] = Change{Before: c.before, After: c.after, By: c.record.By}
	}
	m.current = b.scratch
	m.publishLocked(changes, false)
	return nil
}
