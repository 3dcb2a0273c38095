package cluster

import "testing"

func TestTask_Advance(t *testing.T) {
	at := func(state State) TaskStatus { return TaskStatus{State: state, Message: state.String()} }
	task := &Task{ID: "t", Desired: StateRunning, Status: at(StateStarting)}
	if task.Advance(at(StatePreparing), 5) != nil {
		t.Error("an observed state went back")
	}
	running := task.Advance(at(StateRunning), 7)
	if running == nil || running.RunningAt != 7 || running.Status.Applied != 7 || task.RunningAt != 0 {
		t.Fatalf("running: %+v of %+v", running, task)
	}
	if running.Advance(running.Status, 9) != nil {
		t.Error("the same status again was taken for news")
	}
	if again := running.Advance(TaskStatus{State: StateRunning, Message: "healthy"}, 9); again == nil || again.Status.Applied != 7 || again.RunningAt != 7 {
		t.Errorf("a new message moved the time the state was reached: %+v", again)
	}
	orphan := *running
	orphan.Status.State = StateOrphaned
	if orphan.Advance(at(StateOrphaned), 9) != nil {
		t.Error("an orphaned task was changed by a report")
	}
}

// A task that is stopped because it didn't come up keeps the reason, whatever its
// agent says of the stop.
func TestTask_AdvanceKeepsWhyItNeverRan(t *testing.T) {
	late := &Task{ID: "t", Desired: StateShutdown, Status: TaskStatus{State: StatePreparing, Err: "not running within 5m0s"}}
	if stopped := late.Advance(TaskStatus{State: StateShutdown, Message: "shutdown"}, 1); stopped.Status.Err != "not running within 5m0s" {
		t.Errorf("the reason became %q", stopped.Status.Err)
	}
	ran := &Task{ID: "t", Desired: StateShutdown, RunningAt: 1, Status: TaskStatus{State: StateRunning, Err: "old news"}}
	if stopped := ran.Advance(TaskStatus{State: StateShutdown, Message: "shutdown"}, 2); stopped.Status.Err != "" {
		t.Errorf("a task that ran and was stopped says %q", stopped.Status.Err)
	}
}

func TestTaskName(t *testing.T) {
	for _, c := range []struct {
		job  bool
		slot uint32
		node string
		want string
	}{
		{false, 3, "n1", "web.3.t"}, {false, 0, "n1", "web.n1.t"}, {true, 3, "n1", "web.2.t"}, {true, 1, "n1", "web.n1.t"}, {true, 1, "", "web.0.t"}, {true, 0, "n1", "web.n1.t"},
	} {
		r := &Revision{ServiceName: "web", Job: c.job}
		if got := r.TaskName(&Task{ID: "t", Slot: c.slot, NodeID: c.node}); got != c.want {
			t.Errorf("slot %d on %q, job %v: %s, want %s", c.slot, c.node, c.job, got, c.want)
		}
	}
}

func TestTask_WaitsForItsNode(t *testing.T) {
	waits := Task{ID: "t", NodeID: "n1", Desired: StateRunning, Status: TaskStatus{State: StatePending}}
	if waits.Assigned() || waits.Dead() || !waits.Live() {
		t.Error("a task that waits for its node is taken for one that it has, or for a dead one")
	}
	stopped := waits
	stopped.Desired = StateShutdown
	if !stopped.Dead() {
		t.Error("a task that never came to its node has nothing to stop")
	}
	job := Task{ID: "t", NodeID: "n1", Desired: StateComplete, Status: TaskStatus{State: StateRunning}}
	if !job.Live() || !job.Assigned() || job.Dead() {
		t.Error("a task that is to complete is wanted")
	}
}

func TestTask_KeepsWhyItWasStopped(t *testing.T) {
	task := &Task{ID: "t", NodeID: "n1", Desired: StateShutdown, RunningAt: 1, Status: TaskStatus{State: StateRunning, Err: ReasonMisplaced}}
	if next := task.Advance(TaskStatus{State: StateShutdown, Message: "shutdown"}, 2); next.Status.Err != ReasonMisplaced {
		t.Errorf("the reason is %q", next.Status.Err)
	}
	task.Status.Err = "engine is away"
	if next := task.Advance(TaskStatus{State: StateShutdown, Message: "shutdown"}, 2); next.Status.Err != "" {
		t.Errorf("what the agent said before is kept: %q", next.Status.Err)
	}
}
