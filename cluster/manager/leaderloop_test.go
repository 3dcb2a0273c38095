package manager

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// desk is what a tenure is tried on: a term that the test sets, and work that ends as
// the test wants.
type desk struct {
	term   atomic.Uint64
	wake   chan bool
	begun  atomic.Int64 // how often the work has begun
	worked atomic.Uint64
	fail   chan error
	failed atomic.Int64
	// handOver is what failed does.
	handOver func()
}

func (d *desk) run(t *testing.T) {
	d.wake, d.fail = make(chan bool, 1), make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = leaderLoop{leads: d.term.Load, wake: d.wake, failed: func(uint64, error) {
			d.failed.Add(1)
			if d.handOver != nil {
				d.handOver()
			}
		}, work: func(ctx context.Context, term uint64) error {
			d.begun.Add(1)
			d.worked.Store(term)
			defer d.worked.Store(0)
			select {
			case <-ctx.Done():
				return nil
			case err := <-d.fail:
				return err
			}
		}}.run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func (d *desk) wants(t *testing.T, after time.Duration, term uint64, begun int64) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	if d.worked.Load() != term || d.begun.Load() != begun {
		t.Errorf("it works in term %d, begun %d times; want term %d and %d", d.worked.Load(), d.begun.Load(), term, begun)
	}
}

// A leader's work runs while raft says that this manager leads, whatever ends it.
func TestTenure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d desk
		d.run(t)
		d.wants(t, time.Minute, 0, 0)
		d.term.Store(3)
		d.wake <- true
		d.wants(t, 0, 3, 1)
		// It fails, and nothing more is heard of raft.
		d.fail <- errors.New("raft gave no outcome in time")
		d.wants(t, leadAgain/2, 0, 1)
		d.wants(t, leadAgain, 3, 2)
		d.fail <- nil
		d.wants(t, 2*leadAgain, 3, 3)
		if d.failed.Load() != 2 {
			t.Errorf("it was said %d times that work failed", d.failed.Load())
		}
		// A word that says nothing new ends nothing.
		d.wake <- true
		d.wants(t, time.Minute, 3, 3)
		// Lost and regained, with one word or none of it.
		d.term.Store(5)
		d.wake <- true
		d.wants(t, 0, 5, 4)
		d.term.Store(7)
		d.wants(t, 2*lookForLead, 7, 5)
		// It fails, and is handed over: nothing is started until it leads again.
		d.handOver = func() { d.term.Store(0) }
		d.fail <- errors.New("wait for the proposer")
		d.wants(t, time.Minute, 0, 5)
		d.term.Store(9)
		d.wake <- true
		d.wants(t, 0, 9, 6)
		// It is lost while it waits to be started again.
		d.handOver = nil
		d.fail <- errors.New("wait for the proposer")
		d.term.Store(0)
		d.wants(t, time.Minute, 0, 6)
		if d.failed.Load() > 4 {
			t.Errorf("it was said %d times that work failed", d.failed.Load())
		}
	})
}
