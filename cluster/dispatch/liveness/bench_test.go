package liveness

import (
	"fmt"
	"testing"
	"time"

	"skep/cluster"
)

// BenchmarkLook is what the leader does each time that something may have changed, in a
// cluster of 10,000 nodes that are well.
func BenchmarkLook(b *testing.B) {
	now := noon
	known := Cluster{Members: map[string]cluster.Member{}, SuspectAfter: time.Second}
	relays := []cluster.Relay{{Manager: "m0"}, {Manager: "m1"}, {Manager: "m2"}}
	add := func(id, managerAddr string) {
		known.Nodes = append(known.Nodes, &cluster.Node{ID: id, ManagerAddr: managerAddr, Status: cluster.NodeStatus{State: cluster.NodeReady}})
		known.Members[id] = cluster.Member{NodeID: id}
	}
	for i := range 10_000 {
		id := fmt.Sprintf("n%05d", i)
		add(id, "")
		r := &relays[i%len(relays)]
		r.Sessions, r.Runs = append(r.Sessions, id), append(r.Runs, "a."+id)
	}
	for _, r := range relays {
		add(r.Manager, r.Manager+":2377")
	}
	t := NewTracker(now)
	for b.Loop() {
		now = now.Add(10 * time.Millisecond)
		for _, r := range relays {
			t.Relay(r, now)
		}
		in := t.Observe(known, now)
		Missing(in)
		Decide(in)
		t.Copies(known.Nodes, now)
	}
}
