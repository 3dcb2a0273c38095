package dispatch

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
	"skep/store"
)

// Messages that are too large for a frame are cut, and nothing is missing (the
// agent checks that each task comes with its revision or after it).
func TestServeSession_CutsLargeMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.connect("n1", "m1")
		const count, size = 25, 1 << 20
		var slow atomic.Int64
		slow.Store(int64(time.Second))
		a.mu.Lock()
		a.pause = func() time.Duration { return time.Duration(slow.Load()) }
		a.mu.Unlock()
		w.addTask("first", "n1") // The agent sleeps over this one, and gets most of the others together.
		synctest.Wait()
		messages := len(a.inbox)
		slow.Store(0)
		for i := range count {
			w.update(func(tx *store.Tx) error {
				number := uint64(i + 10)
				if err := tx.Put(&cluster.Revision{ServiceID: "s", Number: number, Auth: strings.Repeat("x", size)}); err != nil {
					return err
				}
				return tx.Put(&cluster.Task{
					ID: fmt.Sprint("t", i), ServiceID: "s", Revision: number, NodeID: "n1", Desired: cluster.StateRunning,
					Status: cluster.TaskStatus{State: cluster.StateAssigned},
				})
			})
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		// 25 MiB need two messages of up to 16; a third one when the first task was already
		// on its way alone, which depends on who runs first.
		if got := assignmentsAfter(a, messages); got != 2 && got != 3 {
			t.Errorf("%d messages", got)
		}
		if len(a.holds()) != count+1 || a.fulls != 1 {
			t.Fatalf("holds %d tasks after %d complete sets", len(a.holds()), a.fulls)
		}
		// Nearly all of them end: a new session's complete set is small enough, and the rest
		// of the revisions follows.
		w.update(func(tx *store.Tx) error {
			for i := range count - 2 {
				task := *tx.Task(fmt.Sprint("t", i))
				task.Desired = cluster.StateShutdown
				if err := tx.Put(&task); err != nil {
					return err
				}
			}
			return nil
		})
		a.close()
		b := w.dialLenient("n1", "m1")
		if len(b.holds()) != count+1 || len(b.revisions) != count+1 || b.fulls != 1 {
			t.Fatalf("holds %d tasks, %d revisions after %d complete sets", len(b.holds()), len(b.revisions), b.fulls)
		}
	})
}

func TestSplit_KeepsEverything(t *testing.T) {
	m := &cluster.Assignments{From: 5, To: 9, Removed: []string{"gone"}}
	for i := range 7 {
		m.Tasks = append(m.Tasks, &cluster.Task{ID: fmt.Sprint(i), ServiceID: "s", Revision: uint64(i % 3)})
	}
	for i := range 5 {
		m.Revisions = append(m.Revisions, &cluster.Revision{ServiceID: "s", Number: uint64(i)})
	}
	tasks, revisions, removed := map[string]int{}, map[uint64]int{}, 0
	from := m.From
	var walk func(m *cluster.Assignments)
	walk = func(m *cluster.Assignments) {
		if first, second, ok := split(m); ok {
			walk(first)
			walk(second)
			return
		}
		if m.From != from || m.To != 9 {
			t.Errorf("a piece from %d to %d after %d", m.From, m.To, from)
		}
		from = m.To
		for _, r := range m.Revisions {
			revisions[r.Number]++
		}
		for _, task := range m.Tasks {
			tasks[task.ID]++
			if revisions[task.Revision] == 0 {
				t.Errorf("task %s before its revision", task.ID)
			}
		}
		removed += len(m.Removed)
	}
	walk(m)
	if len(tasks) != 7 || len(revisions) != 5 || removed != 1 {
		t.Errorf("tasks %v, revisions %v, %d removed", tasks, revisions, removed)
	}
	for number, times := range revisions {
		if times != 1 {
			t.Errorf("revision %d comes %d times", number, times)
		}
	}
}
