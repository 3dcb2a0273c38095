package store

import (
	"fmt"
	"testing"

	"skep/cluster"
)

// follow keeps the versions of all nodes up to date from a subscription alone,
// but for what it lists at the start and when it is told to.
type follow struct {
	sub   *Subscription
	nodes map[string]uint64
	index uint64
	lost  int
}

func newFollow(s *Store) *follow {
	f := &follow{sub: s.Subscribe()}
	f.list(s.View())
	return f
}

func (f *follow) list(v View) {
	f.nodes = map[string]uint64{}
	for n := range v.Nodes() {
		f.nodes[n.ID] = n.Version
	}
	f.index = v.Index()
}

// take takes once, and checks that changes fit what is known. Only right after
// listing may a change come that the listing had already.
func (f *follow) take(t *testing.T) {
	t.Helper()
	changes, view, lost := f.sub.Take()
	if view.Index() < f.index {
		t.Errorf("the view went back from %d to %d", f.index, view.Index())
	}
	if lost {
		f.lost++
		f.list(view)
		return
	}
	for _, c := range changes {
		before, _ := c.Before.(*cluster.Node)
		after, _ := c.After.(*cluster.Node)
		if after != nil && after.Version <= f.index {
			continue // The listing had it.
		}
		known, had := f.nodes[name(before, after)]
		switch {
		case (before != nil) != had:
			t.Errorf("node %s: before is %v, known is %v: a gap or a duplicate", name(before, after), before, had)
		case before != nil && before.Version != known:
			t.Errorf("node %s: before has version %d, known is %d: a gap", before.ID, before.Version, known)
		}
		if after == nil {
			delete(f.nodes, before.ID)
		} else {
			f.nodes[after.ID] = after.Version
		}
	}
	f.index = view.Index()
}

func name(before, after *cluster.Node) string {
	if before != nil {
		return before.ID
	}
	return after.ID
}

func (f *follow) equals(t *testing.T, v View) {
	t.Helper()
	if len(f.nodes) != v.NodeCount() {
		t.Errorf("%d nodes known, %d there", len(f.nodes), v.NodeCount())
	}
	for n := range v.Nodes() {
		if f.nodes[n.ID] != n.Version {
			t.Errorf("node %s is known at version %d, has %d", n.ID, f.nodes[n.ID], n.Version)
		}
	}
}

func TestSubscription_NoGapNoDuplicate(t *testing.T) {
	s, _ := lead(t)
	for i := range 20 {
		put(t, s, &cluster.Node{ID: fmt.Sprint("n", i)})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2000 {
			update(t, s, func(tx *Tx) error {
				if id := fmt.Sprint("n", i*7%30); i%5 == 0 {
					tx.Delete(&cluster.Node{ID: id})
					return nil
				} else {
					return tx.Put(&cluster.Node{ID: id})
				}
			})
		}
	}()
	// Readers that begin in the middle of it, each at its own pace.
	f := newFollow(s)
	defer f.sub.Close()
	for running := true; running; {
		select {
		case <-f.sub.Ready():
			f.take(t)
		case <-done:
			running = false
		}
		late := newFollow(s)
		late.take(t)
		late.sub.Close()
	}
	f.take(t)
	f.equals(t, s.View())
	if f.lost != 0 {
		t.Errorf("lost %d times", f.lost)
	}
}

func TestSubscription_SlowReaderListsAgain(t *testing.T) {
	s, r := lead(t)
	f := newFollow(s)
	defer f.sub.Close()
	fill := func(n int) {
		for from := 0; from < n; from += 4096 {
			update(t, s, func(tx *Tx) error {
				for i := from; i < min(n, from+4096); i++ {
					if err := tx.Put(&cluster.Node{ID: fmt.Sprint("n", i%100)}); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	fill(maxPending)
	f.take(t)
	if f.lost != 0 {
		t.Error("told to list again although all changes fitted")
	}
	f.equals(t, s.View())
	fill(maxPending + 1)
	if n := len(f.sub.pending); n > maxPending {
		t.Errorf("%d changes are kept", n)
	}
	f.take(t)
	if f.lost != 1 {
		t.Error("not told to list again although changes are missing")
	}
	f.equals(t, s.View())
	fill(100)
	f.take(t)
	if f.lost != 1 {
		t.Error("told to list again twice")
	}
	f.equals(t, s.View())
	if r.count() == 0 {
		t.Error("nothing was written")
	}
}

func TestSubscription_CloseEndsIt(t *testing.T) {
	s, _ := lead(t)
	sub := s.Subscribe()
	sub.Close()
	sub.Close()
	put(t, s, &cluster.Node{ID: "n1"})
	if changes, _, _ := sub.Take(); len(changes) != 0 || len(s.subscriptions) != 0 {
		t.Error("a closed subscription goes on")
	}
}
