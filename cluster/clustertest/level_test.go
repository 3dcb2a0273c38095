package clustertest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Two versions of skep, the later of which adds a level.
var (
	before = cluster.Build{Version: "0.1.0", Level: 1, MinLevel: 1}
	after  = cluster.Build{Version: "0.2.0", Level: 2, MinLevel: 1}
)

// upgrade restarts a machine as another version.
func upgrade(m *Machine, to cluster.Build) {
	m.Stop()
	m.Build = to
	m.Restart()
}

// status waits until all is well, and says how it is.
func (c *Cluster) wellStatus() cluster.Status {
	c.t.Helper()
	var status cluster.Status
	c.Eventually(time.Minute, "all is well", func() error {
		status = cluster.Status{}
		if err := c.Leader().Try(http.MethodGet, "/skep/v1/status", nil, &status); err != nil {
			return err
		}
		for _, m := range status.Managers {
			if !m.Reachable {
				return fmt.Errorf("%s doesn't answer", m.Hostname)
			}
		}
		for _, n := range status.Nodes {
			if n.Session == "" || n.State != "ready" {
				return fmt.Errorf("%s is %s", n.Hostname, n.State)
			}
		}
		return nil
	})
	return status
}

// versions waits until the status shows these versions, in the order of the machines.
func (c *Cluster) versions(want ...cluster.Build) {
	c.t.Helper()
	c.Eventually(time.Minute, "the versions are known", func() error {
		status := c.wellStatus()
		known := map[string]cluster.Build{}
		for _, n := range status.Nodes {
			known[n.Hostname] = n.Build
		}
		for i, m := range c.Machines {
			if known[m.Name] != want[i] {
				return fmt.Errorf("%s runs %+v, want %+v", m.Name, known[m.Name], want[i])
			}
		}
		for _, m := range status.Managers {
			if m.Build != known[m.Hostname] {
				return fmt.Errorf("manager %s says %+v, and its node %+v", m.Hostname, m.Build, known[m.Hostname])
			}
		}
		return nil
	})
}

// A rolling upgrade: the level rises when the last node can, and who can't from then on
// is told what to install, before it does anything.
func TestLevel_RisesWithTheLastNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{Build: before})
		id := c.Machines[0].Create(Spec("web", "app:1", 4))
		c.Runs(time.Minute, id, "app:1", 4)
		c.versions(before, before, before, before, before)

		// Up, down, and up again: nothing rises, so that the way back is open.
		want := []cluster.Build{before, before, before, before, before}
		leader := c.Leader()
		for _, to := range []cluster.Build{after, before, after} {
			for i, m := range c.Machines[:3] {
				if m != leader {
					upgrade(m, to)
					want[i] = to
					c.versions(want...)
				}
			}
			time.Sleep(10 * time.Second)
			if level := c.wellStatus().At(); level != 1 {
				t.Fatalf("with %v: level %d", want, level)
			}
		}
		upgrade(leader, after)
		lower, lowerKey := c.backup(c.Leader())
		for i, m := range c.Machines {
			if i >= 3 {
				time.Sleep(10 * time.Second) // A leader that could raise it would have.
				if level := c.wellStatus().At(); level != 1 {
					t.Fatalf("before the workers: level %d", level)
				}
				upgrade(m, after)
			}
		}
		c.versions(after, after, after, after, after)
		c.Eventually(time.Minute, "the level rises", func() error {
			if status := c.wellStatus(); status.ClusterLevel != (cluster.ClusterLevel{Level: 2, LevelVersion: "0.2.0"}) {
				return fmt.Errorf("it is %+v", status.ClusterLevel)
			}
			return nil
		})
		c.Runs(time.Minute, id, "app:1", 4)
		c.Same()

		const sentence = "the cluster is at level 2, which skep 0.1.0 (levels 1 to 1) doesn't know: install skep 0.2.0 or a newer one"
		// A manager of before ends at once, and its database is as it was.
		old := c.Machines[1]
		if old == c.Leader() {
			old = c.Machines[2]
		}
		upgrade(old, before)
		if err := old.Failure(); err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("a manager of before: %v", err)
		}
		old.Build = after
		old.Restart()
		c.vote(3)
		// A worker of before has no session.
		worker := c.Machines[3]
		upgrade(worker, before)
		c.Eventually(time.Minute, "it is down", func() error {
			return c.state(worker, swarm.NodeStateDown)
		})
		upgrade(worker, after)
		c.wellStatus()
		// Who joins is told as well, and nothing of it stays.
		for _, manager := range []bool{false, true} {
			stranger := c.add(len(c.Machines) + 1)
			upgrade(stranger, before)
			var of swarm.Swarm
			c.Leader().Do(http.MethodGet, "/swarm", nil, &of)
			token := of.JoinTokens.Worker
			if manager {
				token = of.JoinTokens.Manager
			}
			err := stranger.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{
				ListenAddr: stranger.IP, AdvertiseAddr: stranger.IP, RemoteAddrs: []string{c.Leader().IP}, JoinToken: token,
			}, nil)
			if err == nil || !strings.Contains(err.Error(), sentence) {
				t.Errorf("join, as a manager %v: %v", manager, err)
			}
			if _, err := os.Stat(stranger.path("identity.key")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("refused, and there is a key file: %v", err)
			}
			upgrade(stranger, after)
			stranger.Join(c.Leader(), manager)
		}
		if n := len(c.wellStatus().Nodes); n != 7 {
			t.Errorf("%d nodes, want 7", n)
		}

		// The way back from there is a backup of before the level rose.
		higher, higherKey := c.backup(c.Leader())
		for _, m := range c.Machines {
			m.Crash()
		}
		lone := c.add(len(c.Machines) + 1)
		upgrade(lone, before)
		restore := func(sealed, key []byte) error {
			path := lone.path("backup")
			if err := os.WriteFile(path, sealed, 0o600); err != nil {
				t.Fatal(err)
			}
			return lone.Try(http.MethodPost, "/skep/v1/restore", cluster.RestoreRequest{
				Path: path, Key: key, ListenAddr: lone.IP, AdvertiseAddr: lone.IP,
			}, nil)
		}
		if err := restore(higher, higherKey); err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("a backup of level 2: %v", err)
		}
		if err := restore(lower, lowerKey); err != nil {
			t.Fatalf("a backup of level 1: %v", err)
		}
		var services []swarm.Service
		lone.Do(http.MethodGet, "/services", nil, &services)
		if level := lone.manager().Store().View().Cluster().At(); level != 1 || len(services) != 1 {
			t.Errorf("restored: level %d, %d services", level, len(services))
		}
	})
}

func newRecipient(t testing.TB) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// backup has a machine make a backup, and opens its header.
func (c *Cluster) backup(m *Machine) (sealed, key []byte) {
	c.t.Helper()
	identity := newRecipient(c.t)
	sealed, err := m.call(http.MethodPost, "/skep/v1/backup", cluster.BackupRequest{Recipient: identity.Recipient().String()})
	if err != nil {
		c.t.Fatal(err)
	}
	header, err := age.ExtractHeader(bytes.NewReader(sealed))
	if err == nil {
		key, err = age.DecryptHeader(header, identity)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return sealed, key
}

// state tells whether the leader finds the machine's node in a state.
func (c *Cluster) state(m *Machine, want swarm.NodeState) error {
	var node swarm.Node
	if err := c.Leader().Try(http.MethodGet, "/nodes/"+nodeID(m), nil, &node); err != nil {
		return err
	}
	if node.Status.State != want {
		return fmt.Errorf("%s is %s", m.Name, node.Status.State)
	}
	return nil
}
