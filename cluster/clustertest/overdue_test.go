package clustertest

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
)

const day = 24 * time.Hour

// off stops all machines, and lets so much time pass by their clocks.
func (c *Cluster) off(passes time.Duration) {
	for _, m := range c.Machines {
		m.Stop()
	}
	for _, m := range c.Machines {
		m.SetClock(passes)
	}
}

// allReady waits until the API of all managers says that all nodes are.
func (c *Cluster) allReady(limit time.Duration, asked ...*Machine) {
	c.t.Helper()
	c.Eventually(limit, "all nodes are ready", func() error {
		for _, m := range asked {
			var nodes []swarm.Node
			if err := m.Try(http.MethodGet, "/nodes", nil, &nodes); err != nil {
				return err
			}
			for _, n := range nodes {
				if n.Status.State != swarm.NodeStateReady {
					return fmt.Errorf("%s is %s: %s", n.Description.Hostname, n.Status.State, n.Status.Message)
				}
			}
		}
		return nil
	})
}

// certified tells whether a machine's certificate is valid by its own clock.
func (m *Machine) certified() error {
	keys, err := m.keyFile().Load()
	if err != nil {
		return err
	}
	credentials, err := keys.Credentials(m.clock.Now)
	if err != nil {
		return err
	}
	if leaf, now := credentials.Leaf(), m.clock.Now(); now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate of %s ended at %v, and it is %v", m.Name, leaf.NotAfter, now)
	}
	return nil
}

func (c *Cluster) allCertified(limit time.Duration) {
	c.t.Helper()
	c.Eventually(limit, "all nodes have certificates that are valid", func() error {
		var errs []error
		for _, m := range c.Alive() {
			errs = append(errs, m.certified())
		}
		return errors.Join(errs...)
	})
}

// TestOverdue_HundredDaysOff switches a cluster off for longer than its certificates are
// valid, and on again.
func TestOverdue_HundredDaysOff(t *testing.T) {
	for _, size := range []struct{ managers, workers int }{{3, 2}, {1, 0}, {1, 2}} {
		t.Run(fmt.Sprintf("%d managers, %d workers", size.managers, size.workers), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, size.managers, size.workers, Options{})
				id := c.Machines[0].Create(Spec("web", "app:1", 6))
				c.Runs(10*time.Second, id, "app:1", 6)
				c.off(100 * day)
				for _, m := range c.Machines {
					m.Restart()
				}
				c.allReady(60*time.Second, c.Machines[:size.managers]...)
				c.allCertified(time.Minute)
				c.Runs(10*time.Second, id, "app:1", 6)
				for _, m := range c.Alive() {
					if info := m.node.Info(); info.Error != "" {
						t.Errorf("%s has still an error: %s", m.Name, info.Error)
					}
				}
				c.Machines[0].Create(Spec("after", "app:1", 1))
				c.Same()
			})
		})
	}
}

// TestOverdue_OneNodeWasOff leaves a manager and a worker off until their certificates
// have ended, while the others go on.
func TestOverdue_OneNodeWasOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		manager, worker := c.Machines[0], c.Machines[4]
		manager.Stop()
		worker.Stop()
		for _, days := range []time.Duration{50, 70, 100} {
			for _, m := range c.Machines {
				m.SetClock(days * day)
			}
			time.Sleep(5 * time.Minute)
		}
		c.allCertified(0)
		manager.Restart()
		worker.Restart()
		c.allReady(60*time.Second, c.Machines[0])
		c.allCertified(10 * time.Second)
		c.Same()
	})
}

// TestOverdue_Suspended lets a machine's time pass without any of its timers seeing it.
func TestOverdue_Suspended(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		for _, m := range c.Machines {
			m.SetClock(100 * day)
		}
		c.allCertified(2 * time.Minute)
		c.allReady(30*time.Second, c.Machines[:3]...)
	})
}

