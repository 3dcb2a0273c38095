package networks

import (
	"errors"
	"testing"

	"skep/cluster"
	"skep/store"
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

// TestAttachedIn_WhileAnyNodeIsUp has one of two nodes be down, and then both: a container of the first leads there as long
// as somebody sees that it is there.
func TestAttachedIn_WhileAnyNodeIsUp(t *testing.T) {
	for _, c := range []struct {
		name        string
		other       string
		first, both cluster.EndpointPhase
	}{
		{"on one engine", "127.0.1.2", cluster.EndpointServing, cluster.EndpointKnown},
		{"on two", "192.0.2.2", cluster.EndpointKnown, cluster.EndpointKnown},
	} {
		s := newStore(t)
		place := cluster.Address{VNI: cluster.FirstVNI, Host: 7}
		update(t, s, func(tx *store.Tx) error {
			n := &cluster.Network{ID: "w", VNI: place.VNI}
			n.Spec.Name = "w"
			first := &cluster.Node{ID: "n1", Index: 1, DataAddr: "127.0.1.1", Engine: "E"}
			first.Status.State = cluster.NodeDown
			other := &cluster.Node{ID: "n2", Index: 2, DataAddr: c.other, Engine: "E"}
			other.Status.State = cluster.NodeReady
			return errors.Join(tx.Put(n), tx.Put(first), tx.Put(other), tx.Put(&cluster.Attachment{ID: "a", NodeID: "n1", NetworkID: "w", Address: place}))
		})
		phase := func() cluster.EndpointPhase { return fullUpdate(s.View(), "w").Endpoints[0].Phase }
		if got := phase(); got != c.first {
			t.Errorf("%s, the first one is down: phase %d, want %d", c.name, got, c.first)
		}
		update(t, s, func(tx *store.Tx) error {
			other := *tx.Node("n2")
			other.Status.State = cluster.NodeDown
			return tx.Put(&other)
		})
		if got := phase(); got != c.both {
			t.Errorf("%s, both are down: phase %d, want %d", c.name, got, c.both)
		}
	}
}
