package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"filippo.io/age"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/timeline"
	"skep/cluster/trace"
	"skep/store"
)

// The API versions that are understood. Clients of the 29 line refuse a server
// whose newest is below 1.44; old libraries pin themselves to 1.41 and below.
const (
	APIVersion    = "1.51"
	MinAPIVersion = "1.24"
)

// notLeaderHeader marks a refusal that certainly changed nothing, so that the
// manager that forwarded the request may try again elsewhere.
const notLeaderHeader = "Skep-Not-Leader"

// Manager is what the API needs of the manager on this node.
type Manager interface {
	NodeID() string
	Store() *store.Store
	// Health is the manager's account of itself.
	Health() cluster.ManagerHealth
	// Leader waits until ctx ends for a leader to be known. Self means that this
	// manager leads.
	Leader(ctx context.Context) (peer cluster.Peer, self bool, err error)
	// LeaderChanged gives a channel that is closed at the next change of what Leader says.
	LeaderChanged() <-chan struct{}
	// ReadBarrier returns once the store holds all that was committed when it was called.
	// It fails with ErrNotLeader when this manager doesn't lead any more.
	ReadBarrier(ctx context.Context) error
	// CatchUp is the same for a manager that doesn't lead: it asks the leader how far the store
	// must be. It fails when the leader can't be asked or the store doesn't get there before ctx ends.
	CatchUp(ctx context.Context) error
	// Client talks to the other managers: mutual TLS on their control port.
	Client() *http.Client
	// Calls carries requests with small bodies, whose answers are no streams, to another manager, at less cost. Its errors
	// wrap ErrUnreachable when nothing was executed.
	Calls(peer cluster.Peer) http.RoundTripper
	// Quorum asks all managers, and tells how many answer, how many must for there to
	// be a leader, and how many there are.
	Quorum(ctx context.Context) (answer, needed, all int)
	// Trouble says why this manager does no leader's work although raft says that it
	// leads; empty when all is well.
	Trouble() string
	// Reachable tells which managers answer, by node ID.
	Reachable() map[string]bool
	// LeaderID is the leader's node ID as far as known, or empty.
	LeaderID() string
	// Changed gives a channel that is closed at the next change of what LeaderID, or
	// Reachable on the leader, says.
	Changed() <-chan struct{}
	// CanLose tells (with ErrPrecondition) when the managers would be without a
	// quorum if the node stopped being one.
	CanLose(nodeID string) error
	// NewRoot makes what begins a change of the root CA: to the root and key given, PEM,
	// or to a fresh one. It refuses when one is under way.
	NewRoot(current *cluster.Cluster, certPEM, keyPEM []byte) (*cluster.RootRotation, error)
	// Logs reads a task's log from its node, calling emit in order until it is read to
	// its end or, when it follows, until ctx ends or the task does.
	Logs(ctx context.Context, nodeID, taskID string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error
	// DialEngine opens a connection to the engine of a node, wherever that is, by which one request
	// can be made: of those about a task's container that agents pass on.
	DialEngine(ctx context.Context, nodeID string) (net.Conn, error)
	// Backup writes the database to out, encrypted for recipient.
	Backup(out io.Writer, recipient age.Recipient) error
	// Status is how the cluster is as this manager sees it, best on the leader. Digests of
	// all managers' databases take them a moment.
	Status(ctx context.Context, digests bool) (cluster.Status, error)
	// Timeline is what all managers did since then, as far as they answer within a second.
	Timeline(ctx context.Context, since time.Time) timeline.Timeline
}

// Node is what the API needs of the node it serves.
type Node interface {
	// Manager is nil unless the node is a manager now.
	Manager() Manager
	// ManagerChanged gives a channel that is closed at the next change of Manager.
	ManagerChanged() <-chan struct{}
	// Starting says why Manager is nil, when the node is to be a manager or doesn't know yet
	// whether it is; otherwise it is nil.
	Starting() error
	Init(ctx context.Context, request swarm.InitRequest) (nodeID string, err error)
	Join(ctx context.Context, request swarm.JoinRequest) error
	Leave(ctx context.Context, force bool) error
	Restore(ctx context.Context, request cluster.RestoreRequest) (nodeID string, err error)
	// Unlock starts a locked manager. It fails with ErrWrongKey, or with ErrNotLocked.
	Unlock(ctx context.Context, key cluster.UnlockKey) error
	// Attach asks the leader for a place of a container of this node in a network of the cluster, until
	// ctx ends, and Detach tells it that such containers are gone.
	Attach(ctx context.Context, request cluster.AttachRequest) (*cluster.Attached, error)
	Detach(ctx context.Context, ids []string) error
	// Info is what the node knows by itself: NodeID, NodeAddr, LocalNodeState,
	// ControlAvailable, Error, RemoteManagers, Warnings.
	Info() swarm.Info
}

// Config says what a Server works with.
type Config struct {
	// Node is required.
	Node Node
	// Engine is the local Docker Engine: unix:///path or tcp://host:port. Empty means
	// that there is none.
	Engine string
	// Registry asks a registry what the tag of an image names, with an X-Registry-Auth value; nil asks through
	// the local engine.
	Registry func(ctx context.Context, image, auth string) (registry.DistributionInspect, error)
	// Version is skep's own.
	Version string
	// Hostname is shown by /info when the engine doesn't answer.
	Hostname string
	// MaxBody is the largest body of a request that isn't the engine's; 0 means 2 MiB.
	MaxBody int64
	// AuditFile is where each request that changes something is told, as a line of JSON;
	// cluster.AuditToLog is for a line in Log, empty for one only where that shows what is for debugging.
	AuditFile string
	// Hold is how long a request waits for a leader; 0 means 10 s.
	Hold time.Duration
	// Now is the clock (default time.Now), Random where IDs and names come from
	// (default crypto/rand).
	Now    func() time.Time
	Random io.Reader
	// Metrics are what is measured, and shown at /metrics; nil for nothing.
	Metrics *telemetry.Metrics
	// SwarmNames has /metrics tell what Swarm's managers tell, by Swarm's names, too.
	SwarmNames bool
	// Trace has a span of each request; nil has none.
	Trace *trace.Tracer
	Log   *slog.Logger
}
