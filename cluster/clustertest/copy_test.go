package clustertest

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/agent"
	"skep/cluster"
)

// clone makes a machine, whose daemon is off, with the disk of another.
func (c *Cluster) clone(of *Machine) *Machine {
	c.t.Helper()
	copied := c.add(len(c.Machines) + 1)
	copied.Stop()
	of.Stop()
	if err := os.RemoveAll(copied.path("")); err != nil {
		c.t.Fatal(err)
	}
	if err := os.CopyFS(copied.path(""), os.DirFS(of.path(""))); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Chmod(copied.path("identity.key"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	of.Restart()
	return copied
}

// live counts the containers that run on a machine for a node.
func live(m *Machine, nodeID string) int {
	containers, err := m.Driver.List(m.cluster.t.Context(), nodeID)
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	return len(slices.DeleteFunc(containers, func(c agent.Container) bool { return c.Phase != agent.Running }))
}

// TestCopy_OfAWorker: a machine is cloned. The one that was there first goes on, the other
// one runs nothing, and both the cluster and the copy say what is wrong.
func TestCopy_OfAWorker(t *testing.T) {
	for name, fenced := range map[string]bool{"tasks": false, "fenced tasks": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) { copyOfAWorker(t, fenced) })
		})
	}
}

func copyOfAWorker(t *testing.T, fenced bool) {
	c := Start(t, 3, 2, Options{})
	original := c.Machines[3]
	spec := Spec("web", "app:1", 6)
	if fenced {
		spec = fencedSpec(6, true)
	}
	id := c.Machines[0].Create(spec)
	c.Runs(10*time.Second, id, "app:1", 6)
	node := nodeID(original)
	copied := c.clone(original)
	time.Sleep(5 * time.Second)
	copied.Restart()
	if fenced {
		// They wait for a lease, which only one machine gets.
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if live(copied, node) > 0 {
				t.Fatal("a fenced task runs on the copy")
			}
		}
	}
	record := func() *cluster.Node { return c.Leader().manager().Store().View().Node(node) }
	c.Eventually(time.Minute, "the copy is refused", func() error {
		var status cluster.Status
		c.Leader().Do(http.MethodGet, "/skep/v1/status", nil, &status)
		n, where := record(), "another machine, at "+copied.IP
		switch {
		case !strings.Contains(n.Status.Message, where) || n.Status.State != cluster.NodeReady:
			return fmt.Errorf("its status is %+v", n.Status)
		case !strings.Contains(fmt.Sprint(status.Problems), where):
			return fmt.Errorf("problems are %s", status.Problems)
		case !strings.Contains(copied.node.Info().Error, "is a copy of its disk"):
			return fmt.Errorf("the copy says %q", copied.node.Info().Error)
		case original.node.Info().Error != "":
			return fmt.Errorf("the original says %q", original.node.Info().Error)
		case live(copied, node) > 0:
			return fmt.Errorf("%d containers run on the copy", live(copied, node))
		}
		return nil
	})
	c.Runs(time.Minute, id, "app:1", 6)
	// Whoever leads, it stays so.
	for range 3 {
		c.Leader().Crash()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
			if live(copied, node) > 0 {
				t.Fatal("a task runs on the copy")
			}
		}
		for _, m := range c.Machines {
			if m.off() {
				m.Restart()
			}
		}
		time.Sleep(10 * time.Second)
	}
	c.Runs(time.Minute, id, "app:1", 6)
	// When the copy is gone, so is the message.
	copied.Stop()
	c.Eventually(5*time.Minute, "the copy is forgotten", func() error {
		if n := record(); n.Status.Message != "" || n.Copy != (cluster.NodeCopy{}) {
			return fmt.Errorf("%+v, %+v", n.Status, n.Copy)
		}
		return nil
	})
	// And when the original is, the other one is the node.
	original.Stop()
	copied.Restart()
	c.Eventually(30*time.Minute, "the other machine is the node", func() error {
		if n := record(); n.Status.State != cluster.NodeReady || n.Status.Addr != copied.IP || n.Status.Message != "" {
			return fmt.Errorf("%+v", n.Status)
		}
		return nil
	})
	c.Runs(time.Minute, id, "app:1", 6)
}

// TestCopy_OfAManager has no vote: it doesn't begin while the original answers.
func TestCopy_OfAManager(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		copied := c.clone(c.Machines[1])
		c.vote(3)
		copied.Restart()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
			if copied.manager() != nil {
				t.Fatal("the copy runs a manager")
			}
		}
		if text := copied.node.Info().Error; !strings.Contains(text, "is a copy of its disk") {
			t.Errorf("it says %q", text)
		}
		copied.Stop()
		c.vote(3)
	})
}
