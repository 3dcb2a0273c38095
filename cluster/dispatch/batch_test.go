package dispatch

import (
	"context"
	"testing"
	"time"

	"skep/cluster"
	"skep/store"
)

// TestBatch_LeavesToTheWriteWhatAnOlderViewLacks: an agent can report a task before
// the leader has applied the entry that made it, since the manager that has the agent's
// session may have applied it already. Such a report must not be taken for one of a
// task that is gone, or of another node.
func TestBatch_LeavesToTheWriteWhatAnOlderViewLacks(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	db := store.NewMemory(func() time.Time { return start })
	put := func(task cluster.Task) store.View {
		if err := db.Update(context.Background(), func(tx *store.Tx) error { return tx.Put(&task) }); err != nil {
			t.Fatal(err)
		}
		return db.View()
	}
	lacking := db.View()
	task := cluster.Task{ID: "t1", ServiceID: "s1", Revision: 1, Slot: 1, Desired: cluster.StateRunning, Status: cluster.TaskStatus{State: cluster.StatePending}}
	unassigned := put(task)
	task.NodeID, task.Status.State = "n1", cluster.StateAssigned
	put(task)
	for name, view := range map[string]store.View{"lacking": lacking, "without its node": unassigned, "present": db.View()} {
		b := &batch{reports: []cluster.NodeReport{
			{NodeID: "n1", Report: cluster.Report{TaskID: "t1", Status: cluster.TaskStatus{State: cluster.StateRunning}}},
			{NodeID: "n2", Report: cluster.Report{TaskID: "t1", Status: cluster.TaskStatus{State: cluster.StateFailed}}},
		}}
		put(task)
		b.trim(view)
		if err := db.Update(context.Background(), b.apply); err != nil {
			t.Fatal(err)
		}
		if got := db.View().Task("t1").Status.State; got != cluster.StateRunning {
			t.Errorf("with a view in which it is %s, the task is %s; want running", name, got)
		}
		if len(b.notOurs) != 1 || b.notOurs[0].NodeID != "n2" {
			t.Errorf("with a view in which it is %s: refused %+v; want what n2 said", name, b.notOurs)
		}
	}
}

// A manager that was cut off tells late what an agent said before it went on to another
// manager: where the agent is now, its node has news that are newer.
func TestGather_LeavesOutOldNewsOfANodeThatWentOn(t *testing.T) {
	late := &pendingRelay{relay: cluster.Relay{
		Manager: "m2", Sessions: []string{"w2"},
		Nodes:   []cluster.NodeNews{{NodeID: "w1", Addr: "10.0.0.1"}, {NodeID: "w2", Addr: "10.0.0.2"}, {NodeID: "w3", Addr: "10.0.0.3"}},
		Reports: []cluster.NodeReport{{NodeID: "w1"}},
	}}
	where := map[string]string{"w1": "m1", "w2": "m2"}
	b := &batch{}
	taken, rest := b.gather([]*pendingRelay{late}, where, false)
	if len(taken) != 1 || len(rest) != 0 || len(b.reports) != 0 {
		t.Fatalf("took %d, left %d, reports %v", len(taken), len(rest), b.reports)
	}
	if len(b.news) != 2 || b.news[0].NodeID != "w2" || b.news[1].NodeID != "w3" {
		t.Errorf("took in %v; want what is of w2, which is there, and w3, which is nowhere else", b.news)
	}
	b = &batch{}
	if taken, _ := b.gather([]*pendingRelay{late}, where, true); len(taken) != 0 {
		t.Error("took news of w3 before all managers told whether they have it")
	}
}
