package clustertest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"skep/cluster"
)

// keyPeriod is how long a gossip key sends in these tests; keySpread, a third of
// it, how long a new one is only understood.
const (
	keyPeriod = time.Minute
	keySpread = keyPeriod / 3
)

// ring is the keys that a machine's gossip has now; none while it has no gossip.
func (m *Machine) ring() [][]byte {
	a := m.cluster.air
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.ears[m.IP]; e != nil {
		return e.keys
	}
	return nil
}

// record is the cluster's record, as the leader has it.
func (c *Cluster) record() *cluster.Cluster {
	return c.Leader().node.Manager().Store().View().Cluster()
}

// rotated waits until the record says what is asked, and gives it.
func (c *Cluster) rotated(limit time.Duration, what string, ok func(*cluster.Cluster) bool) *cluster.Cluster {
	c.t.Helper()
	var found *cluster.Cluster
	c.Eventually(limit, what, func() error {
		if found = c.record(); !ok(found) {
			return fmt.Errorf("%d keys, one of them new: %v, since %v", len(found.GossipKeys), found.NextGossipKey, found.GossipKeysAt)
		}
		return nil
	})
	return found
}

// meets tells why a machine's gossip doesn't list all of the others as alive.
func (m *Machine) meets(others []*Machine) error {
	a := m.cluster.air
	a.mu.Lock()
	e := a.ears[m.IP]
	a.mu.Unlock()
	if e == nil {
		return fmt.Errorf("%s has no gossip yet", m.Name)
	}
	alive := map[string]bool{}
	for _, member := range e.Members() {
		alive[member.NodeID] = !member.Suspect
	}
	for _, other := range others {
		if !alive[nodeID(other)] {
			return fmt.Errorf("%s doesn't hear %s", m.Name, other.Name)
		}
	}
	return nil
}

// allMeet waits until all of the machines hear each other.
func (c *Cluster) allMeet(machines []*Machine) {
	c.t.Helper()
	c.Eventually(20*time.Second, "all hear each other", func() error {
		for _, m := range machines {
			if err := m.meets(machines); err != nil {
				return err
			}
		}
		return nil
	})
}

// sameRings waits until the machines hold the record's keys, and no others.
func (c *Cluster) sameRings(machines []*Machine) {
	c.t.Helper()
	c.Eventually(5*time.Second, "all hold the same keys", func() error {
		want := c.record().GossipKeys
		for _, m := range machines {
			if !slices.EqualFunc(m.ring(), want, bytes.Equal) {
				return fmt.Errorf("%s holds others", m.Name)
			}
		}
		return nil
	})
}

func contains(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(other []byte) bool { return bytes.Equal(key, other) })
}

// TestRotation_LosesNobody looks at all members all the time, through more
// rotations than the ring has keys; a node joins in the middle of one.
func TestRotation_LosesNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{GossipKeyPeriod: keyPeriod})
		c.allMeet(c.Machines)
		began, founded := time.Now(), c.record()
		last := founded
		added := map[string]time.Time{string(founded.GossipKeys[0]): began}
		for time.Since(began) < 4*keyPeriod {
			time.Sleep(200 * time.Millisecond)
			for _, m := range c.Machines {
				if err := m.meets(c.Machines); err != nil {
					t.Fatalf("after %v: %v", time.Since(began), err)
				}
			}
			now := c.record()
			if now.Version == last.Version {
				continue
			}
			if len(now.GossipKeys) > 3 {
				t.Errorf("the ring has %d keys", len(now.GossipKeys))
			}
			for _, key := range now.GossipKeys {
				if _, known := added[string(key)]; !known {
					added[string(key)] = now.GossipKeysAt
				}
			}
			if first := now.GossipKeys[0]; !bytes.Equal(first, last.GossipKeys[0]) && now.GossipKeysAt.Sub(added[string(first)]) < keySpread {
				t.Errorf("a key sends %v after it was added", now.GossipKeysAt.Sub(added[string(first)]))
			}
			c.sameRings(c.Machines)
			if last = now; now.NextGossipKey && len(c.Machines) == 5 {
				c.add(6).Join(c.Machines[0], false)
				c.allMeet(c.Machines)
			}
		}
		// One more may have been added for the next rotation, none is missing.
		if len(added) < 5 || len(c.Machines) != 6 {
			t.Errorf("there were %d keys and %d machines; want at least 5 and 6", len(added), len(c.Machines))
		}
		c.sameRings(c.Machines)
		if contains(c.record().GossipKeys, founded.GossipKeys[0]) {
			t.Error("the first key is still understood")
		}
		c.Same()
	})
}

// TestRotation_GoesOnWithANewLeader kills the leader when it has just added a key:
// that very key must send next, and not before all had time to get it.
func TestRotation_GoesOnWithANewLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{GossipKeyPeriod: keyPeriod})
		for range 3 {
			adding := c.rotated(2*keyPeriod, "a key is added", func(r *cluster.Cluster) bool { return r.NextGossipKey })
			leader := c.Leader()
			leader.Crash()
			using := c.rotated(2*keySpread, "the next leader lets it send", func(r *cluster.Cluster) bool { return !r.NextGossipKey })
			if last := len(adding.GossipKeys) - 1; !bytes.Equal(using.GossipKeys[0], adding.GossipKeys[last]) {
				t.Error("another key sends than the one that was added")
			}
			if waited := using.GossipKeysAt.Sub(adding.GossipKeysAt); waited < keySpread || waited > keySpread+time.Second {
				t.Errorf("it sends after %v, want %v", waited, keySpread)
			}
			c.allMeet(c.Alive())
			leader.Restart()
			c.allMeet(c.Machines)
			c.sameRings(c.Machines)
		}
		c.Same()
	})
}

// TestRotation_LetsSleepersBackIn: a worker and a manager are off, and a worker is
// cut off, while all the keys that they know go out of use.
func TestRotation_LetsSleepersBackIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{GossipKeyPeriod: keyPeriod})
		c.allMeet(c.Machines)
		worker, manager, cut := c.Machines[4], c.Machines[1], c.Machines[5]
		known := c.record().GossipKeys
		worker.Crash()
		manager.Crash()
		c.Partition(cut)
		for range 3 {
			c.rotated(2*keyPeriod, "a key is added", func(r *cluster.Cluster) bool { return r.NextGossipKey })
			c.rotated(2*keySpread, "it sends", func(r *cluster.Cluster) bool { return !r.NextGossipKey })
		}
		c.rotated(2*keyPeriod, "the sleepers' keys are gone", func(r *cluster.Cluster) bool {
			return !slices.ContainsFunc(known, func(key []byte) bool { return contains(r.GossipKeys, key) })
		})
		if !slices.EqualFunc(cut.ring(), known, bytes.Equal) {
			t.Fatal("the node that is cut off got keys")
		}
		c.Heal()
		worker.Restart()
		manager.Restart()
		c.sameRings(c.Machines)
		c.allMeet(c.Machines)
		c.Eventually(10*time.Second, "all nodes are ready", func() error {
			for node := range c.Leader().node.Manager().Store().View().Nodes() {
				if node.Status.State != cluster.NodeReady {
					return fmt.Errorf("%s is %v: %s", node.Description.Hostname, node.Status.State, node.Status.Message)
				}
			}
			return nil
		})
		c.Same()
	})
}
