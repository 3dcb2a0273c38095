package clustertest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"skep/cluster"
)

// faults does random harm to a cluster that works, heals everything, and checks:
// what was acknowledged is there, all managers are equal, and what is wanted runs.
func faults(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	c := Start(t, 3, 3, Options{SnapshotEntries: 50})
	ids := map[string]int{}
	for i := range 3 {
		ids[c.Machines[0].Create(Spec(fmt.Sprintf("web-%d", i), "app:1", 4))] = 4
	}
	agent := c.Machines[0].Create(globalSpec("agent", "app:1"))
	ids[agent] = len(c.Machines)
	job := c.Machines[0].Create(jobSpec("sums", 30, 4, 700*time.Millisecond))
	acknowledged := map[string]bool{}
	for round := range 12 {
		victim := c.Machines[random.IntN(len(c.Machines))]
		switch harm := random.IntN(4); {
		case harm == 0 && len(c.Alive()) > 4 && !victim.off():
			victim.Crash()
		case harm == 1:
			c.Partition(victim)
		case harm == 2 && !victim.off():
			victim.Stop()
			victim.Restart()
		default:
			c.Heal()
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
		alive := c.Alive()
		by := alive[random.IntN(len(alive))]
		name := fmt.Sprintf("note-%d", round)
		if by.node.Manager() != nil && by.Try("POST", "/services/create", Spec(name, "app:1", 0), nil) == nil {
			acknowledged[name] = true
		}
		for _, m := range c.Machines {
			if m.off() && random.IntN(2) == 0 {
				m.Restart()
			}
		}
	}
	c.Heal()
	for _, m := range c.Machines {
		if m.off() {
			m.Restart()
		}
	}
	for id, replicas := range ids {
		c.Runs(60*time.Second, id, "app:1", replicas)
	}
	c.completes(60*time.Second, job, 30)
	c.Same()
	view := c.Leader().node.Manager().Store().View()
	for name := range acknowledged {
		if view.ServiceNamed(name) == nil {
			t.Errorf("service %s was acknowledged and is lost", name)
		}
	}
	for service := range view.Services() {
		slots := map[string]int{}
		for task := range view.TasksOfService(service.ID) {
			if task.Live() && task.Status.State == cluster.StateRunning {
				slot := fmt.Sprint(task.Slot)
				if service.Global() {
					slot = task.NodeID
				}
				slots[slot]++
			}
		}
		for slot, count := range slots {
			if count > 1 {
				t.Errorf("slot %s of %s has %d running tasks", slot, service.Spec.Name, count)
			}
		}
	}
}
