package clustertest

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/node"
)

// settled waits until the cluster knows all machines at the addresses that they have.
func (c *Cluster) settled(limit time.Duration) {
	c.t.Helper()
	c.Eventually(limit, "all machines are known where they are", func() error {
		leader := c.Leader()
		view := leader.manager().Store().View()
		managers := map[string]string{}
		for _, m := range c.Machines {
			_, addr := m.addresses()
			node := view.Node(nodeID(m))
			switch {
			case node == nil:
				return fmt.Errorf("%s is no node", m.Name)
			case node.Status.State != cluster.NodeReady || node.Status.Addr != addr:
				return fmt.Errorf("%s, at %s, is %v (%s) at %s", m.Name, addr, node.Status.State, node.Status.Message, node.Status.Addr)
			case node.Role == swarm.NodeRoleManager:
				managers[node.ID] = net.JoinHostPort(addr, "2377")
				if node.ManagerAddr != managers[node.ID] {
					return fmt.Errorf("manager %s, at %s, is called %s", m.Name, addr, node.ManagerAddr)
				}
			}
		}
		for _, m := range c.Machines {
			info := m.node.Info()
			if len(info.RemoteManagers) != len(managers) || info.Error != "" {
				return fmt.Errorf("%s knows %d managers: %s", m.Name, len(info.RemoteManagers), info.Error)
			}
			for _, peer := range info.RemoteManagers {
				if managers[peer.NodeID] != peer.Addr {
					return fmt.Errorf("%s believes %s at %s", m.Name, peer.NodeID, peer.Addr)
				}
			}
		}
		return nil
	})
	c.vote(c.managers)
}

// TestMoved_NodesComeBack gives machines other addresses, while they are off and while
// they run: whoever it is, the cluster finds it there by itself.
func TestMoved_NodesComeBack(t *testing.T) {
	for _, running := range []bool{false, true} {
		name := "while off"
		if running {
			name = "while running"
		}
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 2, Options{})
				id := c.Machines[0].Create(Spec("web", "app:1", 5))
				c.Runs(10*time.Second, id, "app:1", 5)
				next := 50
				move := func(machines ...*Machine) {
					for _, m := range machines {
						if !running {
							m.Stop()
						}
					}
					for _, m := range machines {
						m.Move(fmt.Sprint("127.0.1.", next))
						next++
						if !running {
							m.Restart()
						}
					}
				}
				follower := func() *Machine {
					leader := c.Leader()
					return c.Machines[slices.IndexFunc(c.Machines, func(m *Machine) bool { return m != leader })]
				}
				for what, machines := range map[string]func() []*Machine{
					"a worker":              func() []*Machine { return c.Machines[3:4] },
					"a follower":            func() []*Machine { return []*Machine{follower()} },
					"the leader":            func() []*Machine { return []*Machine{c.Leader()} },
					"leader and a worker":   func() []*Machine { return []*Machine{c.Leader(), c.Machines[4]} },
					"two managers of three": func() []*Machine { return []*Machine{c.Leader(), follower()} },
				} {
					t.Log(what)
					move(machines()...)
					c.settled(time.Minute)
					c.Runs(time.Minute, id, "app:1", 5)
				}
			})
		})
	}
}

// TestMoved_AManagerWhoseVoteIsNeeded: one manager is down, another one moves, and the
// third has entries that the moved one lacks, so it alone can be elected. It must learn
// where the moved one is without a leader.
func TestMoved_AManagerWhoseVoteIsNeeded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		others := slices.DeleteFunc(slices.Clone(c.Machines), func(m *Machine) bool { return m == leader })
		others[0].Stop()
		for i := range 5 {
			leader.Create(Spec(fmt.Sprint("note-", i), "app:1", 0))
		}
		others[1].Stop()
		leader.Stop()
		others[0].Move("127.0.1.70")
		leader.Restart()
		others[0].Restart()
		c.Eventually(time.Minute, "the two have a leader", func() error {
			return leader.Try(http.MethodPost, "/services/create", Spec("after", "app:1", 0), nil)
		})
		others[1].Restart()
		c.settled(time.Minute)
	})
}

