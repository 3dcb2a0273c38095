package cluster

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func TestSpec_DefaultsStandForOurOwn(t *testing.T) {
	spec := CompleteSpec(swarm.Spec{})
	if spec.Raft.SnapshotInterval != 10000 || *spec.Raft.KeepOldSnapshots != 0 || spec.Raft.LogEntriesForSlowFollowers != 500 ||
		spec.Raft.HeartbeatTick != 1 || spec.Raft.ElectionTick != 10 || spec.Dispatcher.HeartbeatPeriod != 5*time.Second ||
		*spec.Orchestration.TaskHistoryRetentionLimit != 5 || spec.CAConfig.NodeCertExpiry != 2160*time.Hour || spec.Name != "default" {
		t.Errorf("not the defaults that clients know: %+v", spec)
	}
	for _, c := range []*Cluster{nil, {}, {Spec: spec}} {
		if got := c.RaftKeeping(); got != (RaftKeeping{Interval: 10000, Trailing: 10000, Snapshots: 2}) || c.SessionHeartbeat() != 0 || c.DefaultLogDriver() != nil {
			t.Errorf("%+v: %+v, %v", c, got, c.SessionHeartbeat())
		}
	}
	keep := uint64(3)
	set := &Cluster{Spec: swarm.Spec{Raft: swarm.RaftConfig{SnapshotInterval: 20, KeepOldSnapshots: &keep, LogEntriesForSlowFollowers: 7}}}
	set.Spec.Dispatcher.HeartbeatPeriod = 300 * time.Millisecond
	if got := set.RaftKeeping(); got != (RaftKeeping{Interval: 20, Trailing: 7, Snapshots: 4}) || set.SessionHeartbeat() != 300*time.Millisecond {
		t.Errorf("%+v, %v", got, set.SessionHeartbeat())
	}
	for period, ok := range map[time.Duration]bool{
		-1: false, 0: false, 99 * time.Millisecond: false, 100 * time.Millisecond: true, time.Second: true,
		1001 * time.Millisecond: false, 5 * time.Second: true, 10 * time.Second: false,
	} {
		if err := CheckHeartbeat(period); (err == nil) != ok {
			t.Errorf("%v: %v", period, err)
		}
	}
}
