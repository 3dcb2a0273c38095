package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// slowly has a service's tasks take some time to start, so that there is a middle
// in which a leader can die.
func slowly(spec swarm.ServiceSpec) swarm.ServiceSpec {
	spec.Labels = map[string]string{"skep.simulate.start-delay": "500ms"}
	return spec
}

// perNode counts the service's running tasks.
func (c *Cluster) perNode(id string) (map[string]int, error) {
	tasks, err := c.Manager().Tasks(id, "running")
	counts := map[string]int{}
	for _, t := range tasks {
		if t.Status.State == swarm.TaskStateRunning {
			counts[t.NodeID]++
		}
	}
	return counts, err
}

// status waits until the service's update has the state.
func (c *Cluster) status(limit time.Duration, id string, state swarm.UpdateState) swarm.UpdateStatus {
	c.t.Helper()
	var status swarm.UpdateStatus
	c.Eventually(limit, "the update is "+string(state), func() error {
		var service swarm.Service
		if err := c.Manager().Try(http.MethodGet, "/services/"+id, nil, &service); err != nil {
			return err
		}
		if service.UpdateStatus == nil || service.UpdateStatus.State != state {
			return fmt.Errorf("it is %+v", service.UpdateStatus)
		}
		status = *service.UpdateStatus
		return nil
	})
	return status
}

// crashInTheMiddle crashes the leader when some but not all of so many slots are done.
func (c *Cluster) crashInTheMiddle(what string, all int, done func() (int, error)) *Machine {
	c.t.Helper()
	c.Eventually(30*time.Second, what+" is in the middle", func() error {
		n, err := done()
		if err == nil && n < 2 {
			err = fmt.Errorf("%d of %d", n, all)
		}
		return err
	})
	leader := c.Leader()
	if n, err := done(); err != nil || n >= all {
		c.t.Fatalf("%s: %d of %d are done already (%v)", what, n, all, err)
	}
	leader.Crash()
	return leader
}

// managersOnly keeps services off the managers, which are to die.
func (c *Cluster) managersOnly() {
	for _, m := range c.Machines[:3] {
		c.Machines[0].editNode(nodeID(m), func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityDrain })
	}
}

func TestCluster_RebalanceSurvivesItsLeader(t *testing.T) {
	for _, order := range []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
		bubble(t, func(t *testing.T) {
			c := Start(t, 3, 3, Options{})
			c.managersOnly()
			away := nodeID(c.Machines[5])
			availability := func(a swarm.NodeAvailability) {
				c.Machines[0].editNode(away, func(s *swarm.NodeSpec) { s.Availability = a })
			}
			availability(swarm.NodeAvailabilityDrain)
			spec := slowly(Spec("web", "app:1", 12))
			spec.UpdateConfig.Order, spec.UpdateConfig.Delay = order, 500*time.Millisecond
			id := c.Machines[0].Create(spec)
			c.Runs(20*time.Second, id, "app:1", 12)
			availability(swarm.NodeAvailabilityActive)
			time.Sleep(5 * time.Second)
			if counts, err := c.perNode(id); err != nil || counts[away] != 0 {
				t.Fatalf("tasks moved without an order: %v %v", counts, err)
			}
			c.Machines[1].Do(http.MethodPost, "/skep/v1/services/web/rebalance", nil, nil)
			dead := c.crashInTheMiddle("the rebalance", 4, func() (int, error) {
				counts, err := c.perNode(id)
				return counts[away], err
			})
			if status := c.status(30*time.Second, id, swarm.UpdateStateCompleted); status.Message != "rebalance completed" {
				t.Errorf("status %+v", status)
			}
			c.Runs(10*time.Second, id, "app:1", 12)
			counts, err := c.perNode(id)
			if err != nil || len(counts) != 3 || counts[away] != 4 {
				t.Errorf("after the rebalance there are %v (%v)", counts, err)
			}
			dead.Restart()
			c.Manager().Do(http.MethodPost, "/skep/v1/services/web/rebalance", nil, nil)
			c.status(10*time.Second, id, swarm.UpdateStateCompleted)
			if again, err := c.perNode(id); err != nil || fmt.Sprint(again) != fmt.Sprint(counts) {
				t.Errorf("a second rebalance made %v of %v (%v)", again, counts, err)
			}
			c.Same()
		})
	}
}

// TestCluster_RollbackToARevisionSurvivesItsLeader is for `service rollback --to`.
func TestCluster_RollbackToARevisionSurvivesItsLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		c.managersOnly()
		spec := slowly(Spec("web", "app:1", 6))
		spec.RollbackConfig = &swarm.UpdateConfig{Parallelism: 1, Monitor: time.Second}
		spec.UpdateConfig.Parallelism = 0
		id := c.Machines[0].Create(spec)
		c.Runs(20*time.Second, id, "app:1", 6)
		for i := 2; i <= 4; i++ {
			image := fmt.Sprintf("app:%d", i)
			c.Machines[0].Update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = image })
			c.Runs(20*time.Second, id, image, 6)
			c.status(20*time.Second, id, swarm.UpdateStateCompleted)
		}
		version := c.Machines[0].Service(id).Version.Index
		c.Machines[0].Do(http.MethodPost, fmt.Sprintf("/skep/v1/services/%s/rollback?version=%d&to=2", id, version), nil, nil)
		dead := c.crashInTheMiddle("the rollback", 6, func() (int, error) {
			tasks, err := c.Manager().Tasks(id, "running")
			n := 0
			for _, task := range tasks {
				if task.Spec.ContainerSpec.Image == "app:2" && task.Status.State == swarm.TaskStateRunning {
					n++
				}
			}
			return n, err
		})
		c.Runs(60*time.Second, id, "app:2", 6)
		c.status(20*time.Second, id, swarm.UpdateStateRollbackCompleted)
		service := c.Manager().Service(id)
		if service.Spec.TaskTemplate.ContainerSpec.Image != "app:2" || service.PreviousSpec.TaskTemplate.ContainerSpec.Image != "app:4" {
			t.Errorf("the service runs %+v, its previous spec is %+v", service.Spec.TaskTemplate.ContainerSpec, service.PreviousSpec.TaskTemplate.ContainerSpec)
		}
		dead.Restart()
		c.Same()
	})
}

// TestCluster_DrainSurvivesItsLeader is for what `node drain --wait` waits for: the
// node gets empty, one slot after the other, whoever leads.
func TestCluster_DrainSurvivesItsLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{})
		c.managersOnly()
		id := c.Machines[0].Create(slowly(Spec("web", "app:1", 12)))
		c.Runs(20*time.Second, id, "app:1", 12)
		drained := nodeID(c.Machines[4])
		c.Machines[0].editNode(drained, func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityDrain })
		least := 12
		left := func() (int, error) {
			counts, err := c.perNode(id)
			all := 0
			for _, n := range counts {
				all += n
			}
			if err == nil {
				least = min(least, all)
			}
			return counts[drained], err
		}
		dead := c.crashInTheMiddle("draining", 4, func() (int, error) {
			n, err := left()
			return 4 - n, err
		})
		c.Eventually(30*time.Second, "the node is empty", func() error {
			// What the command looks at: all tasks of the node that haven't ended.
			n, err := left()
			if err == nil && n > 0 {
				err = fmt.Errorf("%d tasks are left", n)
			}
			return err
		})
		c.Runs(20*time.Second, id, "app:1", 12)
		if least < 11 {
			t.Errorf("only %d of 12 tasks ran at some time, though one may be moved at a time", least)
		}
		dead.Restart()
		c.Same()
	})
}
