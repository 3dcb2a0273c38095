package clustertest

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// All managers are lost with their disks. What is left is a backup, taken through a
// follower, and the workers with their containers.
func TestCluster_ComesBackFromABackup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("canary-web", "app:1", 6))
		c.Runs(10*time.Second, id, "app:1", 6)
		follower := c.Machines[0]
		if follower == c.Leader() {
			follower = c.Machines[1]
		}
		sealed, key := c.backup(follower)
		if bytes.Contains(sealed, []byte("canary")) || bytes.Contains(sealed, []byte("SWMTKN")) || bytes.Contains(sealed, []byte("BEGIN")) {
			t.Error("the backup can be read without its key")
		}
		for i := range 30 { // what came after the backup is lost
			c.Machines[0].Create(Spec(fmt.Sprint("later-", i), "app:1", 0))
		}
		var before swarm.Swarm
		c.Machines[0].Do(http.MethodGet, "/swarm", nil, &before)
		kept := map[string]bool{}
		view := c.Leader().node.Manager().Store().View()
		for _, worker := range c.Machines[3:] {
			for task := range view.TasksOfNode(nodeID(worker)) {
				kept[task.ID] = true
			}
		}
		for _, m := range c.Machines[:3] {
			m.Crash()
			if err := os.RemoveAll(filepath.Join(c.dir, m.Name)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)

		path := filepath.Join(c.dir, "backup")
		first := c.Machines[0] // at an address that the workers know
		first.Restart()
		restore := func(content []byte, request cluster.RestoreRequest) error {
			t.Helper()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			request.Path = path
			request.ListenAddr, request.AdvertiseAddr = first.IP, first.IP
			return first.Try(http.MethodPost, "/skep/v1/restore", request, nil)
		}
		damaged := bytes.Clone(sealed)
		damaged[len(damaged)/2] ^= 1
		for what, try := range map[string]func() error{
			"a wrong key":      func() error { return restore(sealed, cluster.RestoreRequest{Key: make([]byte, cluster.BackupKeySize)}) },
			"a damaged backup": func() error { return restore(damaged, cluster.RestoreRequest{Key: key}) },
			"half a backup":    func() error { return restore(sealed[:len(sealed)/2], cluster.RestoreRequest{Key: key}) },
			"an empty backup":  func() error { return restore(nil, cluster.RestoreRequest{Key: key}) },
			"more than a backup": func() error {
				return restore(append(bytes.Clone(sealed), "more"...), cluster.RestoreRequest{Key: key})
			},
		} {
			if err := try(); err == nil {
				t.Fatalf("it was made of %s", what)
			}
			if state := first.node.Info().LocalNodeState; state != swarm.LocalNodeStateInactive {
				t.Errorf("after %s the node is %s", what, state)
			}
		}
		if err := restore(sealed, cluster.RestoreRequest{Key: key}); err != nil {
			t.Fatal(err)
		}
		if err := restore(sealed, cluster.RestoreRequest{Key: key}); err == nil {
			t.Error("a member was restored once more")
		}
		c.Runs(time.Minute, id, "app:1", 6)
		var after swarm.Swarm
		first.Do(http.MethodGet, "/swarm", nil, &after)
		if after.ID != before.ID || after.JoinTokens != before.JoinTokens || after.TLSInfo.TrustRoot != before.TLSInfo.TrustRoot {
			t.Error("it is another cluster")
		}
		view = first.node.Manager().Store().View()
		if n := view.ServiceCount(); n != 1 {
			t.Errorf("there are %d services; one was backed up", n)
		}
		for id := range kept {
			if task := view.Task(id); task == nil || !task.Live() || task.Status.State != cluster.StateRunning {
				t.Errorf("task %s, which ran on a worker all the time, is %+v", id, task)
			}
		}

		// It is a cluster like any other: it takes managers in and survives its first one.
		for _, m := range c.Machines[1:3] {
			m.Restart()
			m.Join(first, true)
		}
		c.vote(3)
		first.Crash()
		c.Machines[1].Create(Spec("after", "app:1", 0))
		first.Restart()
		c.Runs(time.Minute, id, "app:1", 6)
		c.Same()
	})
}
