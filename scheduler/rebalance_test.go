package scheduler

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

// TestPlan_Rebalance lets nodes come and go, then rebalances, with agents that do
// some of what they are told and leaders that change: tasks never become less
// evenly spread, no more slots are without a running task than the update's
// parallelism says, no slot is moved twice, it comes to an end, and nothing is left
// for a second one.
func TestPlan_Rebalance(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHive(t)
		h.forgetful = rapid.Bool().Draw(r, "forgetful")
		nodes := []string{"n1", "n2", "n3", "n4"}
		zones := map[string]string{}
		for _, id := range nodes {
			zones[id] = rapid.SampledFrom([]string{"", "x", "y"}).Draw(r, "zone")
		}
		preferring := rapid.IntRange(0, 2).Draw(r, "preferring") == 0
		set := func(id string, availability swarm.NodeAvailability) {
			n := *h.node(id)
			n.Description.Resources.NanoCPUs = 100e9
			n.Spec.Availability = availability
			n.Spec.Labels = map[string]string{"zone": zones[id]}
			h.put(&n)
		}
		for _, id := range nodes {
			availability := swarm.NodeAvailabilityActive
			if id != "n1" && rapid.Bool().Draw(r, "away") {
				availability = swarm.NodeAvailabilityPause
			}
			set(id, availability)
		}
		parallelism := rapid.Uint64Range(0, 3).Draw(r, "parallelism")
		order := rapid.SampledFrom([]string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}).Draw(r, "order")
		h.service("other", func(s *swarm.ServiceSpec) {
			n := rapid.Uint64Range(0, 6).Draw(r, "others")
			s.Mode.Replicated.Replicas = &n
		})
		h.settle()
		replicas := rapid.Uint64Range(1, 10).Draw(r, "replicas")
		h.service("web", func(s *swarm.ServiceSpec) {
			s.Mode.Replicated.Replicas = &replicas
			s.UpdateConfig = &swarm.UpdateConfig{
				Parallelism: parallelism, Order: order, Delay: time.Duration(rapid.IntRange(0, 8).Draw(r, "delay")) * time.Second,
			}
			s.TaskTemplate.Placement = &swarm.Placement{}
			if rapid.IntRange(0, 2).Draw(r, "limited") == 0 {
				s.TaskTemplate.Placement.MaxReplicas = replicas
			}
			if preferring {
				s.TaskTemplate.Placement.Preferences = []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}
			}
		})
		h.settle()
		h.obey()
		h.settle()
		h.now = h.now.Add(time.Second)
		for _, id := range nodes {
			set(id, swarm.NodeAvailabilityActive)
		}
		h.settle()

		place := func(nodeID string) string {
			if preferring {
				return zones[nodeID]
			}
			return nodeID
		}
		// Counted is where the youngest wanted task of each slot is.
		spread := func() (least, most int) {
			youngest := map[uint32]*cluster.Task{}
			for t := range h.db.View().TasksOfService("web") {
				if old := youngest[t.Slot]; t.Live() && (old == nil || old.CreatedAt < t.CreatedAt) {
					youngest[t.Slot] = t
				}
			}
			// With a preference it is zones that have to be even, not nodes.
			counts, places := map[string]int{}, map[string]bool{}
			for _, id := range nodes {
				places[place(id)] = true
			}
			for _, t := range youngest {
				counts[place(t.NodeID)]++
			}
			least = int(replicas)
			for at := range places {
				least, most = min(least, counts[at]), max(most, counts[at])
			}
			return least, most
		}
		down := func() int {
			runs := map[uint32]bool{}
			for t := range h.db.View().TasksOfService("web") {
				if t.Live() && t.Status.State == cluster.StateRunning {
					runs[t.Slot] = true
				}
			}
			return int(replicas) - len(runs)
		}
		made := func() map[uint32]int {
			made := map[uint32]int{}
			for t := range h.db.View().TasksOfService("web") {
				made[t.Slot]++
			}
			return made
		}
		check := func(least, most int) {
			nowLeast, nowMost := spread()
			if nowMost-nowLeast > most-least {
				r.Fatalf("the spread was %d to %d, now it is %d to %d\n%s", least, most, nowLeast, nowMost, h.describe("web"))
			}
			limit := int(parallelism)
			if order == swarm.UpdateOrderStartFirst {
				limit = 0
			}
			if parallelism > 0 || limit == 0 && order == swarm.UpdateOrderStartFirst {
				if n := down(); n > limit {
					r.Fatalf("%d slots have no running task; at most %d may\n%s", n, limit, h.describe("web"))
				}
			}
		}
		for round := range 2 {
			least, most := spread()
			before := made()
			if err := h.rebalance("web"); err != nil {
				r.Fatal(err)
			}
			for step := 0; !h.db.View().Rollout("web").Done(); step++ {
				if step > 1000 {
					r.Fatalf("the rebalance doesn't end\n%s", h.describe("web"))
				}
				switch rapid.IntRange(0, 4).Draw(r, "step") {
				case 0:
					h.elect()
				case 1:
					h.obey()
				case 2:
					v := h.db.View()
					for t := range v.Tasks() {
						if next, err := h.obedient(v, t); next != t.Status.State && rapid.Bool().Draw(r, "obeys") {
							h.report(t.ID, next, err)
						}
					}
				default:
					h.now = h.now.Add(time.Duration(rapid.IntRange(1, 9000).Draw(r, "ms")) * time.Millisecond)
					h.elect() // Its wakes are due.
				}
				check(least, most)
				h.plan()
				check(least, most)
			}
			after := made()
			for slot, n := range after {
				if moves := n - before[slot]; moves > 1 || round == 1 && moves > 0 {
					r.Fatalf("rebalance %d moved slot %d %d times\n%s", round+1, slot, moves, h.describe("web"))
				}
			}
			if least, most := spread(); most-least > 1 {
				r.Fatalf("after the rebalance there are %d to %d tasks on a node\n%s", least, most, h.describe("web"))
			}
			// Within a zone it is nodes again that are even.
			counts := map[string]int{}
			for t := range h.db.View().TasksOfService("web") {
				if t.Live() {
					counts[t.NodeID]++
				}
			}
			for _, a := range nodes {
				for _, b := range nodes {
					if zones[a] == zones[b] && counts[a] > counts[b]+1 {
						r.Fatalf("after the rebalance %s has %d tasks and %s, of the same zone, %d\n%s", a, counts[a], b, counts[b], h.describe("web"))
					}
				}
			}
			h.now = h.now.Add(time.Second)
		}
	})
}

