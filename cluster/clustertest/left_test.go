package clustertest

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster/node"
)

// A machine that is rebooted in order is known to go, so its tasks are replaced as soon as
// those of one that crashed; a daemon that is restarted keeps them.
func TestCluster_APlannedReboot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		m := c.Machines[0]
		worker := c.Machines[4]
		var halting atomic.Bool
		worker.Flags = func(cfg *node.Config) { cfg.Halting = halting.Load }
		worker.Stop()
		worker.Restart()
		time.Sleep(time.Second) // its farewell may be heard after its return
		c.allReady(30*time.Second, m)
		id, was := m.Create(Spec("web", "web:1", 5)), nodeID(worker)
		c.Runs(30*time.Second, id, "web:1", 5)
		elsewhere := func() int {
			tasks, err := m.Tasks(id, "running")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, task := range tasks {
				if task.NodeID != was && task.Status.State == swarm.TaskStateRunning {
					n++
				}
			}
			return n
		}
		worker.Stop()
		time.Sleep(5 * time.Second)
		if n := elsewhere(); n != 4 {
			t.Errorf("while the daemon is restarted, %d tasks run on the others", n)
		}
		worker.Restart()
		time.Sleep(time.Second)
		c.allReady(30*time.Second, m)
		halting.Store(true)
		worker.Stop()
		time.Sleep(time.Second)
		if n := elsewhere(); n != 5 {
			t.Errorf("a second after the machine was stopped, %d tasks run on the others", n)
		}
		halting.Store(false)
		worker.Restart()
		c.Runs(10*time.Second, id, "web:1", 5)
		c.Same()
	})
}

// The tasks of a node that left for good don't read as running until somebody removes
// the node: nobody will ever tell what became of them.
func TestCluster_TasksOfANodeThatLeftAreGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 2, Options{})
		m := c.Machines[0]
		id := m.Create(Spec("web", "web:1", 6))
		c.Runs(10*time.Second, id, "web:1", 6)
		left := c.Machines[2]
		was := nodeID(left)
		left.Do(http.MethodPost, "/swarm/leave", nil, nil)
		c.Runs(10*time.Second, id, "web:1", 6)
		c.Eventually(5*time.Second, "the tasks of the node that left are given up", func() error {
			tasks, err := m.Tasks(id)
			if err != nil {
				return err
			}
			there := 0
			for _, task := range tasks {
				if task.NodeID != was {
					continue
				}
				there++
				if task.Status.State != swarm.TaskStateOrphaned || task.Status.Err != "node left the swarm" {
					return fmt.Errorf("%s", describe(tasks))
				}
			}
			if there != 2 {
				return fmt.Errorf("%d tasks were there%s", there, describe(tasks))
			}
			return nil
		})
		c.Same()
	})
}
