package scheduler

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

// TestPlan_ColdStart switches all machines off and lets them come back in any order, with
// leaders that change and agents that do some of what they are told. Within the grace,
// what comes back gets back what others took over: in the end the tasks are as even as
// placement makes them, no slot was moved more than once by that, and it comes to an end.
func TestPlan_ColdStart(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHive(t)
		h.forgetful = rapid.Bool().Draw(r, "forgetful")
		nodes := []string{"n1", "n2", "n3", "n4"}
		set := func(id string, state cluster.NodeState) {
			n := *h.node(id)
			n.Description.Resources.NanoCPUs = 100e9
			if n.Status.State != state {
				n.Status.State, n.Status.Since = state, h.now
			}
			h.put(&n)
		}
		for _, id := range nodes {
			set(id, cluster.NodeReady)
		}
		limit := rapid.Int64Range(1, 5).Draw(r, "history")
		c := &cluster.Cluster{ID: "c"}
		c.Spec.Orchestration.TaskHistoryRetentionLimit = &limit
		h.put(c)
		replicas := rapid.Uint64Range(1, 12).Draw(r, "replicas")
		h.service("web", func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &replicas })
		pass := func(d time.Duration) {
			for end := h.now.Add(d); ; {
				for range 500 {
					if len(h.settle()) == 0 && !h.obey() {
						break
					}
				}
				if !h.now.Before(end) {
					return
				}
				h.advance(end.Sub(h.now))
			}
		}
		pass(10 * time.Second)
		if rapid.Bool().Draw(r, "updated") {
			h.service("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
			pass(10 * time.Minute)
		}

		h.now = h.now.Add(time.Hour)
		start := h.now
		cold := *h.db.View().Cluster()
		cold.ColdStart = h.now
		h.put(&cold)
		// Of n1 it is found in time that it is there.
		away := rapid.Permutation(nodes[1:]).Draw(r, "order")
		away = away[:rapid.IntRange(1, 3).Draw(r, "away")]
		for _, id := range away {
			h.now = h.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(r, "found")) * time.Millisecond)
			set(id, cluster.NodeDown)
			if rapid.Bool().Draw(r, "planned") {
				h.settle()
			}
		}
		for _, id := range away {
			pass(time.Duration(rapid.IntRange(100, 60000).Draw(r, "later")) * time.Millisecond)
			set(id, cluster.NodeReady)
			if rapid.Bool().Draw(r, "elect") {
				h.elect()
			}
		}
		pass(time.Minute)

		counts, most, least := map[string]int{}, 0, int(replicas)
		made := map[uint32]int{}
		for task := range h.db.View().TasksOfService("web") {
			if task.CreatedAt >= cluster.At(start) {
				made[task.Slot]++
			}
			if task.Live() {
				counts[task.NodeID]++
			}
		}
		for _, id := range nodes {
			most, least = max(most, counts[id]), min(least, counts[id])
		}
		if most > least+1 {
			r.Fatalf("from %d to %d tasks on a node\n%s", least, most, h.describe("web"))
		}
		for slot, n := range made {
			// Each node that is found away may take one over, and one brings it back.
			if n > len(away)+1 {
				r.Fatalf("%d tasks were made in slot %d\n%s", n, slot, h.describe("web"))
			}
		}
		if rollout := h.db.View().Rollout("web"); rollout != nil && !rollout.Done() {
			r.Fatalf("the rollout doesn't end\n%s", h.describe("web"))
		}
		before := h.now
		pass(10 * time.Minute)
		for task := range h.db.View().TasksOfService("web") {
			if task.CreatedAt >= cluster.At(before) {
				r.Fatalf("task %s was made when all was even\n%s", task.ID, h.describe("web"))
			}
		}
	})
}
