package clustertest

import (
	"testing"
	"time"

	"skep/cluster"
)

// TestStop_WithoutASession stops a machine's daemon in order soon after its connections broke, so that
// its agent may have no session to say so in, and starts it again some seconds later. The node is
// never called down, and no plane stops leading to its tasks, whose containers run on.
func TestStop_WithoutASession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{Networks: true, RealGossip: true})
		id := c.globalWeb()
		for i := range 24 {
			m := c.Machines[1+i%4]
			leader := c.Leader()
			if leader == m {
				leader.Stop()
				leader.Restart()
				leader = c.Leader()
			}
			v := leader.manager().Store().View()
			addrs, clusterID := addressesOf(v, m), v.Cluster().ID
			watch := func(span time.Duration) {
				for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					n := leader.manager().Store().View().Node(nodeID(m))
					if n.Status.State == cluster.NodeDown {
						t.Fatalf("round %d: %s is down: %s", i, m.Name, n.Status.Message)
					}
					for _, other := range c.Machines {
						if other != m && !other.leadsTo(t, clusterID, addrs) {
							t.Fatalf("round %d: %s doesn't lead to %s, which is %v: %s", i, other.Name, m.Name, n.Status.State, n.Status.Message)
						}
					}
				}
			}
			c.Delay(m, 40*time.Millisecond)
			time.Sleep(time.Second)
			c.Snap(m)
			watch(time.Duration(i) * 10 * time.Millisecond)
			m.Stop()
			watch(4 * time.Second)
			c.Heal()
			m.Restart()
			c.allReady(time.Minute, c.Machines[0])
			c.Runs(time.Minute, id, "app:1", len(c.Machines))
			c.Carry()
		}
	})
}
