package clustertest

import (
	"fmt"
	"testing"
	"time"

	"skep/cluster/manager"
)

// TestIsland cuts the leader off together with workers, up to more than a third of all
// nodes: the managers that are left agree that they are gone, so nothing waits. All
// whose sessions the leader has are on the island, as in the lab's scenario: others
// would first have to miss it: see the next test. Agents choose a manager by chance;
// so that somebody is left, the last one chooses until it isn't the leader.
func TestIsland(t *testing.T) {
	for workers := range 4 {
		t.Run(fmt.Sprint("the leader and workers, ", workers), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 8, Options{})
				id := c.Machines[0].Create(Spec("web", "app:1", 16))
				c.Runs(10*time.Second, id, "app:1", 16)
				leader := c.Leader()
				var other *Machine
				for _, m := range c.Machines[:3] {
					if m != leader {
						other = m
					}
				}
				onIsland := func(i int, m *Machine) bool {
					sessions := leader.node.Manager().(*manager.Manager).Sessions()
					return i < workers || sessions[nodeID(m)] == nodeID(leader)
				}
				last := c.Machines[10]
				for again := 0; onIsland(7, last); again++ {
					if again == 20 {
						t.Fatalf("%s chose the leader %d times", last.Name, again)
					}
					last.Stop()
					last.Restart()
					c.Runs(20*time.Second, id, "app:1", 16)
				}
				island := []*Machine{leader}
				for i, m := range c.Machines[3:] {
					if onIsland(i, m) {
						island = append(island, m)
					}
				}
				lost := map[string]bool{}
				for _, m := range island {
					lost[nodeID(m)] = true
				}
				c.Partition(island...)
				cut := time.Now()
				c.Eventually(time.Minute, "16 tasks run beyond the cut", func() error {
					tasks, err := other.Tasks(id, "running")
					if err != nil {
						return err
					}
					run := 0
					for _, task := range tasks {
						if !lost[task.NodeID] && task.Status.State == "running" {
							run++
						}
					}
					if run != 16 {
						return fmt.Errorf("%d tasks run there%s", run, describe(tasks))
					}
					return nil
				})
				if took := time.Since(cut); took > 2*time.Second {
					t.Errorf("the services were whole again after %v", took)
				}
				c.Heal()
				c.Runs(20*time.Second, id, "app:1", 16)
				c.Same()
			})
		})
	}
}

// TestIsland_TheAgentsThatItsManagerHad cuts off the manager that has the most workers'
// sessions, alone: those workers are told nothing until they have found another manager,
// so that tasks which move to them don't start. Gossip misses the manager long before its
// silence alone says enough, and before they call it again: a machine without power doesn't refuse.
func TestIsland_TheAgentsThatItsManagerHad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 8, Options{})
		sessions := c.Leader().node.Manager().(*manager.Manager).Sessions()
		has := map[string]int{}
		for _, m := range c.Machines[3:] {
			has[sessions[nodeID(m)]]++
		}
		lost, rest := c.Machines[0], c.Machines[1:3:3]
		for i, m := range c.Machines[1:3] {
			if has[nodeID(m)] > has[nodeID(lost)] {
				lost, rest = m, []*Machine{c.Machines[0], c.Machines[2-i]}
			}
		}
		time.Sleep(20 * time.Second) // Then it isn't one that was called a moment ago.
		c.Partition(lost)
		cut := time.Now()
		c.Eventually(time.Minute, "all agents beyond the cut have a session there", func() error {
			there := map[string]bool{}
			for _, m := range rest {
				for id, with := range m.node.Manager().(*manager.Manager).Sessions() {
					there[id] = there[id] || with != nodeID(lost)
				}
			}
			for _, m := range c.Machines[3:] {
				if !there[nodeID(m)] {
					return fmt.Errorf("%s has none", m.Name)
				}
			}
			return nil
		})
		if took := time.Since(cut); took > 2*time.Second {
			t.Errorf("the last of %d agents found another manager after %v; want at most 2s", has[nodeID(lost)], took)
		}
	})
}
