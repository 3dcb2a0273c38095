package store

import (
	"context"
	"sync"
)

type madeKey struct{}

// Made collects what the Updates under a context have changed, once it is committed.
type Made struct {
	mu      sync.Mutex // guards changes
	changes []MadeChange
}

// MadeChange is a Change with the version that the object has since; 0 when it was removed.
type MadeChange struct {
	Change
	To uint64
}

// CollectMade is a context whose Updates say what they changed.
func CollectMade(ctx context.Context) (context.Context, *Made) {
	made := &Made{}
	return context.WithValue(ctx, madeKey{}, made), made
}

// Changes are those until now, in the order in which they were made.
func (m *Made) Changes() []MadeChange {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes[:len(m.changes):len(m.changes)]
}

// add takes in what an Update wrote, at an index of the log.
func (m *Made) add(changes []Change, index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		made := MadeChange{Change: c}
		if c.After != nil {
			made.To = index
		}
		m.changes = append(m.changes, made)
	}
}

// madeOf is who collects under a context; nil for nobody.
func madeOf(ctx context.Context) *Made {
	made, _ := ctx.Value(madeKey{}).(*Made)
	return made
}
