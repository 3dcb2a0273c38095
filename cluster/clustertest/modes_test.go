package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

func globalSpec(name, image string) swarm.ServiceSpec {
	spec := Spec(name, image, 0)
	spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	return spec
}

// jobSpec is a job whose tasks take some time and then complete.
func jobSpec(name string, total, concurrent uint64, runFor time.Duration) swarm.ServiceSpec {
	spec := Spec(name, "app:1", 0)
	spec.UpdateConfig = nil
	spec.Labels = map[string]string{"skep.simulate.run-for": runFor.String()}
	spec.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &concurrent, TotalCompletions: &total}}
	return spec
}

// completes waits until so many parts of a job are complete, and nothing of it runs.
func (c *Cluster) completes(limit time.Duration, id string, total int) {
	c.t.Helper()
	c.Eventually(limit, fmt.Sprintf("%d parts of job %s are complete", total, id), func() error {
		view := c.Manager().node.Manager().Store().View()
		service := view.Service(id)
		if service == nil {
			return fmt.Errorf("there is no service")
		}
		complete := map[string]bool{}
		for t := range view.TasksOfService(id) {
			switch {
			case t.Revision != service.Revision:
				return fmt.Errorf("task %s of iteration %d is still there", t.ID, t.Revision)
			case t.Status.State == cluster.StateComplete && service.Global():
				complete[t.NodeID] = true
			case t.Status.State == cluster.StateComplete:
				complete[fmt.Sprint(t.Slot)] = true
			case t.Live() && !t.Status.State.Terminal():
				return fmt.Errorf("task %s is %s, wanted %s", t.ID, t.Status.State, t.Desired)
			}
		}
		if len(complete) != total {
			return fmt.Errorf("%d are", len(complete))
		}
		return nil
	})
}

// editNode changes a node's spec.
func (m *Machine) editNode(name string, edit func(*swarm.NodeSpec)) swarm.Node {
	m.cluster.t.Helper()
	var n swarm.Node
	m.Do(http.MethodGet, "/nodes/"+name, nil, &n)
	edit(&n.Spec)
	m.Do(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
	return n
}

func TestCluster_GlobalServiceIsOnEachNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 3, Options{})
		manager := c.Machines[0]
		id := manager.Create(globalSpec("agent", "app:1"))
		c.Runs(10*time.Second, id, "app:1", 4)
		// Nodes come and go.
		n := manager.editNode("n2", func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityDrain })
		c.Runs(10*time.Second, id, "app:1", 3)
		tasks, err := manager.Tasks(id, "running")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if task.NodeID == n.ID {
				t.Errorf("task %s is on the drained node", task.ID)
			}
		}
		manager.editNode("n2", func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityActive })
		c.Runs(10*time.Second, id, "app:1", 4)
		c.Machines[3].Crash()
		c.Runs(30*time.Second, id, "app:1", 3)
		c.Machines[3].Restart()
		c.Runs(30*time.Second, id, "app:1", 4)
		// A constraint that only one node meets, and then none.
		manager.editNode("n3", func(s *swarm.NodeSpec) { s.Labels = map[string]string{"disk": "ssd"} })
		manager.Update(id, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.disk==ssd"}}
		})
		c.Runs(10*time.Second, id, "app:1", 1)
		manager.editNode("n3", func(s *swarm.NodeSpec) { s.Labels = nil })
		c.Runs(10*time.Second, id, "app:1", 0)
		c.Same()
	})
}

