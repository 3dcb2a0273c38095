package clustertest

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// joinAs has the machine ask to be a manager, with the addresses it says.
func (m *Machine) joinAs(by *Machine, listen, advertise string) error {
	m.cluster.t.Helper()
	var of swarm.Swarm
	by.Do(http.MethodGet, "/swarm", nil, &of)
	return m.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{
		ListenAddr: listen, AdvertiseAddr: advertise, RemoteAddrs: []string{by.IP}, JoinToken: of.JoinTokens.Manager,
	}, nil)
}

// clusterStatus is the cluster's, as the leader tells it.
func (c *Cluster) clusterStatus() (status cluster.Status) {
	c.t.Helper()
	c.Leader().Do(http.MethodGet, "/skep/v1/status", nil, &status)
	return status
}

// voters are the managers that have a vote, by name.
func (c *Cluster) voters() (names []string) {
	for _, manager := range c.clusterStatus().Managers {
		if manager.Voter {
			names = append(names, manager.Hostname)
		}
	}
	return names
}

// fill creates so many secrets of nearly the largest size.
func (m *Machine) fill(count int) {
	m.cluster.t.Helper()
	for i := range count {
		m.Do(http.MethodPost, "/secrets/create", swarm.SecretSpec{
			Annotations: swarm.Annotations{Name: fmt.Sprint("big-", i)}, Data: []byte(strings.Repeat("s", 499_000)),
		}, nil)
	}
}

// writes fails the test unless a write is accepted within the limit.
func (m *Machine) writes(name string, limit time.Duration) {
	m.cluster.t.Helper()
	began := time.Now()
	m.Create(Spec(name, "app:1", 0))
	if took := time.Since(began); took > limit {
		m.cluster.t.Errorf("%s: the write took %v; want at most %v", name, took, limit)
	}
}

// A manager whom nobody can reach is refused before anything is changed.
func TestJoin_AManagerThatCantBeReachedIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 2, 0, Options{})
		leader := c.Leader()
		for i, test := range []struct{ name, listen, advertise, want string }{
			{"nobody is there", "127.0.1.3", "127.0.9.9", "connection refused"},
			{"another manager is there", "127.0.1.4", leader.IP, "another node answers"},
			{"another port", "127.0.1.5", "127.0.1.5:2378", "connection refused"},
		} {
			stranger := c.add(3 + i)
			err := stranger.joinAs(leader, test.listen, test.advertise)
			if err == nil || !strings.Contains(err.Error(), "could not connect to prospective new cluster member using its advertised address") ||
				!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.advertise) {
				t.Errorf("%s: %v; want %q and the address %s", test.name, err, test.want, test.advertise)
			}
			if state := stranger.node.Info().LocalNodeState; state != swarm.LocalNodeStateInactive {
				t.Errorf("%s: the node is %s afterwards", test.name, state)
			}
			leader.writes(fmt.Sprint("after-", i), time.Second)
			if nodes := leader.manager().Store().View().NodeCount(); nodes != 2 {
				t.Errorf("%s: there are %d nodes", test.name, nodes)
			}
		}
		// Each may try again, with what is right.
		if err := c.Machines[2].joinAs(leader, c.Machines[2].IP, ""); err != nil {
			t.Errorf("join at the listen address: %v", err)
		}
		c.vote(3)
	})
}

// A worker whom the leader can't reach may be promoted, and waits.
func TestPromote_AWorkerThatCantBeReachedWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 2, 0, Options{})
		leader := c.Leader()
		worker := c.add(3)
		var of swarm.Swarm
		leader.Do(http.MethodGet, "/swarm", nil, &of)
		worker.Do(http.MethodPost, "/swarm/join", swarm.JoinRequest{
			ListenAddr: worker.IP, AdvertiseAddr: "127.0.9.9", RemoteAddrs: []string{leader.IP}, JoinToken: of.JoinTokens.Worker,
		}, nil)
		leader.setRole(worker, swarm.NodeRoleManager)
		time.Sleep(10 * time.Second)
		leader.writes("meanwhile", time.Second)
		if voters := c.voters(); len(voters) != 2 {
			t.Errorf("%v vote", voters)
		}
		status := c.clusterStatus()
		said := strings.Join(status.Problems, "\n")
		for _, want := range []string{"n3", "127.0.9.9:2377", "connection refused"} {
			if !strings.Contains(said, want) {
				t.Errorf("the status says %q; want %q in it", said, want)
			}
		}
		if info := worker.node.Info(); !strings.Contains(info.Error, "127.0.9.9:2377") {
			t.Errorf("the worker says %+v", info)
		}
		// It may be a worker again.
		leader.setRole(worker, swarm.NodeRoleWorker)
		c.Eventually(20*time.Second, "it is a worker without a complaint", func() error {
			if info := worker.node.Info(); info.ControlAvailable || info.Error != "" {
				return fmt.Errorf("%+v", info)
			}
			return nil
		})
		leader.writes("afterwards", time.Second)
	})
}

