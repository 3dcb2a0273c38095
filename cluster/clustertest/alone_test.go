package clustertest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/node"
)

// Two of three managers are lost for good: the third goes on alone with all that
// was committed, and what runs on nodes that are left is not touched.
func TestCluster_GoesOnAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		for i := range 20 {
			c.Machines[i%3].Create(Spec(fmt.Sprint("note-", i), "app:1", 0))
		}
		last, lost := c.Machines[0], c.Machines[1:3]
		alone := swarm.InitRequest{ForceNewCluster: true, ListenAddr: "0.0.0.0:2377"} // as docker sends it
		kept := map[string]bool{}
		for task := range c.Leader().node.Manager().Store().View().TasksOfService(id) {
			if task.NodeID != nodeID(lost[0]) && task.NodeID != nodeID(lost[1]) {
				kept[task.ID] = true
			}
		}
		if err := last.Try(http.MethodPost, "/swarm/init", alone, nil); err == nil || !strings.Contains(err.Error(), "has a leader") {
			t.Errorf("one manager of three that are well went on alone: %v", err)
		}
		worker := c.Machines[3]
		if err := worker.Try(http.MethodPost, "/swarm/init", alone, nil); err == nil {
			t.Error("a worker was made a cluster of its own")
		}
		for _, m := range lost {
			m.Crash()
		}
		time.Sleep(10 * time.Second)
		if err := last.Try(http.MethodPost, "/services/create", Spec("refused", "app:1", 1), nil); err == nil {
			t.Error("one manager of three took a write")
		}
		var self string
		last.Do(http.MethodPost, "/swarm/init", alone, &self)
		if self != nodeID(last) {
			t.Errorf("it has become node %s; it was %s", self, nodeID(last))
		}
		c.Runs(30*time.Second, id, "app:1", 10)
		view := last.node.Manager().Store().View()
		for i := range 20 {
			if view.ServiceNamed(fmt.Sprint("note-", i)) == nil {
				t.Errorf("service note-%d is lost", i)
			}
		}
		for id := range kept {
			if task := view.Task(id); task == nil || !task.Live() || task.Status.State != cluster.StateRunning {
				t.Errorf("task %s, on a node that was there all the time, is %+v", id, task)
			}
		}
		for node := range view.Nodes() {
			if manager := node.Role == swarm.NodeRoleManager; manager != (node.ID == self) {
				t.Errorf("%s is %s", node.Description.Hostname, node.Role)
			}
		}

		// One that comes back after all is a worker, and has no copy any more.
		back := lost[0]
		back.Restart()
		c.Eventually(60*time.Second, "the lost manager is a ready worker", func() error {
			node := last.node.Manager().Store().View().Node(nodeID(back))
			if node.Role != swarm.NodeRoleWorker || node.Status.State != cluster.NodeReady || back.node.Manager() != nil {
				return fmt.Errorf("%s, %v, a manager: %v", node.Role, node.Status.State, back.node.Manager() != nil)
			}
			_, err := os.Stat(filepath.Join(c.dir, back.Name, "raft"))
			if !os.IsNotExist(err) {
				return fmt.Errorf("its database is there: %v", err)
			}
			return nil
		})
		// It can be a manager again, and a restart doesn't repeat the order.
		promote := func(m *Machine) {
			var node swarm.Node
			last.Do(http.MethodGet, "/nodes/"+nodeID(m), nil, &node)
			node.Spec.Role = swarm.NodeRoleManager
			last.Do(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", node.ID, node.Version.Index), node.Spec, nil)
		}
		promote(back)
		promote(worker)
		c.Eventually(30*time.Second, "there are three managers", func() error {
			if back.node.Manager() == nil || worker.node.Manager() == nil {
				return fmt.Errorf("not all are managers")
			}
			return nil
		})
		last.Stop()
		last.Restart()
		c.Eventually(30*time.Second, "there are still three managers", func() error {
			var status cluster.Status
			if err := worker.Try(http.MethodGet, "/skep/v1/status", nil, &status); err != nil {
				return err
			}
			reachable := 0
			for _, manager := range status.Managers {
				if manager.Reachable && manager.Voter {
					reachable++
				}
			}
			if reachable != 3 {
				return fmt.Errorf("%d managers answer", reachable)
			}
			return nil
		})
		c.Runs(30*time.Second, id, "app:1", 10)
		c.Same()
	})
}

// TestAlone_OneThatWasBehind: the manager that is left was off while the others wrote on. What
// they wrote is lost with them, but agents have seen it: they follow the manager all the same.
func TestAlone_OneThatWasBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		last, lost := c.Machines[0], c.Machines[1:3]
		id := last.Create(Spec("web", "app:1", 6))
		c.Runs(10*time.Second, id, "app:1", 6)
		last.Stop()
		for n := range 100 {
			lost[n%2].writes(fmt.Sprint("lost-", n), 10*time.Second)
		}
		lost[0].Update(id, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = "app:2" })
		c.Runs(30*time.Second, id, "app:2", 6)
		for _, m := range lost {
			m.Crash()
		}
		last.Restart()
		time.Sleep(time.Second)
		last.Do(http.MethodPost, "/swarm/init", swarm.InitRequest{ForceNewCluster: true, ListenAddr: last.IP}, nil)
		c.managers = 1
		c.Runs(30*time.Second, id, "app:1", 6)
		after := last.Create(Spec("after", "app:1", 6))
		c.Runs(30*time.Second, after, "app:1", 6)
	})
}

// TestAlone_PromotedBeforeItKnows: a lost manager is to be a manager again before it has heard
// that it was none, with a database of its own time, or of another cluster that went on
// alone, as when an operator tries one machine after the other. It gets the cluster's.
func TestAlone_PromotedBeforeItKnows(t *testing.T) {
	for _, other := range []bool{false, true} {
		t.Run(fmt.Sprintf("another went on alone: %v", other), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 0, Options{})
				last, back, third := c.Machines[0], c.Machines[1], c.Machines[2]
				last.Create(Spec("all", "app:1", 0))
				c.Same()
				written := []string{"all"}
				write := func(by *Machine, prefix string) {
					for n := range 10 {
						written = append(written, fmt.Sprint(prefix, n))
						by.writes(fmt.Sprint(prefix, n), 10*time.Second)
					}
				}
				alone := func(m *Machine) {
					m.Restart()
					time.Sleep(time.Second)
					m.Do(http.MethodPost, "/swarm/init", swarm.InitRequest{ForceNewCluster: true, ListenAddr: m.IP}, nil)
				}
				last.Stop()
				write(back, "lost-")
				if other {
					back.Stop()
					third.Stop()
					alone(third)
					third.setRole(back, swarm.NodeRoleManager)
					back.Restart()
					c.managers = 2
					c.vote(2)
					write(third, "other-")
				}
				third.Stop()
				back.Stop()
				alone(last)
				written = written[:1]
				write(last, "after-")
				last.setRole(back, swarm.NodeRoleManager)
				back.Flags = func(config *node.Config) { config.Join = []string{last.IP} }
				back.Restart()
				c.vote(2)
				c.has(written)
				for host, view := range c.Views() {
					if view.ServiceNamed("lost-0") != nil || view.ServiceNamed("other-0") != nil {
						t.Errorf("%s has what was written by those that were lost", host)
					}
				}
			})
		})
	}
}
