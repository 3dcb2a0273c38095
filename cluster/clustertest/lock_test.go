package clustertest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/store"
	"skep/store/seal"
)

// updateSwarm changes the cluster's spec as `swarm update` does.
func (m *Machine) updateSwarm(query string, edit func(*swarm.Spec)) error {
	var now swarm.Swarm
	if err := m.Try(http.MethodGet, "/swarm", nil, &now); err != nil {
		return err
	}
	edit(&now.Spec)
	return m.Try(http.MethodPost, fmt.Sprintf("/swarm/update?version=%d&%s", now.Version.Index, query), now.Spec, nil)
}

// autolock turns autolock on or off, and gives the key that then holds.
func (m *Machine) autolock(on bool) string {
	m.cluster.t.Helper()
	if err := m.updateSwarm("", func(s *swarm.Spec) { s.EncryptionConfig.AutoLockManagers = on }); err != nil {
		m.cluster.t.Fatal(err)
	}
	return m.unlockKey()
}

func (m *Machine) rotateUnlockKey() string {
	m.cluster.t.Helper()
	if err := m.updateSwarm("rotateManagerUnlockKey=true", func(*swarm.Spec) {}); err != nil {
		m.cluster.t.Fatal(err)
	}
	return m.unlockKey()
}

func (m *Machine) unlockKey() string {
	m.cluster.t.Helper()
	var shown swarm.UnlockKeyResponse
	m.Do(http.MethodGet, "/swarm/unlockkey", nil, &shown)
	return shown.UnlockKey
}

func (m *Machine) unlock(key string) error {
	return m.Try(http.MethodPost, "/swarm/unlock", swarm.UnlockRequest{UnlockKey: key}, nil)
}

func (m *Machine) keyFile() ca.KeyFile {
	return ca.KeyFile{Path: filepath.Join(m.cluster.dir, m.Name, "identity.key")}
}

