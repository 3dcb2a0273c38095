package clustertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	planner "skep/agent/network"
	"skep/cluster/manager"
	"skep/store"
)

// leadsTo tells whether the machine's plane leads anybody to one of the addresses.
func (m *Machine) leadsTo(t *testing.T, clusterID string, addrs map[string]bool) bool {
	existing, err := m.Plane.Dump(t.Context(), clusterID)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range existing.Objects {
		if chain, is := o.(planner.Chain); is && slices.ContainsFunc(strings.Fields(chain.Backends), func(b string) bool { return addrs[b] }) {
			return true
		}
	}
	return false
}

// addressesOf are those of a machine's tasks.
func addressesOf(v store.View, m *Machine) map[string]bool {
	addrs := map[string]bool{}
	for t := range v.TasksOfNode(nodeID(m)) {
		for _, a := range t.Addresses {
			addrs[v.NetworkOfVNI(a.VNI).Addrs(a.Host)[0].String()] = true
		}
	}
	return addrs
}

// globalWeb makes a service with a task on each machine, on a network and with a published port.
func (c *Cluster) globalWeb() (id string) {
	c.t.Helper()
	spec := Spec("web", "app:1", 0)
	spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: c.Machines[0].NewNetwork("net")}}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 80}}}
	id = c.Machines[0].Create(spec)
	c.Runs(time.Minute, id, "app:1", len(c.Machines))
	c.Carry()
	return id
}

// reaches tells whether the machine's plane has a way to any of the addresses, and doesn't refuse who takes it.
func (m *Machine) reaches(t *testing.T, clusterID string, addrs map[string]bool) bool {
	existing, err := m.Plane.Dump(t.Context(), clusterID)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(existing.Objects, func(o planner.Object) bool {
		n, is := o.(planner.Neighbour)
		return is && addrs[n.Addr.String()] && !slices.Contains(existing.Objects, planner.Object(planner.Element{Set: planner.SetGone, A: n.Addr.String()}))
	})
}

// TestMesh_ConnectionsEndWithAMachine has a machine lose its daemon, and then its power: the ways to its tasks, whose
// connections clients keep, are there as long as it lives, and again when it is back.
func TestMesh_ConnectionsEndWithAMachine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{Networks: true, RealGossip: true})
		id := c.globalWeb()
		leader := c.Leader()
		lost := c.Machines[(slices.Index(c.Machines, leader)+1)%3]
		v := leader.manager().Store().View()
		addrs, clusterID := addressesOf(v, lost), v.Cluster().ID
		reached := func() (by []string) {
			for _, m := range c.Machines {
				if m != lost && m.reaches(t, clusterID, addrs) {
					by = append(by, m.Name)
				}
			}
			return by
		}
		for i := range 8 {
			time.Sleep(20*time.Second + time.Duration(i)*137*time.Millisecond)
			c.Partition(lost)
			time.Sleep(1800 * time.Millisecond)
			if by := reached(); len(by) > 0 {
				t.Errorf("cut %d: 1.8 s later there is a way to %v from %v", i, addrs, by)
			}
			c.Heal()
			c.allReady(time.Minute, leader)
			c.Runs(time.Minute, id, "app:1", 3)
			c.Carry()
			addrs = addressesOf(c.Leader().manager().Store().View(), lost)
		}
		for what, end := range map[string]func(){"died": lost.Crash, "was stopped": lost.Stop} {
			end()
			time.Sleep(10 * time.Second)
			if by := reached(); len(by) != 2 {
				t.Errorf("after its daemon %s only %v have a way to its tasks", what, by)
			}
			c.Partition(lost)
			time.Sleep(8 * time.Second)
			if by := reached(); len(by) > 0 {
				t.Errorf("its daemon %s, and 8 s after the machine died, too, %v have a way to its tasks", what, by)
			}
			c.Heal()
			lost.Restart()
			c.allReady(time.Minute, c.Leader())
			c.Runs(time.Minute, id, "app:1", 3)
			c.Carry()
			addrs = addressesOf(c.Leader().manager().Store().View(), lost)
		}
	})
}

// TestMesh_NobodyIsSentToADeadMachine has machines lose their power, each time at another moment: the
// leader with the sessions that it has, another manager, a worker. Soon no plane leads there.
func TestMesh_NobodyIsSentToADeadMachine(t *testing.T) {
	const limit, half = 1600 * time.Millisecond, 1200 * time.Millisecond
	for _, c := range []struct {
		name              string
		managers, workers int
		victim            func(*Cluster, *Machine) *Machine
	}{
		{"the leader of three", 3, 0, func(_ *Cluster, leader *Machine) *Machine { return leader }},
		{"a follower of three", 3, 0, func(c *Cluster, leader *Machine) *Machine {
			return c.Machines[(slices.Index(c.Machines, leader)+1)%3]
		}},
		{"the leader and its sessions", 3, 3, func(c *Cluster, leader *Machine) *Machine { return leader }},
		{"the manager of most sessions", 3, 3, func(c *Cluster, leader *Machine) *Machine {
			most, has := leader, map[string]int{}
			for _, managerID := range leader.node.Manager().(*manager.Manager).Sessions() {
				has[managerID]++
			}
			for _, m := range c.Machines[:3] {
				if has[nodeID(m)] > has[nodeID(most)] {
					most = m
				}
			}
			return most
		}},
		{"a worker", 3, 3, func(c *Cluster, leader *Machine) *Machine { return c.Machines[4] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const cuts = 16
				victim := c.victim
				c := Start(t, c.managers, c.workers, Options{Networks: true, RealGossip: true})
				id := c.globalWeb()
				// Two that joined together may hear of each other only with the next exchange of all that is known
				// (30 s), and nobody misses whom it never saw.
				time.Sleep(time.Minute)
				var took []time.Duration
				for i := range cuts {
					time.Sleep(20*time.Second + time.Duration(i)*137*time.Millisecond)
					leader := c.Leader()
					lost := victim(c, leader)
					v := leader.manager().Store().View()
					addrs, clusterID := addressesOf(v, lost), v.Cluster().ID
					if !leader.leadsTo(t, clusterID, addrs) {
						t.Fatalf("nobody leads to %v of %s", addrs, lost.Name)
					}
					c.Partition(lost)
					began, slowest := time.Now(), ""
					for _, m := range c.Machines {
						for m != lost && m.leadsTo(t, clusterID, addrs) {
							if slowest = m.Name; time.Since(began) > 20*time.Second {
								t.Fatalf("cut %d: after %v %s leads to %v", i, time.Since(began), m.Name, addrs)
							}
							time.Sleep(2 * time.Millisecond)
						}
					}
					took = append(took, time.Since(began))
					t.Logf("cut %d of %s (%s led): %v, the last was %s", i, lost.Name, leader.Name, took[i], slowest)
					c.Heal()
					c.allReady(time.Minute, c.Machines[0])
					c.Runs(time.Minute, id, "app:1", len(c.Machines))
					c.Carry()
				}
				slices.Sort(took)
				t.Logf("median %v, worst %v", took[cuts/2], took[cuts-1])
				if took[cuts-1] > limit || took[cuts/2] > half {
					t.Errorf("the dead machine was led to for %v", took)
				}
			})
		})
	}
}
