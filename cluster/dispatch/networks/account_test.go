package networks

import (
	"testing"

	"skep/cluster"
)

// TestPhaseOf_LeadsToWhatStaysOnly has a task be led to while it runs, is well and is to stay: one that is
// to stop gets nothing new from the commit on that says so, though it still answers.
func TestPhaseOf_LeadsToWhatStaysOnly(t *testing.T) {
	for _, test := range []struct {
		state   cluster.State
		desired cluster.State
		message string
		want    cluster.EndpointPhase
	}{
		{cluster.StatePreparing, cluster.StateRunning, "", cluster.EndpointKnown},
		{cluster.StateRunning, cluster.StateRunning, "", cluster.EndpointServing},
		{cluster.StateRunning, cluster.StateRunning, cluster.MessageUnhealthy, cluster.EndpointDraining},
		{cluster.StateRunning, cluster.StateShutdown, "", cluster.EndpointDraining},
		{cluster.StateRunning, cluster.StateRemove, "", cluster.EndpointDraining},
		{cluster.StateStarting, cluster.StateShutdown, "", cluster.EndpointDraining},
	} {
		task := &cluster.Task{Desired: test.desired, Status: cluster.TaskStatus{State: test.state, Message: test.message}}
		if got := phaseOf(task); got != test.want {
			t.Errorf("a task that is %s %q, wanted %s: phase %d, want %d", test.state, test.message, test.desired, got, test.want)
		}
	}
}