// TestPlan_RebalancePausesOnFailure holds that a task that doesn't run where it was
// moved to pauses the rebalance, also where an update would be rolled back; and that
// what ran before, with start-first, runs on.
func TestPlan_RebalancePausesOnFailure(t *testing.T) {
	for _, action := range []string{swarm.UpdateFailureActionPause, swarm.UpdateFailureActionRollback} {
		h := newHive(t)
		h.put(h.node("n1"))
		four := uint64(4)
		h.service("web", func(s *swarm.ServiceSpec) {
			s.Mode.Replicated.Replicas = &four
			s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, FailureAction: action, Order: swarm.UpdateOrderStartFirst}
		})
		h.service("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:2" })
		for range 20 {
			h.settle()
			h.obey()
			h.now = h.now.Add(10 * time.Second)
			h.elect()
		}
		h.put(h.node("n2"))
		if err := h.rebalance("web"); err != nil {
			t.Fatal(err)
		}
		for _, intent := range h.settle() {
			if c, ok := intent.(*create); ok {
				h.report(c.Task.ID, cluster.StateFailed, "task: non-zero exit (1)")
			}
		}
		h.settle()
		rollout, runs := h.db.View().Rollout("web"), 0
		for task := range h.db.View().TasksOfService("web") {
			if task.Live() {
				runs++
			}
		}
		if rollout.State != swarm.UpdateStatePaused || runs != 4 || h.db.View().Service("web").Spec.TaskTemplate.ContainerSpec.Image != "app:2" {
			t.Errorf("%s: the rebalance is %s (%s), %d tasks are wanted\n%s", action, rollout.State, rollout.Message, runs, h.describe("web"))
		}
		if err := h.rebalance("web"); err != nil || h.db.View().Rollout("web").Paused() {
			t.Errorf("%s: it can't be begun anew: %v", action, err)
		}
	}
}