// TestMoved_TwoSwapTheirAddresses: each is then where the other was.
func TestMoved_TwoSwapTheirAddresses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		one, other := c.Machines[1], c.Machines[2]
		one.Stop()
		other.Stop()
		first, second := one.IP, other.IP
		one.Move("127.0.1.80")
		other.Move(first)
		one.Move(second)
		one.Restart()
		other.Restart()
		c.settled(time.Minute)
	})
}

// TestMoved_ALoneManager works at any address, and also without one; its workers are told
// by their command line where it is.
func TestMoved_ALoneManager(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		manager, worker := c.Machines[0], c.Machines[1]
		id := manager.Create(Spec("web", "app:1", 2))
		c.Runs(10*time.Second, id, "app:1", 2)
		manager.Stop()
		manager.Move("127.0.1.60")
		manager.Restart()
		c.Eventually(20*time.Second, "it takes writes", func() error {
			return manager.Try(http.MethodPost, "/services/create", Spec("moved", "app:1", 0), nil)
		})
		manager.Stop()
		manager.Move("")
		manager.Restart()
		c.Eventually(30*time.Second, "it takes writes without an address", func() error {
			return manager.Try(http.MethodPost, "/services/create", Spec("nowhere", "app:1", 0), nil)
		})
		manager.Move("127.0.1.61")
		c.Eventually(30*time.Second, "it has an address", func() error {
			if addr := manager.node.Info().NodeAddr; addr != manager.IP {
				return fmt.Errorf("it says %s", addr)
			}
			return nil
		})
		worker.Stop()
		worker.Flags = func(config *node.Config) { config.Join = []string{manager.IP} }
		worker.Restart()
		c.settled(time.Minute)
		c.Runs(30*time.Second, id, "app:1", 2)
	})
}

// TestMoved_AWholeLab: no machine has the address of before, so that nobody finds
// anybody. One manager goes on alone at its new address, and the others, which are
// told where it is, come back as workers.
func TestMoved_AWholeLab(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 5))
		c.Runs(10*time.Second, id, "app:1", 5)
		for _, m := range c.Machines {
			m.Stop()
		}
		first := c.Machines[0]
		for i, m := range c.Machines {
			m.Move(fmt.Sprint("127.0.1.", 90+i))
			if m != first {
				m.Flags = func(config *node.Config) { config.Join = []string{first.IP} }
			}
			m.Restart()
		}
		first.Do(http.MethodPost, "/swarm/init", swarm.InitRequest{ForceNewCluster: true, ListenAddr: "0.0.0.0:2377", AdvertiseAddr: first.IP}, nil)
		c.managers = 1
		c.settled(2 * time.Minute)
		c.Runs(time.Minute, id, "app:1", 5)
		// The order is carried out once, and its address stays.
		first.Stop()
		first.Restart()
		c.settled(time.Minute)
	})
}

// TestMoved_AFlagIsObeyed: an address on the command line that says something new is
// taken, be it the machine's own or not.
func TestMoved_AFlagIsObeyed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		for _, m := range []*Machine{c.Machines[1], c.Machines[3]} {
			m.Stop()
			m.Public = "198.51.100." + m.Name[1:]
			c.wire.public[m.Public] = m.IP
			m.Flags = func(config *node.Config) { config.AdvertiseAddr = m.Public }
			m.Restart()
			c.settled(time.Minute)
		}
	})
}

// TestMoved_BehindANAT: nobody, and so no manager's own agent, is led back in by the
// address that it advertises.
func TestMoved_BehindANAT(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{Public: func(number int) string { return fmt.Sprint("198.51.100.", number) }})
		id := c.Machines[0].Create(Spec("web", "app:1", 5))
		c.Runs(10*time.Second, id, "app:1", 5)
		c.settled(time.Minute)
		for _, m := range c.Machines[:3] {
			if at := c.Leader().manager().(interface{ Sessions() map[string]string }).Sessions()[nodeID(m)]; at != nodeID(m) {
				t.Errorf("the agent of manager %s has its session with %q", m.Name, at)
			}
		}
		for range 2 {
			leader := c.Leader()
			leader.Crash()
			c.Leader()
			leader.Restart()
			c.settled(time.Minute)
		}
	})
}