// TestOverdue_ForceNewCluster makes the last manager go on alone with a certificate that
// has ended.
func TestOverdue_ForceNewCluster(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		c.off(100 * day)
		last := c.Machines[2]
		last.Restart()
		c.Eventually(time.Minute, "docker info says why there is no leader", func() error {
			if last.manager() == nil {
				return errors.New("it has no manager yet")
			}
			if info := last.node.Info(); !strings.Contains(info.Error, "certificate") || !strings.Contains(info.Error, "ended") {
				return fmt.Errorf("it says %q", info.Error)
			}
			return nil
		})
		if status, err := last.manager().Status(t.Context(), false); err != nil || !strings.Contains(strings.Join(status.Problems, "\n"), "certificate ended") {
			t.Errorf("cluster status doesn't say why: %q, %v", status.Problems, err)
		}
		err := last.Try(http.MethodPost, "/services/create", Spec("none", "app:1", 1), nil)
		if err == nil || !strings.Contains(err.Error(), "certificate ended") {
			t.Errorf("a write isn't told why: %v", err)
		}
		began := time.Now()
		last.Do(http.MethodPost, "/swarm/init", swarm.InitRequest{ListenAddr: last.IP, ForceNewCluster: true}, nil)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		c.allCertified(10 * time.Second)
		last.Create(Spec("after", "app:1", 1))
	})
}

// TestOverdue_ClockBehind starts a machine whose clock shows 1970.
func TestOverdue_ClockBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		for _, m := range c.Machines {
			m.Stop()
			m.SetClock(-time.Since(time.Unix(0, 0)))
			m.Restart()
		}
		for _, m := range c.Machines {
			c.Eventually(10*time.Second, "docker info says that the clock is wrong", func() error {
				if info := m.node.Info(); !strings.Contains(info.Error, "set the clock") || !strings.Contains(info.Error, "1970") {
					return fmt.Errorf("%s says %q", m.Name, info.Error)
				}
				return nil
			})
			m.SetClock(0)
		}
		c.allReady(time.Minute, c.Machines[0])
		if info := c.Machines[0].node.Info(); info.Error != "" {
			t.Errorf("with the clock set right: %s", info.Error)
		}
	})
}

// TestOverdue_RemovedMeanwhile starts a node that was removed while it was off, and whose
// certificate has ended since: it says what to do.
func TestOverdue_RemovedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		gone := c.Machines[1]
		id := nodeID(gone)
		gone.Stop()
		c.Machines[0].Do(http.MethodDelete, "/nodes/"+id+"?force=1", nil, nil)
		for _, m := range c.Machines {
			m.SetClock(100 * day)
		}
		c.allCertified(5 * time.Minute)
		gone.Restart()
		c.Eventually(time.Minute, "docker info says that it was removed", func() error {
			if info := gone.node.Info(); !strings.Contains(info.Error, "the node was removed while it was off") {
				return fmt.Errorf("it says %q", info.Error)
			}
			return nil
		})
	})
}

// TestOverdue_Warning looks at cluster status before a certificate ends.
func TestOverdue_Warning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		c.Machines[1].Stop()
		at := func(days time.Duration) string {
			c.Machines[0].SetClock(days * day)
			c.allCertified(5 * time.Minute)
			status, err := c.Machines[0].manager().Status(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(status.Problems, "\n")
		}
		if said := at(82); strings.Contains(said, "certificate") {
			t.Errorf("8 days before: %s", said)
		}
		if said := at(84); !strings.Contains(said, "the certificate of node n2") || !strings.Contains(said, "ends") {
			t.Errorf("6 days before: %s", said)
		}
		if said := at(91); !strings.Contains(said, "the certificate of node n2") || !strings.Contains(said, "ended") {
			t.Errorf("afterwards: %s", said)
		}
		if said := at(91); strings.Contains(said, "n1") {
			t.Errorf("of the node that has a new one: %s", said)
		}
		if said := at(365*20 - 90); !strings.Contains(said, "root CA ends") {
			t.Errorf("90 days before the root CA's end: %s", said)
		}
	})
}

