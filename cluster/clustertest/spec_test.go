package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// snapshots counts the finished snapshots that a machine keeps.
func (m *Machine) snapshots() int {
	entries, _ := os.ReadDir(filepath.Join(m.cluster.dir, m.Name, "raft", "snapshots"))
	count := 0
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".tmp") {
			count++
		}
	}
	return count
}

// TestSpec_SnapshotsFollow: how often snapshots are taken and how many stay follows
// the cluster's spec, at once and after a restart.
func TestSpec_SnapshotsFollow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		write := func(count int) {
			for i := range count {
				c.Machines[0].Create(Spec(fmt.Sprintf("note-%d-%d", i, time.Now().UnixNano()), "app:1", 0))
				time.Sleep(100 * time.Millisecond)
			}
		}
		write(30)
		for _, m := range c.Machines {
			if n := m.snapshots(); n != 0 {
				t.Errorf("%s took %d snapshots after a few entries", m.Name, n)
			}
		}
		set := func(interval, keep, trailing uint64) {
			t.Helper()
			if err := c.Machines[1].updateSwarm("", func(s *swarm.Spec) {
				s.Raft.SnapshotInterval, s.Raft.KeepOldSnapshots, s.Raft.LogEntriesForSlowFollowers = interval, &keep, trailing
			}); err != nil {
				t.Fatal(err)
			}
		}
		stay := func(want int) {
			t.Helper()
			write(80)
			// The clock moves on when no snapshot is being taken, nor one too many removed.
			time.Sleep(time.Second)
			for _, m := range c.Machines {
				if n := m.snapshots(); n != want {
					t.Errorf("%s keeps %d snapshots, want %d", m.Name, n, want)
				}
			}
		}
		set(10, 3, 5)
		stay(4)
		set(10, 0, 5)
		stay(2)
		// A follower that misses more than trails needs a snapshot, and gets it.
		late := c.Machines[2]
		late.Crash()
		write(60)
		late.Restart()
		c.Same()
		set(10, 2, 500)
		late.Crash()
		late.Restart()
		stay(3)
		c.Same()
	})
}

// TestSpec_HeartbeatFollows: sessions begin anew with the period that was asked for,
// nothing is lost by that, and an agent that falls silent is noticed sooner.
func TestSpec_HeartbeatFollows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		before, err := c.Machines[0].Tasks(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, period := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second, 200 * time.Millisecond} {
			if err := c.Machines[1].updateSwarm("", func(s *swarm.Spec) { s.Dispatcher.HeartbeatPeriod = period }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			c.ready()
			after, err := c.Machines[0].Tasks(id)
			if err != nil {
				t.Fatal(err)
			}
			if len(after) != len(before) {
				t.Errorf("with %v there are %d tasks, before there were %d%s", period, len(after), len(before), describe(after))
			}
		}
		c.Same()
	})
}