// TestCluster_WaitingGlobalTaskIsNotItsNodes holds that a task that waits for room
// on its node is told to no agent, holds nothing, and starts when there is room.
func TestCluster_WaitingGlobalTaskIsNotItsNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		manager := c.Machines[0]
		half := func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: 5e8}}
		}
		var nodes []swarm.Node
		manager.Do(http.MethodGet, "/nodes", nil, &nodes)
		eater := Spec("eater", "app:1", uint64(nodes[0].Description.Resources.NanoCPUs/5e8+nodes[1].Description.Resources.NanoCPUs/5e8))
		half(&eater)
		eaterID := manager.Create(eater)
		c.Runs(20*time.Second, eaterID, "app:1", int(*eater.Mode.Replicated.Replicas))
		agent := globalSpec("agent", "app:1")
		half(&agent)
		id := manager.Create(agent)
		c.Eventually(10*time.Second, "the tasks wait", func() error {
			tasks, err := manager.Tasks(id)
			if err != nil || len(tasks) != 2 {
				return fmt.Errorf("%d tasks, %v", len(tasks), err)
			}
			for _, task := range tasks {
				if task.NodeID == "" || task.Status.State != swarm.TaskStatePending || task.Status.Err != "no suitable node (insufficient CPU on 1 node)" {
					return fmt.Errorf("they are%s", describe(tasks))
				}
			}
			return nil
		})
		time.Sleep(30 * time.Second)
		tasks, err := manager.Tasks(id)
		if err != nil || len(tasks) != 2 || tasks[0].Status.State != swarm.TaskStatePending || tasks[1].Status.State != swarm.TaskStatePending {
			t.Fatalf("an agent took a task that waits: %v%s", err, describe(tasks))
		}
		manager.Update(eaterID, func(s *swarm.ServiceSpec) { *s.Mode.Replicated.Replicas -= 4 })
		c.Runs(20*time.Second, id, "app:1", 2)
		manager.Do(http.MethodDelete, "/services/"+eaterID, nil, nil)
		manager.Do(http.MethodDelete, "/services/"+id, nil, nil)
		c.Eventually(20*time.Second, "nothing is left", func() error {
			if n := manager.node.Manager().Store().View().TaskCount(); n > 0 {
				return fmt.Errorf("%d tasks are", n)
			}
			return nil
		})
	})
}

// TestCluster_GlobalUpdateGoesOnUnderANewLeader kills the leader in the middle of a
// global update, at several places.
func TestCluster_GlobalUpdateGoesOnUnderANewLeader(t *testing.T) {
	for step := 1; step <= 16; step += 3 {
		t.Run(fmt.Sprint("step ", step), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 2, Options{})
				id := c.Machines[0].Create(globalSpec("agent", "app:1"))
				c.Runs(10*time.Second, id, "app:1", 5)
				leader := c.Leader()
				changes := leader.node.Manager().Store().Subscribe()
				defer changes.Close()
				leader.Update(id, func(s *swarm.ServiceSpec) {
					s.TaskTemplate.ContainerSpec.Image = "app:2"
					s.UpdateConfig.Delay = 200 * time.Millisecond
				})
				for range step {
					<-changes.Ready()
					changes.Take()
				}
				leader.Crash()
				c.Runs(40*time.Second, id, "app:2", 4)
				leader.Restart()
				c.Runs(40*time.Second, id, "app:2", 5)
				c.Eventually(20*time.Second, "the update is completed", func() error {
					if status := c.Manager().Service(id).UpdateStatus; status == nil || status.State != swarm.UpdateStateCompleted {
						return fmt.Errorf("it is %+v", status)
					}
					return nil
				})
				c.Same()
			})
		})
	}
}

func TestCluster_JobSurvivesItsNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{})
		id := c.Machines[0].Create(jobSpec("sums", 12, 6, 5*time.Second))
		sweep := jobSpec("sweep", 0, 0, 3*time.Second)
		sweep.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
		each := c.Machines[0].Create(sweep)
		time.Sleep(2 * time.Second)
		c.Machines[5].Crash()
		c.Machines[0].editNode("n5", func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityDrain })
		c.completes(60*time.Second, id, 12)
		c.completes(60*time.Second, each, 4)
		c.Machines[0].editNode("n5", func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityActive })
		c.completes(60*time.Second, each, 5)
		c.Machines[5].Restart()
		c.completes(60*time.Second, each, 6)
		// Once more, though nothing changes.
		before := c.Machines[0].Service(id).JobStatus
		c.Machines[0].Update(id, func(*swarm.ServiceSpec) {})
		c.Eventually(10*time.Second, "it runs again", func() error {
			if after := c.Machines[0].Service(id).JobStatus; after.JobIteration.Index <= before.JobIteration.Index || !after.LastExecution.After(before.LastExecution) {
				return fmt.Errorf("%+v", after)
			}
			return nil
		})
		c.completes(60*time.Second, id, 12)
		c.Same()
	})
}