// A manager that joins holds nothing at first. It is no voter until it holds what the
// others do, so that writes go on when it dies on the way, and when another dies, too.
func TestJoin_AManagerThatDiesWhileItCatchesUp(t *testing.T) {
	for _, voters := range []int{1, 2, 3} {
		t.Run(fmt.Sprint("beside ", voters), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, voters, 0, Options{})
				leader := c.Leader()
				leader.fill(60)
				joiner := c.add(voters + 1)
				joiner.SlowDisk(300 * time.Millisecond)
				c.Delay(joiner, 80*time.Millisecond) // So it is sent a megabyte and a half per second.
				joiner.Join(leader, true)
				time.Sleep(2 * time.Second)
				status := c.clusterStatus()
				last := leader.manager().Health().LastIndex
				for _, manager := range status.Managers {
					if manager.Hostname == joiner.Name && (manager.Voter || manager.LastIndex+20 > last) {
						t.Errorf("the new manager is %+v; want one that has caught up a little", manager)
					}
				}
				if said := strings.Join(status.Problems, "\n"); !strings.Contains(said, "catching up") || !strings.Contains(said, " entries") {
					t.Errorf("the status says %q", said)
				}
				var n swarm.Node
				leader.Do(http.MethodGet, "/nodes/"+joiner.Name, nil, &n)
				if n.ManagerStatus == nil || n.ManagerStatus.Reachability != swarm.ReachabilityUnknown {
					t.Errorf("the new manager is shown as %+v", n.ManagerStatus)
				}
				joiner.Crash()
				leader.writes("without-it", time.Second)
				if voters == 3 {
					c.Machines[(indexOf(c, leader)+1)%3].Crash()
					leader.writes("without-two", time.Second)
				}
				c.Heal()
				for _, m := range c.Machines {
					if m.off() {
						m.SlowDisk(0)
						m.Restart()
					}
				}
				c.vote(voters + 1)
			})
		})
	}
}

// reinstall gives the machine an empty disk, as one that is set up anew: its daemon, which
// must be off, runs afterwards and is in no cluster.
func (m *Machine) reinstall() {
	m.cluster.t.Helper()
	if err := os.RemoveAll(m.path("")); err != nil {
		m.cluster.t.Fatal(err)
	}
	m.Restart()
}

// An empty disk never answers in the name of who was at its address: it can't vote as
// that one, nor be counted. Joining, it takes the old one's place, and that is said.
func TestJoin_AManagerInstalledAnewAtItsAddress(t *testing.T) {
	for _, managers := range []int{3, 5} {
		t.Run(fmt.Sprint("one of ", managers), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, managers, 0, Options{SnapshotEntries: 20})
				leader := c.Leader()
				var names []string
				for range 30 {
					note(leader, &names)
				}
				anew := c.Machines[(indexOf(c, leader)+1)%managers]
				old := nodeID(anew)
				anew.Crash()
				if managers == 3 { // Otherwise the leader hasn't missed it yet.
					time.Sleep(10 * time.Second)
				}
				anew.reinstall()
				anew.Join(leader, true)
				c.vote(managers)
				c.has(names)
				c.Eventually(10*time.Second, "the old entry is a worker that is down", func() error {
					node := leader.manager().Store().View().Node(old)
					if node.Role != swarm.NodeRoleWorker || node.Status.State != cluster.NodeDown || managers == 3 && !strings.Contains(node.Status.Message, nodeID(anew)) {
						return fmt.Errorf("it is a %s, %v: %s", node.Role, node.Status.State, node.Status.Message)
					}
					return nil
				})
				for _, n := range c.clusterStatus().Managers {
					if n.NodeID == old {
						t.Errorf("the old entry is a manager: %+v", n)
					}
				}
				leader.Do(http.MethodDelete, "/nodes/"+old, nil, nil)
				// Its vote counts: another may go.
				c.Machines[(indexOf(c, anew)+1)%managers].Crash()
				note(anew, &names)
			})
		})
	}
}

// A node that was removed while it was off says so, and what to do; its manager leaves the
// others alone.
func TestNode_ThatWasRemovedWhileItWasOff(t *testing.T) {
	for _, role := range []swarm.NodeRole{swarm.NodeRoleManager, swarm.NodeRoleWorker} {
		t.Run(string(role), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 1, Options{SnapshotEntries: 20})
				leader := c.Leader()
				gone := c.Machines[(indexOf(c, leader)+1)%3]
				if role == swarm.NodeRoleWorker {
					gone = c.Machines[3]
				}
				id := nodeID(gone)
				gone.Crash()
				leader.setRole(gone, swarm.NodeRoleWorker)
				c.Eventually(30*time.Second, "the node can be removed", func() error {
					return leader.Try(http.MethodDelete, "/nodes/"+id, nil, nil)
				})
				gone.Restart()
				c.Eventually(20*time.Second, "it says that it was removed", func() error {
					info := gone.node.Info()
					if info.LocalNodeState != swarm.LocalNodeStateError || info.ControlAvailable ||
						!strings.Contains(info.Error, "removed from the swarm") || !strings.Contains(info.Error, "docker swarm leave") {
						return fmt.Errorf("%+v", info)
					}
					return nil
				})
				if err := gone.Try(http.MethodGet, "/services", nil, nil); err == nil || !strings.Contains(err.Error(), "removed from the swarm") {
					t.Errorf("its list of services: %v", err)
				}
				term := c.Leader().manager().Health().Term
				gone.Stop()
				gone.Restart()
				time.Sleep(time.Minute)
				if now := c.Leader().manager().Health().Term; now != term {
					t.Errorf("the term went from %d to %d", term, now)
				}
				if running := gone.manager(); running != nil {
					t.Error("its manager runs")
				}
				// What it says to do works.
				gone.Do(http.MethodPost, "/swarm/leave", nil, nil)
				gone.Join(c.Leader(), role == swarm.NodeRoleManager)
				if role == swarm.NodeRoleManager {
					c.vote(3)
				}
			})
		})
	}
}
