package clustertest

import (
	"cmp"
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

// TestCopy_OfAManagerThatIsOff: the copy was started while the original was off, and so is
// the manager. When the original is back, one of the two is refused and says so, and raft
// hears one machine at a time. It is the original when the copy was there long before, and
// the copy when the leader still remembers the original; that one has no vote then before
// it has caught up.
func TestCopy_OfAManagerThatIsOff(t *testing.T) {
	for _, away := range []time.Duration{time.Minute, 5 * time.Second} {
		t.Run(away.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) { copyOfAManagerThatIsOff(t, away) })
		})
	}
}

func copyOfAManagerThatIsOff(t *testing.T, away time.Duration) {
	c := Start(t, 3, 1, Options{})
	leader := c.Leader()
	original := c.Machines[(indexOf(c, leader)+1)%3]
	id := nodeID(original)
	copied := c.clone(original)
	c.vote(3)
	var names []string
	note(leader, &names)
	original.Stop()
	copied.Restart()
	at := func() string { return leader.manager().Store().View().Node(id).ManagerAddr }
	c.Eventually(time.Minute, "the copy is the manager", func() error {
		if votes, err := leader.voters(); err != nil || votes != 3 || at() != copied.IP+":2377" {
			return fmt.Errorf("%d vote, it is at %s: %v", votes, at(), err)
		}
		return nil
	})
	note(leader, &names)
	time.Sleep(away)
	term := c.term()
	original.Restart()
	follows := func(m *Machine) bool {
		running := m.manager()
		return running != nil && running.LeaderID() != "" && running.Health().LastContact < 100*time.Millisecond
	}
	var said, message string
	suspended := false
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if follows(original) && follows(copied) {
			t.Fatal("both hear the leader")
		}
		if leader.manager() == nil || !leader.manager().Health().Leader {
			t.Fatal("the leader is deposed")
		}
		_, votes := leader.manager().(interface{ Reachable() map[string]bool }).Reachable()[id]
		suspended = suspended || !votes
		if follows(original) && at() == copied.IP+":2377" && votes {
			t.Fatal("the original is heard while the copy has the vote")
		}
		record := leader.manager().Store().View().Node(id)
		message = cmp.Or(record.Status.Message, message)
		if time.Until(end)%time.Second < 20*time.Millisecond {
			var status cluster.Status
			leader.Do(http.MethodGet, "/skep/v1/status", nil, &status)
			if problems := fmt.Sprint(status.Problems); strings.Contains(problems, original.IP) && strings.Contains(problems, copied.IP) {
				said = problems
			}
		}
	}
	if now := c.term(); now != term {
		t.Errorf("the term went from %d to %d", term, now)
	}
	kept, refused := copied, original
	if away < 30*time.Second {
		kept, refused = original, copied
	}
	if suspended != (kept == original) {
		t.Errorf("the vote was taken for a while: %v", suspended)
	}
	if refused.manager() != nil || !strings.Contains(refused.node.Info().Error, "copy") || kept.node.Info().Error != "" {
		t.Errorf("%s runs a manager: %v, and says %q; %s says %q", refused.Name, refused.manager() != nil, refused.node.Info().Error, kept.Name, kept.node.Info().Error)
	}
	for where, text := range map[string]string{"status": said, "node": message} {
		if !strings.Contains(text, original.IP) || !strings.Contains(text, copied.IP) {
			t.Errorf("the %s says %q", where, text)
		}
	}
	// It has no part in an election either.
	c.vote(3)
	leader.Crash()
	note(kept, &names)
	leader.Restart()
	refused.Stop()
	c.vote(3)
	c.has(names)
}
