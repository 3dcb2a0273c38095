package cluster

import (
	"fmt"
	"time"
)

// Status is the health of the whole cluster, as `skep cluster status` shows it.
// The leader makes it; it isn't stored.
type Status struct {
	ClusterID string
	ClusterLevel
	LeaderID string
	Term     uint64
	// LevelWaits is why the level isn't raised though all nodes can; empty for nothing.
	LevelWaits string `json:",omitempty"`
	// BackupAt is when the database was last backed up; zero for never.
	BackupAt time.Time `json:",omitzero"`
	// Autolock tells whether a manager that was restarted is locked.
	Autolock bool `json:",omitempty"`
	// EncryptNetworks tells whether all overlay networks that are made are encrypted, and InClear are the names
	// of those that aren't, since they were there before; sorted.
	EncryptNetworks bool     `json:",omitempty"`
	InClear         []string `json:",omitempty"`
	Managers        []ManagerHealth
	Nodes           []NodeHealth
	// Problems says what is unhealthy and why, in sentences; empty means all is well.
	Problems []string
}

// ManagerHealth is one manager as the leader sees it.
type ManagerHealth struct {
	NodeID, Hostname, Addr string
	// Leader is set when raft says that it leads, and Ready when it also takes writes.
	Leader, Ready, Voter bool
	// Reachable tells whether the manager answered when it was asked just now. What
	// follows is zero when it didn't.
	Reachable bool
	// DiskFree and DiskSize are those of the disk that its database is on, in bytes.
	DiskFree, DiskSize uint64
	// Digest is the SHA-256 of its database as it was at DigestIndex, if that was asked for:
	// managers with the same index must have the same.
	Digest      string `cbor:",omitempty" json:",omitempty"`
	DigestIndex uint64 `cbor:",omitempty" json:",omitempty"`
	// CopySize is how large a copy of its database is, if the digest was asked for: see KeptRoom.
	CopySize uint64 `cbor:",omitempty" json:",omitempty"`
	// Kept is the level before which it has kept a copy of its database; 0 for none.
	Kept int `cbor:",omitempty" json:",omitempty"`
	// Start names this start of the manager.
	Start string `cbor:",omitempty" json:",omitempty"`
	// Build is which skep it runs; when it didn't answer, what it said last.
	Build
	// State is what it is in raft: "follower", "candidate", "leader" or "shutdown".
	State                                string `cbor:",omitempty" json:",omitempty"`
	Term                                 uint64
	LastIndex, CommitIndex, AppliedIndex uint64
	SnapshotIndex                        uint64
	// Trouble says why it does no leader's work although raft says that it leads.
	Trouble string
	// DiskHung is for how long its disk hasn't taken a write that is under way; 0 when all
	// is well. DiskAnswers tells whether a write was tried and done, if that was asked.
	DiskHung    time.Duration
	DiskAnswers bool
	// Refused tells, if that was asked, whether nobody listens at the leader's port.
	Refused bool
	// LastContact is how long ago it heard of the leader.
	LastContact time.Duration
	// Waits says what the manager waits for until it has a vote, or, if it is to be a
	// worker, until it has none; empty for nothing.
	Waits string
	// HeartbeatTimeout is how long it lets a leader be silent: see Timing.
	HeartbeatTimeout time.Duration
}

// NodeHealth is one node by both signals.
type NodeHealth struct {
	NodeID, Hostname, Addr, Role, State, Availability string
	// Gossip is "alive", "tcp only" where UDP doesn't get through, "suspect" or "absent": not
	// met yet, given up or left.
	Gossip string
	// Session is the ID of the manager that has the node's session; empty for none.
	Session string
	// Build is which skep the node runs, as it said last.
	Build
	// DrainUntil is when a drained node is active again by itself; zero when it isn't.
	DrainUntil time.Time `json:",omitzero"`
	// Reason says why the node isn't ready, or what it warns of though it is.
	Reason string
}

// Warning is the sentence among Problems for what a node that is ready warns of; "" for nothing.
func (n *NodeHealth) Warning() string {
	if n.State != NodeReady.String() || n.Reason == "" {
		return ""
	}
	return fmt.Sprintf("node %s (%s): %s", n.Hostname, n.NodeID, n.Reason)
}