// lockedUnder waits until the key files of the machines are locked under key, or
// lie in the clear when it is empty.
func (c *Cluster) lockedUnder(key string, machines ...*Machine) {
	c.t.Helper()
	c.Eventually(5*time.Second, "the key files are locked as the cluster says", func() error {
		for _, m := range machines {
			if err := m.lockedUnder(key); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Machine) lockedUnder(key string) error {
	if key == "" {
		_, err := m.keyFile().Load()
		return err
	}
	if _, err := m.keyFile().Load(); !errors.Is(err, cluster.ErrLocked) {
		return fmt.Errorf("%s isn't locked: %v", m.Name, err)
	}
	parsed, err := cluster.ParseUnlockKey(key)
	if err != nil {
		return err
	}
	_, err = m.keyFile().Unlock(parsed)
	return err
}

func (m *Machine) state() swarm.LocalNodeState { return m.node.Info().LocalNodeState }

// ready waits until all nodes are ready.
func (c *Cluster) ready() {
	c.t.Helper()
	c.Eventually(20*time.Second, "all nodes are ready", func() error {
		for node := range c.Leader().node.Manager().Store().View().Nodes() {
			if node.Status.State != cluster.NodeReady {
				return fmt.Errorf("%s is %v: %s", node.Description.Hostname, node.Status.State, node.Status.Message)
			}
		}
		return nil
	})
}

// TestAutolock_WholeWay turns autolock on, restarts, unlocks and turns it off.
func TestAutolock_WholeWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{SnapshotEntries: 50})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		managers, workers := c.Machines[:3], c.Machines[3:]
		locked := c.Machines[2]
		before, err := locked.keyFile().Load()
		if err != nil {
			t.Fatal(err)
		}
		key := c.Machines[1].autolock(true)
		c.lockedUnder(key, managers...)
		c.lockedUnder("", workers...)
		for i := range 20 {
			c.Machines[i%3].Create(Spec(fmt.Sprint("note-", i), "app:1", 0))
		}
		c.Same()
		backup := filepath.Join(c.dir, "backup")
		sealed, fileKey := c.backup(c.Machines[0])
		restore := cluster.RestoreRequest{Path: backup, Key: fileKey, ListenAddr: locked.IP, AdvertiseAddr: locked.IP}
		if err := os.WriteFile(backup, sealed, 0o600); err != nil {
			t.Fatal(err)
		}

		locked.Stop()
		// Whoever kept the data key from before can't read what was written since.
		parsed, err := cluster.ParseUnlockKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := locked.keyFile().Unlock(parsed)
		if err != nil {
			t.Fatal(err)
		}
		identity, err := keys.Identity()
		if err != nil {
			t.Fatal(err)
		}
		open := func(dataKeys [][32]byte) error {
			ring := seal.NewRing(seal.Key(dataKeys[0]))
			for _, key := range dataKeys {
				ring.Rotate(seal.Key(key))
			}
			disk, err := store.OpenDisk(store.DiskConfig{Dir: filepath.Join(c.dir, locked.Name, "raft"), Ring: ring, ClusterID: identity.ClusterID})
			if err != nil {
				return err
			}
			return disk.Close()
		}
		if err := open(before.DataKeys); !errors.Is(err, seal.ErrBad) {
			t.Errorf("the database opens with the data key from before autolock: %v", err)
		}
		if err := open(keys.DataKeys); err != nil {
			t.Errorf("the database doesn't open with its own keys: %v", err)
		}
		held, err := locked.Driver.List(t.Context(), identity.NodeID)
		if err != nil || len(held) == 0 {
			t.Fatalf("%d containers, %v", len(held), err)
		}

		locked.Restart()
		if locked.state() != swarm.LocalNodeStateLocked || locked.node.Info().NodeID != identity.NodeID {
			t.Errorf("after a restart: %+v", locked.node.Info())
		}
		if status, err := c.Leader().manager().Status(t.Context(), false); err != nil || !strings.Contains(strings.Join(status.Problems, "\n"), `waits for "swarm unlock" there`) {
			t.Errorf("the others don't say that it may be locked: %q, %v", status.Problems, err)
		}
		for _, path := range []string{"/swarm", "/nodes", "/services", "/swarm/unlockkey"} {
			if err := locked.Try(http.MethodGet, path, nil, nil); err == nil || !strings.Contains(err.Error(), "needs to be unlocked") {
				t.Errorf("%s: %v", path, err)
			}
		}
		for what, err := range map[string]error{
			"init":  locked.Try(http.MethodPost, "/swarm/init", swarm.InitRequest{ListenAddr: locked.IP, AdvertiseAddr: locked.IP, ForceNewCluster: true}, nil),
			"leave": locked.Try(http.MethodPost, "/swarm/leave", nil, nil),
			// It would remove a database that may be the last one.
			"restore": locked.Try(http.MethodPost, "/skep/v1/restore", restore, nil),
		} {
			if err == nil || !strings.Contains(err.Error(), "encrypted and") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := locked.unlock(cluster.NewUnlockKey(rand.Reader).Text()); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("another key: %v", err)
		}
		if err := c.Machines[0].unlock(key); err == nil || !strings.Contains(err.Error(), "409") {
			t.Errorf("unlock of one that isn't locked: %v", err)
		}
		// The cluster replaces its tasks, what runs there goes on meanwhile.
		c.Runs(30*time.Second, id, "app:1", 10)
		if running, err := locked.Driver.List(t.Context(), identity.NodeID); err != nil || len(running) != len(held) {
			t.Errorf("%d of %d containers are left while it is locked: %v", len(running), len(held), err)
		}
		if err := locked.unlock(key); err != nil {
			t.Fatal(err)
		}
		if err := locked.Try(http.MethodGet, "/nodes", nil, nil); err != nil {
			t.Errorf("right after unlock: %v", err)
		}
		c.ready()
		c.Runs(30*time.Second, id, "app:1", 10)
		c.Same()

		if key := c.Machines[0].autolock(false); key != "" {
			t.Errorf("a key is shown after autolock was turned off")
		}
		c.lockedUnder("", managers...)
		for _, m := range managers {
			m.Crash()
			m.Restart()
			if m.state() == swarm.LocalNodeStateLocked {
				t.Errorf("%s is locked", m.Name)
			}
			c.ready()
		}
		c.Same()
	})
}

