package dispatch

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestWarning_OfAnAgentIsItsNodesMessage, as long as the agent says so, and the node is
// ready all the while.
func TestWarning_OfAnAgentIsItsNodesMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.settle()
		w.addNode("n1")
		a := w.dial("n1", "m2") // not the leader
		a.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat, Description: swarm.NodeDescription{Hostname: "n1"}}})
		for _, warning := range []string{"its engine is in a swarm", "", "another", strings.Repeat("x", 10*maxWarning), ""} {
			for range 4 {
				a.send(cluster.FromAgent{Warning: warning})
				time.Sleep(500 * time.Millisecond)
			}
			want := warning
			if len(want) > maxWarning {
				want = ""
			}
			if status := w.node("n1").Status; status.State != cluster.NodeReady || status.Message != want {
				t.Errorf("the agent warned of %.30q; the status is %+v", warning, status)
			}
		}
		a.send(cluster.FromAgent{Warning: "another"})
		a.close()
	})
}
