package cluster

import (
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// The defaults of a cluster's spec are Swarm's, since clients show and compare them.
// Where skep's own habit is another one, Swarm's default stands for that habit, and
// each other value for itself: see SessionHeartbeat and RaftKeeping.
const (
	defaultSnapshotInterval = 10000
	defaultSlowFollowers    = 500
	defaultHeartbeatPeriod  = 5 * time.Second

	// MinSessionHeartbeat and MaxSessionHeartbeat bound the longest silence in a
	// session; the latter is also the default.
	MinSessionHeartbeat = 100 * time.Millisecond
	MaxSessionHeartbeat = time.Second
	// MaxOldSnapshots bounds how many snapshots a manager keeps.
	MaxOldSnapshots = 1000
)

// CompleteSpec fills in the defaults that Swarm has, where the user set nothing.
func CompleteSpec(spec swarm.Spec) swarm.Spec {
	if spec.Name == "" {
		spec.Name = "default"
	}
	if spec.Orchestration.TaskHistoryRetentionLimit == nil {
		limit := int64(5)
		spec.Orchestration.TaskHistoryRetentionLimit = &limit
	}
	if spec.Raft.SnapshotInterval == 0 {
		spec.Raft.SnapshotInterval = defaultSnapshotInterval
	}
	if spec.Raft.KeepOldSnapshots == nil {
		spec.Raft.KeepOldSnapshots = new(uint64)
	}
	if spec.Raft.LogEntriesForSlowFollowers == 0 {
		spec.Raft.LogEntriesForSlowFollowers = defaultSlowFollowers
	}
	if spec.Raft.HeartbeatTick == 0 {
		spec.Raft.HeartbeatTick = 1
	}
	if spec.Raft.ElectionTick == 0 {
		spec.Raft.ElectionTick = 10
	}
	if spec.Dispatcher.HeartbeatPeriod == 0 {
		spec.Dispatcher.HeartbeatPeriod = defaultHeartbeatPeriod
	}
	if spec.CAConfig.NodeCertExpiry == 0 {
		spec.CAConfig.NodeCertExpiry = 90 * 24 * time.Hour
	}
	return spec
}

// CheckHeartbeat refuses a heartbeat period that sessions can't follow. Swarm's
// default is allowed, and stands for MaxSessionHeartbeat.
func CheckHeartbeat(period time.Duration) error {
	switch {
	case period == defaultHeartbeatPeriod, MinSessionHeartbeat <= period && period <= MaxSessionHeartbeat:
		return nil
	case period < 0:
		return Errorf(ErrInvalid, "heartbeat time period cannot be a negative duration")
	}
	return Errorf(ErrInvalid, "heartbeat period %v: agents and managers of skep speak at least every %v: give %v to %v, or %v, which is the default and stands for %v",
		period, MaxSessionHeartbeat, MinSessionHeartbeat, MaxSessionHeartbeat, defaultHeartbeatPeriod, MaxSessionHeartbeat)
}

// SessionHeartbeat is the longest silence in a session that the cluster's spec
// asks for; 0 when it leaves that to skep, as it does without a cluster.
func (c *Cluster) SessionHeartbeat() time.Duration {
	if c == nil || c.Spec.Dispatcher.HeartbeatPeriod == defaultHeartbeatPeriod {
		return 0
	}
	return c.Spec.Dispatcher.HeartbeatPeriod
}

// RaftKeeping is what managers keep of raft's log.
type RaftKeeping struct {
	// Interval is how many entries are applied from one snapshot to the next, and
	// Trailing how many stay in the log after one, for followers that are behind.
	Interval, Trailing uint64
	// Snapshots is how many snapshots stay.
	Snapshots int
}

// RaftKeeping reads it from the cluster's spec. One snapshot before the newest is
// always kept, in case the machine goes down; by default as many entries trail as
// lie between two snapshots.
func (c *Cluster) RaftKeeping() RaftKeeping {
	var raft swarm.RaftConfig
	if c != nil {
		raft = c.Spec.Raft
	}
	raft = CompleteSpec(swarm.Spec{Raft: raft}).Raft
	keeping := RaftKeeping{Interval: raft.SnapshotInterval, Trailing: raft.LogEntriesForSlowFollowers}
	if keeping.Trailing == defaultSlowFollowers {
		keeping.Trailing = keeping.Interval
	}
	keeping.Snapshots = 1 + int(min(max(*raft.KeepOldSnapshots, 1), MaxOldSnapshots))
	return keeping
}

// DefaultLogDriver is the log driver of tasks that have none of their own; nil
// leaves it to the engine.
func (c *Cluster) DefaultLogDriver() *swarm.Driver {
	if c == nil {
		return nil
	}
	return c.Spec.TaskDefaults.LogDriver
}
