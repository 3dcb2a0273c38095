package dispatch

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
	"skep/store"
)

// leases are the stamps that the agent got back.
func (a *testAgent) leases() (stamps []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.inbox {
		if m.Lease != 0 {
			stamps = append(stamps, m.Lease)
		}
	}
	return stamps
}

// TestLease_IsGrantedOnlyByALeaderThatCountsOnTheNode asks over a follower: a lease
// comes back with the stamp it was asked for with, and not from a leader that may
// have been replaced, for a node that is down, or without a leader.
func TestLease_IsGrantedOnlyByALeaderThatCountsOnTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		var deposed atomic.Bool
		for _, m := range w.managers {
			m.config.Verify = func(context.Context) error {
				if deposed.Load() {
					return fmt.Errorf("another one may lead: %w", cluster.ErrNotLeader)
				}
				return nil
			}
		}
		w.addNode("n1")
		a := w.connect("n1", "m2")
		if err := a.send(cluster.FromAgent{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := a.leases(); len(got) > 0 {
			t.Fatalf("leases %v were granted to one that asked for none", got)
		}
		ask := func(stamp int64, granted bool) {
			t.Helper()
			before := len(a.leases())
			if err := a.send(cluster.FromAgent{Lease: stamp}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * liveness.RelayEvery)
			synctest.Wait()
			got := a.leases()[before:]
			if granted && !slices.Equal(got, []int64{stamp}) || !granted && len(got) > 0 {
				t.Errorf("asked with %d, got %v; want one: %v", stamp, got, granted)
			}
		}
		ask(11, true)
		ask(12, true)
		deposed.Store(true)
		ask(13, false)
		deposed.Store(false)
		time.Sleep(2 * liveness.RelayEvery)
		if got := a.leases(); got[len(got)-1] != 13 {
			t.Errorf("what could not be granted then isn't granted later: %v", got)
		}

		// A leader that finds the node down in its database grants nothing before it has
		// written that the node is back.
		in := w.now().leading()
		w.update(func(tx *store.Tx) error {
			n := *tx.Node("n1")
			n.Status.State, n.Status.Message = cluster.NodeDown, "test"
			return tx.Put(&n)
		})
		if got := in.grant(t.Context(), cluster.Relay{Leases: []string{"n1", "gone"}}); len(got) > 0 {
			t.Errorf("leases were granted to %v", got)
		}
		time.Sleep(2 * time.Second) // it is ready again, since it has a session
		ask(14, true)

		w.cut("m2", true)
		ask(15, false)
		w.cut("m2", false)
	})
}