// TestOverdue_Refusals shows what must not be renewed, or speak raft, over a certificate
// that has ended.
func TestOverdue_Refusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		leader := c.Leader()
		var other, removed *Machine
		for _, m := range c.Machines[:3] {
			switch {
			case m == leader:
			case other == nil:
				other = m
			default:
				removed = m
			}
		}
		record := c.record()
		own, err := ca.ParseRoot(record.RootCert, record.RootKey)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := ca.NewRoot(rand.Reader, time.Now(), record.ID)
		if err != nil {
			t.Fatal(err)
		}
		id := func(node string, role swarm.NodeRole) cluster.Identity {
			return cluster.Identity{NodeID: node, Role: role, ClusterID: record.ID}
		}
		oldManager, goneManager, worker := heldBy(t, other), heldBy(t, removed), heldBy(t, c.Machines[3])
		removedID := nodeID(removed)
		leader.setRole(removed, swarm.NodeRoleWorker)
		c.Eventually(10*time.Second, "the manager is a worker", func() error {
			if role := leader.manager().Store().View().Node(removedID).Role; role != swarm.NodeRoleWorker {
				return fmt.Errorf("it is a %s", role)
			}
			return nil
		})
		removed.Stop()
		c.Eventually(10*time.Second, "the node is removed", func() error {
			return leader.Try(http.MethodDelete, "/nodes/"+removedID+"?force=1", nil, nil)
		})
		was := time.Now()
		for _, m := range c.Machines {
			m.SetClock(100 * day)
		}
		c.allCertified(5 * time.Minute)
		c.ready()
		otherID, workerID := nodeID(other), nodeID(c.Machines[3])
		callers := []struct {
			name  string
			shows func() *tls.Certificate
			renew bool
		}{
			{"a node's certificate that has ended, with its key of before", worker, true},
			{"a manager's certificate that has ended, with its key of before", oldManager, true},
			{"a removed manager's certificate that has ended", goneManager, false},
			{"a manager's certificate that has ended, with another key", issued(t, own, id(otherID, swarm.NodeRoleManager), was), false},
			{"a worker's certificate that has ended, with another key", issued(t, own, id(workerID, swarm.NodeRoleWorker), was), false},
			{"a stranger's certificate by another root", issued(t, foreign, id(otherID, swarm.NodeRoleManager), was), false},
			{"a stranger's certificate by another root, not ended", issued(t, foreign, id(otherID, swarm.NodeRoleManager), leader.clock.Now()), false},
			{"a certificate that begins tomorrow", issued(t, own, id(otherID, swarm.NodeRoleManager), leader.clock.Now().Add(day)), false},
			{"no certificate", nil, false},
			{"a node's valid certificate", heldBy(t, c.Machines[3]), true},
		}
		for _, caller := range callers {
			status, err := call(leader, caller.shows, cluster.ProtocolRenew, "POST", "/v1/renew")
			if got := err == nil && status != http.StatusForbidden; got != caller.renew {
				t.Errorf("%s may ask for another: %v (%d, %v)", caller.name, got, status, err)
			}
			// Nothing else is behind that door.
			for _, path := range []string{"/v1/leave", "/v1/manager", "/v1/lost", "/v1/relay", "/v1/api/v1.51/swarm"} {
				if status, err := call(leader, caller.shows, cluster.ProtocolRenew, "POST", path); err == nil && status != http.StatusForbidden {
					t.Errorf("%s at %s: %d", caller.name, path, status)
				}
			}
			for _, protocol := range []string{cluster.ProtocolHTTP, cluster.ProtocolSession} {
				if caller.shows == nil || caller.name == callers[len(callers)-1].name {
					continue // They get through that handshake, to be refused behind it.
				}
				if _, err := call(leader, caller.shows, protocol, "POST", "/v1/renew"); err == nil {
					t.Errorf("%s got through the handshake of %s", caller.name, protocol)
				}
			}
			raft := speaksRaft(leader, caller.shows)
			if want := caller.name == callers[1].name; raft != want {
				t.Errorf("%s may speak raft: %v", caller.name, raft)
			}
		}
		// A valid certificate is no way around the store either.
		valid := issued(t, own, id(removedID, swarm.NodeRoleManager), leader.clock.Now())
		if status, err := call(leader, valid, cluster.ProtocolRenew, "POST", "/v1/renew"); err == nil && status != http.StatusGone {
			t.Errorf("a removed node with a valid certificate: %d", status)
		}
		c.Same()
	})
}

// speaksRaft tells whether a machine keeps a connection for raft open.
func speaksRaft(to *Machine, shows func() *tls.Certificate) bool {
	conn, err := dial(to, shows, cluster.ProtocolRaft)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = conn.Read(make([]byte, 1))
	return err == nil || strings.Contains(err.Error(), "timeout")
}

// heldBy is a machine's present certificate with its key.
func heldBy(t *testing.T, m *Machine) func() *tls.Certificate {
	t.Helper()
	keys, err := m.keyFile().Load()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(keys.CertPEM, keys.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return func() *tls.Certificate { return &certificate }
}
