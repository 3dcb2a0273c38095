package clustertest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestCluster_PlacementOutlivesTheLeader holds that what a task has of its node, a
// port, a generic resource by name, its neighbours, is the same under a new leader.
func TestCluster_PlacementOutlivesTheLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gpu := func(name string) swarm.GenericResource {
			return swarm.GenericResource{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: name}}
		}
		c := Start(t, 3, 1, Options{Generic: []swarm.GenericResource{gpu("a"), gpu("b")}})
		leader := c.Leader()
		for i, zone := range []string{"x", "x", "y", "y"} {
			leader.editNode(fmt.Sprintf("n%d", i+1), func(s *swarm.NodeSpec) { s.Labels = map[string]string{"zone": zone} })
		}
		apart := Spec("apart", "app:1", 1)
		apart.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==n4"}}
		apartID := leader.Create(apart)
		web := Spec("web", "app:1", 3)
		web.Labels = map[string]string{"skep.anti-affinity": "apart"}
		web.EndpointSpec = &swarm.EndpointSpec{Ports: cluster.ParsePorts("8080:80/tcp,0:81/tcp")}
		web.TaskTemplate.Placement = &swarm.Placement{Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}}
		one := []swarm.GenericResource{{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "gpu", Value: 1}}}
		web.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{GenericResources: one}}
		web.UpdateConfig = &swarm.UpdateConfig{Order: swarm.UpdateOrderStartFirst, Parallelism: 1, Monitor: time.Second}
		id := leader.Create(web)
		c.Runs(20*time.Second, id, "app:1", 3)
		c.Runs(20*time.Second, apartID, "app:1", 1)

		// sound checks what holds of all tasks that run.
		sound := func(m *Machine, services ...string) error {
			on := map[string]string{}
			for _, service := range services {
				tasks, err := m.Tasks(service, "running")
				if err != nil {
					return err
				}
				for _, task := range tasks {
					if other := on[task.NodeID]; other != "" {
						return fmt.Errorf("%s and %s are on the same node", other, task.ID)
					}
					on[task.NodeID] = task.ID
					if service != id {
						continue
					}
					if r := task.GenericResources; len(r) != 1 || r[0].NamedResourceSpec == nil {
						return fmt.Errorf("task %s has %+v", task.ID, r)
					}
					ports := task.Status.PortStatus.Ports
					if len(ports) != 2 || ports[0].PublishedPort != 32768 || ports[1].PublishedPort != 8080 {
						return fmt.Errorf("task %s has the ports %+v", task.ID, ports)
					}
				}
			}
			return nil
		}
		if err := sound(leader, id, apartID); err != nil {
			t.Fatal(err)
		}
		crashed := leader
		crashed.Crash()
		leader = c.Manager()
		c.Eventually(40*time.Second, "the third, for which there is no node, says why", func() error {
			tasks, err := leader.Tasks(id)
			for _, task := range tasks {
				if strings.Contains(task.Status.Err, "host-mode port 8080/tcp in use on 2 nodes") &&
					strings.Contains(task.Status.Err, "anti-affinity with service apart on 1 node") {
					return nil
				}
			}
			return fmt.Errorf("%v%s", err, describe(tasks))
		})
		leader.Update(id, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Image = "app:2"
			*s.Mode.Replicated.Replicas = 2
		})
		c.Runs(60*time.Second, id, "app:2", 2) // start-first, with no node to start on first
		if err := sound(leader, id, apartID); err != nil {
			t.Fatal(err)
		}
		crashed.Restart()
		leader.Do(http.MethodDelete, "/services/"+id, nil, nil)
		leader.Do(http.MethodDelete, "/services/"+apartID, nil, nil)
		c.Eventually(40*time.Second, "nothing is left", func() error {
			if n := leader.node.Manager().Store().View().TaskCount(); n > 0 {
				return fmt.Errorf("%d tasks are", n)
			}
			return nil
		})
		c.Same()
	})
}
