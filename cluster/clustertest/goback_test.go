package clustertest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/node"
)

// goBack gives the order to a machine whose daemon is off.
func (m *Machine) goBack(order node.BackOrder) error {
	_, err := node.GoBack(m.cluster.t.Context(), m.config(), order)
	return err
}

// kept are the copies of its database that a machine has from before the level rose.
func (m *Machine) kept() []string {
	files, err := filepath.Glob(m.path("before-level-*"))
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	return files
}

// rises waits until the cluster is at a level.
func (c *Cluster) rises(level int) {
	c.t.Helper()
	c.Eventually(2*time.Minute, "the level rises", func() error {
		if status := c.wellStatus(); status.At() != level {
			return fmt.Errorf("it is %d: %s", status.At(), status.LevelWaits)
		}
		return nil
	})
}

// TestBack_ByTheCopyFromBeforeTheLevelRose goes back to the version from before when the level has risen, and
// something was changed since, the lock of managers, too.
func TestBack_ByTheCopyFromBeforeTheLevelRose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{Build: before})
		first := c.Machines[0]
		web := first.Create(Spec("web", "app:1", 4))
		c.Runs(time.Minute, web, "app:1", 4)
		for _, m := range c.Machines {
			upgrade(m, after)
		}
		c.rises(2)
		for _, m := range c.wellStatus().Managers {
			if m.Kept != 2 {
				t.Errorf("%s kept a copy from before level %d", m.Hostname, m.Kept)
			}
		}
		late := first.Create(Spec("late", "app:2", 1))
		c.Runs(time.Minute, late, "app:2", 1)
		first.autolock(true)
		key := first.rotateUnlockKey()
		c.lockedUnder(key, c.Machines[:3]...)
		unlock, err := cluster.ParseUnlockKey(key)
		if err != nil {
			t.Fatal(err)
		}

		first.Stop()
		first.Build = before
		if err := first.goBack(node.BackOrder{}); !errors.Is(err, cluster.ErrLocked) {
			t.Errorf("without the unlock key: %v", err)
		}
		if err := first.goBack(node.BackOrder{Unlock: unlock}); err == nil || !strings.Contains(err.Error(), "something answers at 127.0.1.") {
			t.Errorf("while other managers run: %v", err)
		}
		for _, m := range c.Machines[1:] {
			m.Stop()
			m.Build = before
		}
		first.Restart()
		if err := first.unlock(key); err == nil || !strings.Contains(err.Error(), `before its level rose: \"skep upgrade back\"`) {
			t.Errorf("it starts by the version from before: %v", err)
		}
		first.Stop()
		// As after a crash on the way: the database is gone, and the one that was being laid down is half there.
		half := filepath.Join(first.path("raft.new"), "raft.db")
		if err := errors.Join(os.RemoveAll(first.path("raft")), os.MkdirAll(filepath.Dir(half), 0o700), os.WriteFile(half, []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := first.goBack(node.BackOrder{Unlock: unlock}); err != nil {
			t.Fatal(err)
		}
		// Whoever isn't sure does it again.
		if err := first.goBack(node.BackOrder{Unlock: unlock}); err == nil || !strings.Contains(err.Error(), "the cluster is at level 1") {
			t.Errorf("again: %v", err)
		}
		for _, m := range c.Machines[1:3] {
			if err := m.goBack(node.BackOrder{Unlock: unlock, AsWorker: true}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Machines[3].goBack(node.BackOrder{}); err == nil || !strings.Contains(err.Error(), "is a worker: there is nothing to do") {
			t.Errorf("a worker: %v", err)
		}
		for i, m := range c.Machines {
			m.Restart()
			if i < 3 {
				if err := m.unlock(key); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.versions(before, before, before, before, before)
		if level := c.wellStatus().At(); level != 1 {
			t.Errorf("the level is %d", level)
		}
		var services []swarm.Service
		first.Do(http.MethodGet, "/services", nil, &services)
		if len(services) != 1 || services[0].ID != web {
			t.Errorf("services %+v", services)
		}
		c.Runs(time.Minute, web, "app:1", 4)
		if now := first.unlockKey(); now != key {
			t.Error("the unlock key is another one than that by which the managers opened")
		}
		for _, m := range c.Machines[1:3] {
			if files := m.kept(); len(files) > 0 {
				t.Errorf("a worker has %v", files)
			}
			first.setRole(m, swarm.NodeRoleManager)
		}
		c.vote(3)
		c.Same()

		// The next rise has a copy of its own, and only that.
		for _, m := range c.Machines {
			old := m.kept()
			upgrade(m, after)
			if m.locked() {
				if err := m.unlock(key); err != nil {
					t.Fatal(err)
				}
			}
			if len(old) > 1 {
				t.Errorf("%s has %v", m.Name, old)
			}
		}
		c.rises(2)
		for i, m := range c.Machines {
			if files := m.kept(); len(files) != 1 && i < 3 || len(files) != 0 && i >= 3 {
				t.Errorf("%s has %v", m.Name, files)
			}
		}
		c.Same()
	})
}

// TestBack_IsRefused when nobody would trust the cluster, or there is no copy, or no reason.
func TestBack_IsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{Build: before})
		m := c.Machines[0]
		refused := func(order node.BackOrder, says string) {
			t.Helper()
			m.Stop()
			if err := m.goBack(order); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%+v: %v", order, err)
			}
			m.Restart()
		}
		if err := m.goBack(node.BackOrder{}); err == nil || !strings.Contains(err.Error(), "another skep daemon uses it") {
			t.Errorf("while the daemon runs: %v", err)
		}
		refused(node.BackOrder{}, "the cluster is at level 1, as far as this node knows, and skep 0.1.0 (levels 1 to 1) can be part of it: start the daemon")
		refused(node.BackOrder{Force: true}, "this manager kept no copy of the database")
		upgrade(m, after)
		c.rises(2)
		refused(node.BackOrder{}, "skep 0.2.0 (levels 1 to 2) can be part of it")
		old := c.record().RootCert
		if err := m.rotateRoot(); err != nil {
			t.Fatal(err)
		}
		c.Eventually(time.Minute, "the rotation is over", m.rotatedRoot)
		c.onlyRoot(old)
		m.Stop()
		m.Build = before
		if err := m.goBack(node.BackOrder{}); err == nil || !strings.Contains(err.Error(), "root CA was changed after the copy was made") {
			t.Errorf("with another root: %v", err)
		}
		upgrade(m, after) // It is as it was.
		c.wellStatus()
		if level := c.wellStatus().At(); level != 2 {
			t.Errorf("level %d", level)
		}
	})
}

