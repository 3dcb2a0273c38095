package clustertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestCluster_PowerCut switches all machines off at once, and on again in several orders.
// Whoever comes first may take over from those that don't; in the end the tasks are where
// they would be placed, without anybody's doing, and no task was moved more than once to
// get there.
func TestCluster_PowerCut(t *testing.T) {
	// More than the failures that put a node last.
	const each, machines = 6, 5
	for name, after := range map[string][]time.Duration{ // of the machines, the managers first
		"at once":               {0, 0, 0, 0, 0},
		"workers late":          {0, 0, 0, 30 * time.Second, 40 * time.Second},
		"a manager late":        {0, 0, 40 * time.Second, 0, 0},
		"one after the other":   {0, 20 * time.Second, 40 * time.Second, time.Minute, 80 * time.Second},
		"the quorum comes last": {time.Minute, 2 * time.Minute, 2 * time.Minute, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 2, Options{})
				id := c.Machines[0].Create(Spec("web", "web:1", each*machines))
				c.Runs(10*time.Second, id, "web:1", each*machines)
				tasks, err := c.Manager().Tasks(id, "running")
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range c.Machines {
					m.Crash()
					for _, task := range tasks {
						m.Driver.Kill(task.ID, 137)
					}
				}
				time.Sleep(time.Minute)
				begun := 0
				for at := time.Duration(0); begun < len(after); at += time.Second {
					for i, m := range c.Machines {
						if after[i] == at {
							m.Restart()
							begun++
						}
					}
					time.Sleep(time.Second)
				}
				c.allReady(30*time.Second, c.Machines[0])
				c.Eventually(time.Minute, "as many tasks run on each machine", func() error {
					tasks, err := c.Manager().Tasks(id)
					if err != nil {
						return err
					}
					perNode, perSlot := map[string]int{}, map[int]int{}
					for _, task := range tasks {
						if task.CreatedAt.After(c.Manager().clock.Now().Add(-4 * time.Minute)) {
							perSlot[task.Slot]++
						}
						if task.DesiredState == swarm.TaskStateRunning && task.Status.State == swarm.TaskStateRunning {
							perNode[task.NodeID]++
						}
					}
					for slot, n := range perSlot {
						if n > 3 { // one that replaces it elsewhere, one that failed, one that brings it back
							t.Fatalf("%d tasks in slot %d%s", n, slot, describe(tasks))
						}
					}
					if len(perNode) != machines {
						return fmt.Errorf("they run on %v%s", perNode, describe(tasks))
					}
					for _, n := range perNode {
						if n != each {
							return fmt.Errorf("they run on %v%s", perNode, describe(tasks))
						}
					}
					return nil
				})
				c.Same()
			})
		})
	}
}
