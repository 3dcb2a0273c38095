package clustertest

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster/node"
)

// TestNetworks_OfEachEngine: the engine of a node has such a network while a task there is on it, beside
// one that spans nodes, and neither before nor afterwards.
func TestNetworks_OfEachEngine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{Networks: true})
		m := c.Machines[0]
		var lan network.CreateResponse
		m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "lan", CreateOptions: network.CreateOptions{Driver: "bridge", Scope: "swarm"}}, &lan)
		m.NewNetwork("over")
		has := func(want string) {
			t.Helper()
			c.Eventually(3*time.Minute, "the engines have "+want, func() error {
				var errs []error
				for _, m := range c.Machines {
					if got := fmt.Sprint(m.Driver.Networks()); got != want {
						errs = append(errs, fmt.Errorf("%s has %s", m.Name, got))
					}
				}
				return errors.Join(errs...)
			})
		}
		has("[]")
		spec := Spec("web", "app:1", 2)
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "over"}, {Target: "lan"}}
		spec.TaskTemplate.Placement = &swarm.Placement{MaxReplicas: 1}
		id := m.Create(spec)
		c.Runs(time.Minute, id, "app:1", 2)
		has("[lan over]")
		for task := range c.Leader().manager().Store().View().TasksOfService(id) {
			for _, m := range c.Machines {
				if attached := m.Driver.Places()[task.ID]; nodeID(m) == task.NodeID && (len(attached) != 2 || attached[1].Network.ID != lan.ID || attached[1].Host != 0 || len(task.Addresses) != 1) {
					t.Errorf("task %s is on %+v, with addresses %v", task.ID, attached, task.Addresses)
				}
			}
		}
		m.Do(http.MethodDelete, "/services/"+id, nil, nil)
		has("[]")
		m.Do(http.MethodDelete, "/networks/lan", nil, nil)
	})
}

// TestNetworks_LeftBehind: a node that carries no networks leaves none that its engine made by itself.
func TestNetworks_LeftBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{Networks: true})
		m, worker := c.Machines[0], c.Machines[1]
		worker.Stop()
		worker.Flags = func(cfg *node.Config) { cfg.Plane, cfg.NoPlane = nil, "no rights" }
		worker.Restart()
		m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "lan", CreateOptions: network.CreateOptions{Driver: "bridge", Scope: "swarm"}}, nil)
		spec := Spec("web", "app:1", 2)
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "lan"}}
		spec.TaskTemplate.Placement = &swarm.Placement{MaxReplicas: 1}
		c.Runs(time.Minute, m.Create(spec), "app:1", 2)
		if got := fmt.Sprint(worker.Driver.Networks()); got != "[lan]" {
			t.Errorf("its engine has %s", got)
		}
		worker.Do(http.MethodPost, "/swarm/leave", nil, nil)
		if left := worker.Driver.Networks(); len(left) > 0 {
			t.Errorf("it left %q", left)
		}
	})
}
