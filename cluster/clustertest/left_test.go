package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

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
