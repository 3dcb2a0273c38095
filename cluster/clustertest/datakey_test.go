package clustertest

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
	"skep/store/seal"
)

// dataKeys are those in the machine's key file, which may be locked under key.
func (m *Machine) dataKeys(key string) ([][32]byte, error) {
	lock := cluster.UnlockKey{}
	if key != "" {
		var err error
		if lock, err = cluster.ParseUnlockKey(key); err != nil {
			return nil, err
		}
	}
	keys, err := m.keyFile().Unlock(lock)
	return keys.DataKeys, err
}

// onlyNewKeys waits until the machines have one data key each, and not the one before.
func (c *Cluster) onlyNewKeys(key string, before map[*Machine][32]byte, machines ...*Machine) {
	c.t.Helper()
	c.Eventually(20*time.Second, "the data keys of before are dropped", func() error {
		for _, m := range machines {
			keys, err := m.dataKeys(key)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			if len(keys) != 1 || keys[0] == before[m] {
				return fmt.Errorf("%s has %d data keys", m.Name, len(keys))
			}
		}
		return nil
	})
}

// opens tells what the machine's disk says to a data key: its snapshots, the small
// files, then all of the log.
func (m *Machine) opens(clusterID string, key [32]byte) map[string]error {
	ring := seal.NewRing(seal.Key(key))
	dir := filepath.Join(m.cluster.dir, m.Name)
	found := map[string]error{}
	files, err := raft.NewFileSnapshotStore(filepath.Join(dir, "raft"), 10, io.Discard)
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	snapshots := seal.NewSnapshots(files, ring, clusterID)
	metas, err := snapshots.List()
	if err != nil || len(metas) == 0 {
		m.cluster.t.Fatalf("%s: %d snapshots, %v", m.Name, len(metas), err)
	}
	for _, meta := range metas {
		_, source, err := snapshots.Open(meta.ID)
		if err == nil {
			_, err = io.Copy(io.Discard, source)
			source.Close()
		}
		found["snapshot "+meta.ID] = err
	}
	for _, kind := range []string{"node", "agent"} {
		_, err := seal.NewFile(filepath.Join(dir, kind+".sealed"), ring, clusterID, kind).Read()
		found[kind+".sealed"] = err
	}
	disk, err := store.OpenDisk(store.DiskConfig{Dir: filepath.Join(dir, "raft"), Ring: ring, ClusterID: clusterID})
	if err == nil {
		err = disk.Close()
	}
	found["log"] = err
	return found
}

// TestDataKeys_OldOnesAreDropped: whoever copied the key file before autolock was
// turned on, or before the unlock key was rotated, can read nothing of a disk that
// is taken later; and managers that die in the middle go on with it.
func TestDataKeys_OldOnesAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{SnapshotEntries: 20})
		id := c.Machines[0].Create(Spec("web", "app:1", 6))
		for i := range 40 {
			c.Machines[0].Create(Spec(fmt.Sprint("note-", i), "app:1", 0))
		}
		c.Runs(10*time.Second, id, "app:1", 6)
		time.Sleep(3 * time.Second)
		before := map[*Machine][32]byte{}
		remember := func(key string) {
			for _, m := range c.Machines {
				keys, err := m.dataKeys(key)
				if err != nil || len(keys) != 1 {
					t.Fatalf("%s has %d data keys: %v", m.Name, len(keys), err)
				}
				before[m] = keys[0]
			}
		}
		clusterID := c.record().ID
		remember("")
		old := c.Machines[0].autolock(true)
		c.onlyNewKeys(old, before, c.Machines...)
		looked := c.Machines[1]
		for round := range 2 {
			looked.Stop()
			for what, err := range looked.opens(clusterID, before[looked]) {
				if !errors.Is(err, seal.ErrBad) {
					t.Errorf("round %d: the old key opens %s: %v", round, what, err)
				}
			}
			keys, err := looked.dataKeys(old)
			if err != nil {
				t.Fatal(err)
			}
			for what, err := range looked.opens(clusterID, keys[0]) {
				if err != nil {
					t.Errorf("round %d: the new key doesn't open %s: %v", round, what, err)
				}
			}
			looked.Restart()
			if err := looked.unlock(old); err != nil {
				t.Fatal(err)
			}
			c.ready()
			if round == 0 {
				remember(old)
				old = c.Machines[0].rotateUnlockKey()
				c.onlyNewKeys(old, before, c.Machines...)
			}
		}

		// One after the other dies a moment after the key was rotated.
		for i, m := range c.Machines {
			remember(old)
			next := c.Machines[(i+1)%3].rotateUnlockKey()
			c.Eventually(5*time.Second, "it has the new lock", func() error { return m.lockedUnder(next) })
			time.Sleep(time.Duration(60*i) * time.Millisecond)
			m.Crash()
			m.Restart()
			if err := m.unlock(next); err != nil {
				t.Fatal(err)
			}
			c.onlyNewKeys(next, before, c.Machines...)
			c.ready()
			old = next
		}
		c.Runs(30*time.Second, id, "app:1", 6)
		c.Same()
	})
}
