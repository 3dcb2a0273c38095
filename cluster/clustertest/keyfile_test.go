package clustertest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestKeyFile_MissingAtOneStart takes the key files away for one start: nothing is removed,
// the daemon says what to do, and with the files back all is as it was.
func TestKeyFile_MissingAtOneStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 4))
		c.Runs(10*time.Second, id, "app:1", 4)
		for _, m := range c.Machines {
			m.Stop()
			key := m.path("identity.key")
			if err := os.Rename(key, key+".away"); err != nil {
				t.Fatal(err)
			}
			m.Restart()
			c.Eventually(5*time.Second, "the daemon stops", func() error {
				if err := m.Failure(); err == nil {
					return fmt.Errorf("%s goes on", m.Name)
				}
				return nil
			})
			if err := m.Failure(); !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "put that file back") {
				t.Errorf("%s doesn't say what to do: %v", m.Name, err)
			}
			if err := os.Rename(key+".away", key); err != nil {
				t.Fatal(err)
			}
			m.Restart()
		}
		c.allReady(time.Minute, c.Machines[0])
		c.Runs(10*time.Second, id, "app:1", 4)
	})
}

// TestKeyFile_LeftoversOfAnOrder leaves in the folder what a crash in the middle of an
// order does.
func TestKeyFile_LeftoversOfAnOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{})
		m := c.add(2)
		m.Stop()
		for _, name := range []string{"unfinished", "node.sealed", "node.sealed.copy"} {
			if err := os.WriteFile(m.path(name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(m.path("raft"), 0o700); err != nil {
			t.Fatal(err)
		}
		m.Restart()
		if state := m.node.Info().LocalNodeState; state != swarm.LocalNodeStateInactive {
			t.Errorf("the node is %s", state)
		}
		for _, name := range []string{"unfinished", "node.sealed", "node.sealed.copy", "raft"} {
			if _, err := os.Stat(m.path(name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", name, err)
			}
		}
		m.Join(c.Machines[0], false)
		c.allReady(time.Minute, c.Machines[0])
		// The note doesn't stay where it would make a folder without a key file a leftover.
		m.Stop()
		if err := os.WriteFile(m.path("unfinished"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m.Restart()
		c.allReady(time.Minute, c.Machines[0])
		if _, err := os.Stat(m.path("unfinished")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the note is still there: %v", err)
		}
	})
}
