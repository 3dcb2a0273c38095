package clustertest

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestCluster_RebalancesByItself has a node come back into a service that wants to be rebalanced. The leader
// dies in the quiet period, and another one while tasks are moved.
func TestCluster_RebalancesByItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{})
		c.managersOnly()
		away := nodeID(c.Machines[5])
		availability := func(a swarm.NodeAvailability) {
			c.Machines[0].editNode(away, func(s *swarm.NodeSpec) { s.Availability = a })
		}
		availability(swarm.NodeAvailabilityDrain)
		spec := slowly(Spec("web", "app:1", 12))
		spec.Labels["skep.rebalance"], spec.Labels["skep.rebalance.quiet"] = "auto", "30s"
		spec.UpdateConfig.Delay = 500 * time.Millisecond
		id := c.Machines[0].Create(spec)
		c.Runs(20*time.Second, id, "app:1", 12)
		availability(swarm.NodeAvailabilityActive)
		time.Sleep(15 * time.Second)
		dead := c.Leader()
		dead.Crash()
		time.Sleep(14 * time.Second)
		if counts, err := c.perNode(id); err != nil || counts[away] != 0 {
			t.Fatalf("tasks moved in the quiet period: %v %v", counts, err)
		}
		dead.Restart() // A node that is seen again begins the period anew.
		time.Sleep(20 * time.Second)
		second := c.crashInTheMiddle("the rebalance", 4, func() (int, error) {
			counts, err := c.perNode(id)
			return counts[away], err
		})
		if status := c.status(2*time.Minute, id, swarm.UpdateStateCompleted); status.Message != "rebalance completed" {
			t.Errorf("status %+v", status)
		}
		c.Runs(10*time.Second, id, "app:1", 12)
		if counts, err := c.perNode(id); err != nil || len(counts) != 3 || counts[away] != 4 {
			t.Errorf("after the rebalance there are %v (%v)", counts, err)
		}
		second.Restart()
		c.Same()
	})
}
