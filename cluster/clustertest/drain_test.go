package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// drainFor drains a node for a while, as `skep node drain --for` does.
func (m *Machine) drainFor(of *Machine, length time.Duration) time.Time {
	m.cluster.t.Helper()
	var drained cluster.Drained
	m.Do(http.MethodPost, fmt.Sprintf("/skep/v1/nodes/%s/drain?for=%v", nodeID(of), length), nil, &drained)
	return drained.Until
}

// availability is what the leader says of a machine's node.
func (c *Cluster) availability(m *Machine) (swarm.NodeSpec, error) {
	var node swarm.Node
	err := c.Leader().Try(http.MethodGet, "/nodes/"+nodeID(m), nil, &node)
	return node.Spec, err
}

// activeAgain waits until a drained node is active, which it mustn't be before until.
func (c *Cluster) activeAgain(m *Machine, until time.Time) {
	c.t.Helper()
	early := time.Time{}
	c.Eventually(time.Until(until)+30*time.Second, m.Name+" is active again", func() error {
		now := time.Now()
		spec, err := c.availability(m)
		if err != nil {
			return err
		}
		if spec.Availability != swarm.NodeAvailabilityActive {
			return fmt.Errorf("it is %s until %s", spec.Availability, cluster.DrainsUntil(spec))
		}
		if _, left := spec.Labels[cluster.LabelDrainUntil.Name]; left {
			c.t.Errorf("%s is active with labels %v", m.Name, spec.Labels)
		}
		if now.Before(until) {
			early = now
		}
		return nil
	})
	if !early.IsZero() {
		c.t.Errorf("%s was active again at %v, before %v", m.Name, early, until)
	}
}

// TestDrain_EndsWhoeverLeads drains a node for a while: it is empty, the leader dies, and then
// all managers are off when the time is over.
func TestDrain_EndsWhoeverLeads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		c.managersOnly()
		id := c.Machines[0].Create(Spec("web", "app:1", 4))
		c.Runs(20*time.Second, id, "app:1", 4)
		worker := c.Machines[3]
		asked := c.Machines[0]
		if asked == c.Leader() {
			asked = c.Machines[1]
		}
		until := asked.drainFor(worker, 2*time.Minute)
		empty := func() error {
			counts, err := c.perNode(id)
			if err == nil && counts[nodeID(worker)] > 0 {
				err = fmt.Errorf("%d tasks are on it", counts[nodeID(worker)])
			}
			return err
		}
		c.Eventually(time.Minute, "the node is empty", empty)
		if left := time.Until(until); left < time.Minute || left > 2*time.Minute+time.Second {
			t.Fatalf("%v are left of the drain", left)
		}
		dead := c.Leader()
		dead.Crash()
		for _, n := range c.clusterStatus().Nodes {
			if want := n.NodeID == nodeID(worker); n.DrainUntil.Equal(until) != want {
				t.Errorf("node %s is drained until %v, want %v: %v", n.Hostname, n.DrainUntil, until, want)
			}
		}
		c.activeAgain(worker, until)
		dead.Restart()
		id = c.Machines[0].Create(Spec("again", "app:1", 4))
		c.Runs(20*time.Second, id, "app:1", 4)
		if empty() == nil {
			t.Error("an active node gets no task")
		}

		// All managers are off when it is over, and come back later.
		until = c.Leader().drainFor(worker, time.Minute)
		for _, m := range c.Machines[:3] {
			m.Crash()
		}
		time.Sleep(10 * time.Minute)
		for _, m := range c.Machines[:3] {
			m.Restart()
		}
		c.activeAgain(worker, until)
		c.Same()
	})
}

// TestDrain_IsOverridden changes the time of a drain, or has it end sooner or never.
func TestDrain_IsOverridden(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		m, worker := c.Machines[0], c.Machines[1]
		edit := func(change func(*swarm.NodeSpec)) { m.editNode(nodeID(worker), change) }
		drained := func(what string) {
			t.Helper()
			if spec, err := c.availability(worker); err != nil || spec.Availability != swarm.NodeAvailabilityDrain {
				t.Errorf("%s: %s, %v", what, spec.Availability, err)
			}
		}
		first := m.drainFor(worker, time.Minute)
		second := m.drainFor(worker, 3*time.Minute)
		time.Sleep(time.Until(first) + 10*time.Second)
		drained("with a later time after the first")
		c.activeAgain(worker, second)

		until := m.drainFor(worker, time.Minute)
		// Whoever changes another label sends this one back.
		edit(func(s *swarm.NodeSpec) { s.Labels["zone"] = "a" })
		drained("with another label")
		c.activeAgain(worker, until)
		if spec, err := c.availability(worker); err != nil || spec.Labels["zone"] != "a" {
			t.Errorf("labels %v, %v", spec.Labels, err)
		}

		until = m.drainFor(worker, time.Minute)
		edit(func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityActive })
		edit(func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityPause })
		time.Sleep(time.Until(until) + 10*time.Second)
		if spec, err := c.availability(worker); err != nil || spec.Availability != swarm.NodeAvailabilityPause {
			t.Errorf("activated and paused before its time: %s, %v", spec.Availability, err)
		}

		until = m.drainFor(worker, time.Minute)
		edit(func(s *swarm.NodeSpec) { delete(s.Labels, cluster.LabelDrainUntil.Name) })
		time.Sleep(time.Until(until) + 5*time.Minute)
		drained("for good")
	})
}