// locked tells whether the machine's node waits to be unlocked.
func (m *Machine) locked() bool { return m.state() == swarm.LocalNodeStateLocked }

// TestLevel_WaitsForRoom raises the level only when all managers have room for a copy of their database, and
// says so meanwhile, whoever leads.
func TestLevel_WaitsForRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{Build: before})
		var full atomic.Bool
		full.Store(true)
		poor := c.Machines[1]
		poor.Flags = func(cfg *node.Config) {
			cfg.FreeRoom = func(string) (uint64, error) {
				if full.Load() {
					return 10 << 20, nil
				}
				return 1 << 40, nil
			}
		}
		for _, m := range c.Machines {
			upgrade(m, after)
		}
		waits := func() {
			t.Helper()
			c.Eventually(2*time.Minute, "the leader says why it waits", func() error {
				status := c.clusterStatus()
				if status.At() != 1 {
					t.Fatalf("level %d", status.At())
				}
				if want := "has 10 MiB free, and 64 are needed: make room there"; !strings.Contains(status.LevelWaits, want) || !strings.Contains(status.LevelWaits, "manager "+poor.Name) {
					return fmt.Errorf("it says %q", status.LevelWaits)
				}
				return nil
			})
		}
		waits()
		dead := c.Leader()
		dead.Crash()
		time.Sleep(10 * time.Second)
		if status := c.clusterStatus(); status.At() != 1 || status.LevelWaits == "" {
			t.Errorf("while a manager is gone: %d, %q", status.At(), status.LevelWaits)
		}
		dead.Restart()
		waits()
		full.Store(false)
		c.rises(2)
		for _, m := range c.Machines {
			if files := m.kept(); len(files) != 1 {
				t.Errorf("%s has %v", m.Name, files)
			}
		}
		if status := c.wellStatus(); status.LevelWaits != "" {
			t.Errorf("it waits: %s", status.LevelWaits)
		}
		c.Same()
	})
}
