package scheduler

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestPlan_FencesTrustNoOtherClock has a leader whose clock is far ahead go on from
// one that found a node down: the node's lease isn't over for that.
func TestPlan_FencesTrustNoOtherClock(t *testing.T) {
	h := newHive(t)
	h.put(h.node("n1"))
	h.service("only", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{cluster.LabelFence.Name: "true"} })
	h.settle()
	h.obey()
	h.put(h.node("n2"))
	h.settle()
	lost := *h.node("n1")
	lost.Status.State, lost.Status.Since = cluster.NodeDown, h.now
	h.put(&lost)
	h.settle()
	h.obey()
	wait := h.db.View().Revision("only", 1).FenceWait()
	h.now = h.now.Add(time.Hour)
	h.elect()
	started := func() bool {
		h.settle()
		h.obey()
		for task := range h.db.View().TasksOfNode("n2") {
			if task.Status.State == cluster.StateRunning {
				return true
			}
		}
		return false
	}
	if started() {
		t.Fatal("the replacement starts as soon as another leads, by the time that the one before wrote")
	}
	h.now = h.now.Add(wait - time.Millisecond)
	if started() {
		t.Errorf("the replacement starts before it has waited %v", wait)
	}
	h.now = h.now.Add(time.Millisecond)
	if !started() {
		t.Errorf("the replacement doesn't start after %v\n%s", wait, h.describe("only"))
	}
}
