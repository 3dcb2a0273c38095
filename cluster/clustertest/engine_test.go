package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// A node whose engine is away is of no use, though its daemon has a session: it gets
// no new tasks, and loses those it has when the engine doesn't come back.
func TestCluster_EngineAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		lame := c.Machines[4]
		is := func(limit time.Duration, want swarm.NodeState) {
			t.Helper()
			c.Eventually(limit, fmt.Sprintf("the node is %s", want), func() error {
				var n swarm.Node
				if err := c.Manager().Try(http.MethodGet, "/nodes/"+nodeID(lame), nil, &n); err != nil {
					return err
				}
				if n.Status.State != want {
					return fmt.Errorf("it is %s: %s", n.Status.State, n.Status.Message)
				}
				return nil
			})
		}
		on := func(id string) (count int) {
			t.Helper()
			tasks, err := c.Manager().Tasks(id, "running")
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				if task.NodeID == nodeID(lame) {
					count++
				}
			}
			return count
		}
		held := on(id)

		lame.Driver.SetAway(true)
		is(8*time.Second, swarm.NodeStateDisconnected)
		other := c.Machines[0].Create(Spec("other", "app:1", 8))
		c.Runs(10*time.Second, other, "app:1", 8)
		if on(other) != 0 {
			t.Errorf("%d new tasks were placed on it", on(other))
		}
		if on(id) != held {
			t.Errorf("it has %d tasks of %d already", on(id), held)
		}
		c.Leader().Crash() // the next leader must find out by itself
		is(45*time.Second, swarm.NodeStateDown)
		c.Eventually(5*time.Second, "its tasks are replaced", func() error {
			if n := on(id); n != 0 {
				return fmt.Errorf("%d are not", n)
			}
			return nil
		})

		lame.Driver.SetAway(false)
		is(10*time.Second, swarm.NodeStateReady)
		c.Eventually(20*time.Second, "what was replaced is stopped", func() error {
			if n := lame.Driver.Count(nodeID(lame)); n != 0 {
				return fmt.Errorf("%d containers run", n)
			}
			return nil
		})

		// An engine that is back soon loses nothing.
		brief := c.Machines[3]
		before := brief.Driver.Count(nodeID(brief))
		brief.Driver.SetAway(true)
		time.Sleep(20 * time.Second)
		brief.Driver.SetAway(false)
		time.Sleep(20 * time.Second)
		if after := brief.Driver.Count(nodeID(brief)); after != before || after == 0 {
			t.Errorf("%d containers run of %d", after, before)
		}
	})
}
