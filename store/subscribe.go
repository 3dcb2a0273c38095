package store

import "sync"

// maxPending is how many changes a subscriber may be behind before it is told
// to list again.
const maxPending = 65536

// Change is one object's change: Before is nil for a new object, After for a
// removed one; both are pointers to the same type of object.
type Change struct {
	Before, After any
	// By is who asked for it: cluster.Actor of the Update's context. It is known as long as
	// changes are told, and isn't part of the database.
	By string
}

// Sides are the typed objects of a change; nil where there is none.
func Sides[T any](c Change) (before, after *T) {
	before, _ = c.Before.(*T)
	after, _ = c.After.(*T)
	return before, after
}

// Subscription hands changes to one reader. Subscribe first, then take View and
// list, then loop over Ready and Take: changes that the listing already had may
// come again, none is missed.
type Subscription struct {
	ready chan struct{}
	close func()

	mu      sync.Mutex // guards the fields below
	pending []Change
	view    View
	lost    bool
}

// Ready receives when there may be something to Take.
func (sub *Subscription) Ready() <-chan struct{} { return sub.ready }

// Take returns the changes since the last Take, in order, and the view right
// after the last of them. Lost means that the reader was too slow, or that the
// database was replaced by a snapshot: changes are incomplete, and view must be
// listed again.
func (sub *Subscription) Take() (changes []Change, view View, lost bool) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	changes, lost = sub.pending, sub.lost
	sub.pending, sub.lost = nil, false
	return changes, sub.view, lost
}

// Close ends the subscription.
func (sub *Subscription) Close() { sub.close() }

// offer adds changes, and tells whether from now on the reader has to list again.
func (sub *Subscription) offer(changes []Change, view View, lost bool) (reset bool) {
	sub.mu.Lock()
	sub.view = view
	before := sub.lost
	if lost || sub.lost || len(sub.pending)+len(changes) > maxPending {
		sub.pending, sub.lost = nil, true
	} else {
		sub.pending = append(sub.pending, changes...)
	}
	reset = sub.lost && !before
	sub.mu.Unlock()
	select {
	case sub.ready <- struct{}{}:
	default:
	}
	return reset
}
