package clustertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// problemOf is what the status of the cluster says is wrong with the machine.
func (c *Cluster) problemOf(m *Machine) string {
	for _, problem := range c.clusterStatus().Problems {
		if strings.Contains(problem, nodeID(m)) {
			return problem
		}
	}
	return ""
}

// TestClash_KeepsTasksOffANode: the user of a node's engine makes a network there with the addresses
// of one of the cluster's. Tasks of that go elsewhere, those that wait say for what, and so do the node and
// the status, until the user's network is gone.
func TestClash_KeepsTasksOffANode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 2, Options{Networks: true})
		m, clashing, other := c.Machines[0], c.Machines[1], c.Machines[2]
		net := m.NewNetwork("web")
		subnet := c.Leader().manager().Store().View().Network(net).Subnets[0].Prefix
		clashing.Driver.SetAddressUses(cluster.AddressUse{Prefix: netip.PrefixFrom(subnet.Addr(), 30), By: "network old of its engine", Engine: true})
		// Nobody has told yet: the first tasks may be given to the node, and leave it again.
		spec := Spec("web", "app:1", 4)
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: net}}
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.role==worker"}}
		id := m.Create(spec)
		c.Runs(time.Minute, id, "app:1", 4)
		on := func() map[string]int {
			count := map[string]int{}
			for task := range c.Leader().manager().Store().View().TasksOfService(id) {
				if task.Live() && task.Status.State == cluster.StateRunning {
					count[task.NodeID]++
				}
			}
			return count
		}
		if on := on(); on[nodeID(other)] != 4 {
			t.Errorf("tasks run on %v, want 4 on %s", on, nodeID(other))
		}
		want := fmt.Sprintf("it gets no tasks of network web: its subnet %s overlaps %s/30, which network old of its engine has here", subnet, subnet.Addr())
		c.Eventually(time.Minute, "status and node say why", func() error {
			var shown swarm.Node
			if err := json.Unmarshal(m.Get("/nodes/"+nodeID(clashing)), &shown); err != nil || shown.Status.Message != want {
				return fmt.Errorf("the node says %q (%v), want %q", shown.Status.Message, err, want)
			}
			if problem := c.problemOf(clashing); !strings.HasSuffix(problem, "): "+want) {
				return fmt.Errorf("the status says %q, want %q", problem, want)
			}
			return nil
		})
		if networks := clashing.Driver.Networks(); len(networks) > 0 {
			t.Errorf("the engine has %q", networks)
		}

		m.editNode(other.Name, func(spec *swarm.NodeSpec) { spec.Availability = swarm.NodeAvailabilityDrain })
		reason := "addresses of network web in other use on 1 node"
		c.Eventually(time.Minute, "the tasks say what they wait for", func() error {
			for task := range c.Leader().manager().Store().View().TasksOfService(id) {
				if task.Live() && task.Status.State == cluster.StatePending && strings.Contains(task.Status.Err, reason) {
					return nil
				}
			}
			return errors.New("none does")
		})
		clashing.Driver.SetAddressUses()
		c.Runs(time.Minute, id, "app:1", 4)
		if on := on(); on[nodeID(clashing)] != 4 || c.problemOf(clashing) != "" {
			t.Errorf("tasks run on %v, the status says %q", on, c.problemOf(clashing))
		}
		c.Eventually(time.Minute, "the node carries the network", func() error { return clashing.samePlane(c.Leader().manager().Store().View()) })
	})
}