// TestAutolock_FromTheBeginning: with init --autolock no key ever lies in the clear,
// of managers that join or are promoted neither; one that is demoted starts by itself.
func TestAutolock_FromTheBeginning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 2, 2, Options{AutoLock: true})
		key := c.Machines[0].unlockKey()
		for _, m := range c.Machines[:2] {
			if err := m.lockedUnder(key); err != nil {
				t.Error(err)
			}
		}
		c.lockedUnder("", c.Machines[2:]...)
		role := func(m *Machine, role swarm.NodeRole) {
			t.Helper()
			c.Machines[0].setRole(m, role)
			c.Eventually(30*time.Second, "the role is changed", func() error {
				if runs := m.node.Manager() != nil; runs != (role == swarm.NodeRoleManager) {
					return fmt.Errorf("a manager runs: %v", runs)
				}
				return nil
			})
		}
		promoted := c.Machines[2]
		for range 2 {
			role(promoted, swarm.NodeRoleManager)
			if err := promoted.lockedUnder(key); err != nil {
				t.Errorf("once it is a manager: %v", err)
			}
			role(promoted, swarm.NodeRoleWorker)
			c.lockedUnder("", promoted)
		}
		promoted.Crash()
		promoted.Restart()
		c.ready()
		if promoted.state() != swarm.LocalNodeStateActive {
			t.Errorf("a former manager is %s after a restart", promoted.state())
		}

		// All restart at once, as after a power cut; one has the key in a file.
		for _, m := range c.Machines[:2] {
			m.Crash()
		}
		file := filepath.Join(c.dir, "unlock-key")
		for content, want := range map[string]swarm.LocalNodeState{
			"": swarm.LocalNodeStateLocked, "rubbish": swarm.LocalNodeStateLocked,
			cluster.NewUnlockKey(rand.Reader).Text(): swarm.LocalNodeStateLocked,
		} {
			if content != "" {
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.Machines[0].UnlockKeyFile = file
			c.Machines[0].Restart()
			if state := c.Machines[0].state(); state != want {
				t.Errorf("with a wrong key in its file a manager is %s", state)
			}
			c.Machines[0].Stop()
		}
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Machines[0].Restart()
		if state := c.Machines[0].state(); state != swarm.LocalNodeStateActive {
			t.Errorf("with the key in its file a manager is %s", state)
		}
		c.Machines[1].Restart()
		if err := c.Machines[1].unlock(key); err != nil {
			t.Fatal(err)
		}
		c.ready()
		c.Same()
	})
}

// TestAutolock_KeyRotatedWhileDown: it unlocks with the key it was locked with, and
// takes the new one; and one whose key is lost can still leave.
func TestAutolock_KeyRotatedWhileDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{SnapshotEntries: 10})
		first := c.Machines[0].autolock(true)
		c.lockedUnder(first, c.Machines[:3]...)
		down := c.Machines[2]
		down.Crash()
		second := c.Machines[0].rotateUnlockKey()
		c.lockedUnder(second, c.Machines[:2]...)
		c.Machines[0].autolock(false)
		third := c.Machines[0].autolock(true)
		for i := range 30 { // so that it gets a snapshot
			c.Machines[0].Create(Spec(fmt.Sprint("note-", i), "app:1", 0))
		}
		down.Restart()
		for _, key := range []string{second, third} {
			if err := down.unlock(key); err == nil || !strings.Contains(err.Error(), "401") {
				t.Errorf("a key it was never locked with: %v", err)
			}
		}
		if err := down.unlock(first); err != nil {
			t.Fatal(err)
		}
		c.lockedUnder(third, c.Machines[:3]...)
		c.ready()
		c.Same()

		// What a restart plays again is older than what the file says.
		for _, m := range c.Machines[:3] {
			m.Crash()
		}
		for _, m := range c.Machines[:3] {
			m.Restart()
			if err := m.unlock(third); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 {
			time.Sleep(20 * time.Millisecond)
			for _, m := range c.Machines[:3] {
				if err := m.lockedUnder(third); err != nil {
					t.Fatalf("while it restarts: %v", err)
				}
			}
		}
		c.ready()

		down.Crash()
		down.Restart()
		if err := down.Try(http.MethodPost, "/swarm/leave?force=1", nil, nil); err != nil || down.state() != swarm.LocalNodeStateInactive {
			t.Errorf("leave by force: %v, %s", err, down.state())
		}
		if _, err := os.Stat(down.keyFile().Path); !os.IsNotExist(err) {
			t.Errorf("its key file: %v", err)
		}
		c.Same()
	})
}
