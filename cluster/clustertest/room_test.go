package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestFullDisk_IsWaitedFor starts a manager whose disk is full: it waits, says why, and goes on
// by itself when there is room. A daemon that ended would be started again and again.
func TestFullDisk_IsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		m, worker := c.Machines[1], c.Machines[3]
		m.Stop()
		worker.Stop()
		m.FillDisk()
		worker.FillDisk()
		m.Restart()
		worker.Restart()
		time.Sleep(time.Minute)
		if m.off() {
			t.Fatalf("the manager didn't wait: %v", m.Failure())
		}
		info := m.node.Info()
		if info.LocalNodeState != swarm.LocalNodeStatePending || !strings.Contains(info.Error, "no space left on device") || !strings.Contains(m.node.Summary(), "room on the disk with") {
			t.Errorf("it is %s: %s; %s", info.LocalNodeState, info.Error, m.node.Summary())
		}
		if summary := worker.node.Summary(); summary != "worker" {
			t.Errorf("the worker, which needs no disk, is: %s", summary)
		}
		m.MendDisk()
		worker.MendDisk()
		c.Eventually(20*time.Second, "the manager is one again", func() error {
			if summary := m.node.Summary(); !strings.HasPrefix(summary, "follower, term ") || !strings.HasSuffix(summary, ", nodes: 4") {
				return fmt.Errorf("it is: %s", summary)
			}
			return nil
		})
		c.Same()
	})
}
