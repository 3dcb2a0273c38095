package cluster

import (
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/fxamacker/cbor/v2"
)

// Agents and managers talk over one mutual TLS connection per agent, opened by
// the agent with ALPN ProtocolSession. Each direction is a row of frames: four
// bytes of length, big endian, then one CBOR message: FromAgent one way,
// FromManager the other. A frame over MaxFrame, or MaxAgentFrame, ends the connection.
//
// The agent speaks first, with Hello. The manager answers with Welcome and the
// complete assignments of the node, then sends differences. The agent sends the
// status of every task it holds after each Welcome, and each change from then
// on; so nothing needs an acknowledgement, since a lost session resends all.
// Each side sends something at least every HeartbeatEvery (Welcome carries it)
// and gives the other up after three such periods of silence.
const (
	// ProtocolRaft, ProtocolSession and ProtocolHTTP are the ALPN names on the
	// control port; ProtocolRenew is HTTP, too, for renewing a certificate and nothing else.
	// By ProtocolEngine an agent calls that was asked to (FromManager.Engine): it is HTTP the
	// other way round, one request of the manager's for the node's engine. By ProtocolManager managers
	// call each other: see cluster/manager/peers.
	ProtocolRaft    = "skep-raft/1"
	ProtocolSession = "skep-session/1"
	ProtocolHTTP    = "http/1.1"
	ProtocolRenew   = "skep-renew/1"
	ProtocolEngine  = "skep-engine/1"
	ProtocolManager = "skep-manager/1"
	// MaxFrame is the largest frame, in bytes.
	MaxFrame = 16 << 20
	// MaxAgentFrame is the largest frame of an agent, in bytes. A description, a part of
	// a log or a thousand reports fit in; agents send more than that in several.
	MaxAgentFrame = 512 << 10
	// MaxEngineRequests is how many requests a node's engine is asked by managers at a time.
	MaxEngineRequests = 64
	// WireFormat is the version of these messages; a peer that says another one
	// is refused with a clear error.
	WireFormat = 1
)

// FromAgent is a message of an agent. An empty one is a heartbeat.
type FromAgent struct {
	Hello *Hello `cbor:"1,keyasint,omitempty"`
	// Describe replaces the node's description.
	Describe *swarm.NodeDescription `cbor:"2,keyasint,omitempty"`
	Reports  []Report               `cbor:"3,keyasint,omitempty"`
	// Logs answers a LogRequest, in order.
	Logs *LogChunk `cbor:"4,keyasint,omitempty"`
	// Leaving is sent last by an agent that stops in order.
	Leaving bool `cbor:"5,keyasint,omitempty"`
	// EngineAway is set in every message while the node's engine hasn't answered for
	// some seconds.
	EngineAway bool `cbor:"6,keyasint,omitempty"`
	// Lease asks for the right to run fenced tasks for FenceLease from now: the agent's
	// clock, which nobody else interprets. Zero when the node has no such tasks.
	Lease int64 `cbor:"7,keyasint,omitempty"`
	// Halting is set beside Leaving when the machine itself stops, so that waiting for the
	// agent to come back would be in vain.
	Halting bool `cbor:"8,keyasint,omitempty"`
	// Warning is set in every message while something is wrong with the node though it
	// works.
	Warning string `cbor:"9,keyasint,omitempty"`
	// WireKeys are the node's, beside Describe; none says nothing.
	WireKeys WireKeys `cbor:"10,keyasint,omitzero"`
	// Uses are as in Node, beside Describe.
	Uses []AddressUse `cbor:"11,keyasint,omitempty"`
}

// Hello opens a session. Who speaks is in the certificate.
type Hello struct {
	Format      int                   `cbor:"1,keyasint"`
	Description swarm.NodeDescription `cbor:"2,keyasint"`
	// Addr is the IP address that the node advertises.
	Addr string `cbor:"3,keyasint"`
	// Build is which skep the node runs.
	Build Build `cbor:"4,keyasint,omitzero"`
	// Run names this start of the agent, after the machine's own start: MACHINE.RUN.
	Run string `cbor:"5,keyasint,omitempty"`
	// DataAddr is the IP address for packets of networks, where it isn't Addr.
	DataAddr string `cbor:"6,keyasint,omitempty"`
	// Engine is what the node's engine calls itself.
	Engine string `cbor:"7,keyasint,omitempty"`
	// WireKeys are the node's; none says nothing.
	WireKeys WireKeys `cbor:"8,keyasint,omitzero"`
	// Uses are as in Node.
	Uses []AddressUse `cbor:"9,keyasint,omitempty"`
}

// Report is the news of one task.
type Report struct {
	TaskID string     `cbor:"1,keyasint"`
	Status TaskStatus `cbor:"2,keyasint"`
	// Traceparent is the span that the report belongs to (W3C), if it does to any.
	Traceparent string `cbor:"3,keyasint,omitempty"`
}

// FromManager is a message of a manager. An empty one is a heartbeat.
type FromManager struct {
	Welcome     *Welcome     `cbor:"1,keyasint,omitempty"`
	Assignments *Assignments `cbor:"2,keyasint,omitempty"`
	// Peers replaces the list of managers and the gossip keys; the whole of it comes
	// after each Welcome and at each change.
	Peers *Peers `cbor:"3,keyasint,omitempty"`
	// Logs asks for a task's log; CancelLogs ends that request.
	Logs       *LogRequest `cbor:"4,keyasint,omitempty"`
	CancelLogs uint64      `cbor:"5,keyasint,omitempty"`
	// Refused is sent last by a manager that ends the session, with the reason.
	Refused string `cbor:"6,keyasint,omitempty"`
	// Lease grants what FromAgent.Lease with this value asked for.
	Lease int64 `cbor:"7,keyasint,omitempty"`
	// LogCredit says that lines of a log have been taken.
	LogCredit *LogCredit `cbor:"8,keyasint,omitempty"`
	// Copy is set beside Refused for an agent whose machine is a copy of its node's: it
	// must not run the node's tasks.
	Copy bool `cbor:"9,keyasint,omitempty"`
	// Networks are NetworkUpdates. They are taken in before Assignments.
	Networks []cbor.RawMessage `cbor:"10,keyasint,omitempty"`
	// Engine is the manager that the agent is to call by ProtocolEngine.
	Engine string `cbor:"11,keyasint,omitempty"`
}

// Welcome accepts a session.
type Welcome struct {
	Format int `cbor:"1,keyasint"`
	// HeartbeatMillis is the longest silence either side should keep.
	HeartbeatMillis int64 `cbor:"2,keyasint"`
}

// Peers is what a node needs to find the cluster again.
type Peers struct {
	Managers []Peer `cbor:"1,keyasint"`
	// GossipKeys are as in Cluster.
	GossipKeys [][]byte `cbor:"2,keyasint"`
	// Role is the role the node should have now; a node whose certificate says
	// another one asks for a new certificate.
	Role swarm.NodeRole `cbor:"3,keyasint"`
	// Trust is what the node should trust.
	Trust Trust `cbor:"4,keyasint,omitzero"`
	// Cluster is the level that the cluster is at.
	Cluster ClusterLevel `cbor:"5,keyasint,omitzero"`
}

// Trust is what managers say of the cluster's root CA. A node takes its roots
// first, and then asks for a certificate by Issuer if its own is by another.
type Trust struct {
	// Version is that of the cluster's record; an older one says nothing new.
	Version uint64 `cbor:"1,keyasint,omitempty"`
	// Roots and Issuer are as the methods of Cluster.
	Roots  []byte `cbor:"2,keyasint,omitempty"`
	Issuer []byte `cbor:"3,keyasint,omitempty"`
	// Within is the time in which all nodes should ask, each at some moment of its own.
	Within time.Duration `cbor:"4,keyasint,omitempty"`
}

// certificatesPerSecond is how many nodes ask for new certificates after a change
// of the root CA: the leader has other work.
const certificatesPerSecond = 50

// TrustOf is what nodes, so many of them, are told.
func TrustOf(c *Cluster, nodes int) Trust {
	if c == nil {
		return Trust{}
	}
	return Trust{
		Version: c.Version, Roots: c.Roots(), Issuer: c.Issuer(),
		Within: time.Second + time.Duration(nodes)*time.Second/certificatesPerSecond,
	}
}

// Peer is a manager's control address, and the keys of its certificates.
type Peer struct {
	NodeID string    `cbor:"1,keyasint"`
	Addr   string    `cbor:"2,keyasint"`
	Key    KeyDigest `cbor:"3,keyasint,omitzero"`
	OldKey KeyDigest `cbor:"4,keyasint,omitzero"`
}

// Has tells whether the manager has that key: see Certificate.
func (p Peer) Has(key KeyDigest) bool { return Certificate{Key: p.Key, OldKey: p.OldKey}.Has(key) }

// PeerOf is how a manager's node is told to others.
func PeerOf(node *Node) Peer {
	return Peer{NodeID: node.ID, Addr: node.ManagerAddr, Key: node.Certificate.Key, OldKey: node.Certificate.OldKey}
}

// Assignments tells a node what is to run on it: all tasks whose NodeID it is,
// ended ones too, as long as their record is kept.
type Assignments struct {
	// Full means that this is the complete set: what isn't in it is to go.
	Full bool `cbor:"1,keyasint,omitempty"`
	// From and To are the store indexes between which this is the difference. From
	// must be the To of the message before; else the agent ends the session, which
	// brings a full set.
	From uint64 `cbor:"2,keyasint,omitempty"`
	To   uint64 `cbor:"3,keyasint"`
	// Revisions are those that Tasks refer to and that this session hasn't sent
	// before, or that changed.
	Revisions []*Revision `cbor:"4,keyasint,omitempty"`
	Tasks     []*Task     `cbor:"5,keyasint,omitempty"`
	// Removed are IDs of tasks whose record is gone: stop, remove, forget.
	Removed []string `cbor:"6,keyasint,omitempty"`
	// Secrets and Configs are those that tasks refer to that may still need them and
	// that this session hasn't sent before. A task whose own haven't come yet waits.
	Secrets []*Secret `cbor:"7,keyasint,omitempty"`
	Configs []*Config `cbor:"8,keyasint,omitempty"`
	// Gone are IDs of such secrets and configs that were removed.
	Gone []string `cbor:"9,keyasint,omitempty"`
	// Dropped are IDs of secrets and configs that were sent or called gone, and that
	// no task of the node needs any more: forget them.
	Dropped []string `cbor:"10,keyasint,omitempty"`
	// Traces are for those of Tasks that are new.
	Traces Traces `cbor:"11,keyasint,omitempty"`
}

// Traces are the spans (W3C's traceparent) that what becomes of tasks belongs to, by the IDs of their services.
type Traces map[string]string

// LogRequest asks for the log of one task of the node.
type LogRequest struct {
	ID     uint64     `cbor:"1,keyasint"`
	TaskID string     `cbor:"2,keyasint"`
	Query  LogOptions `cbor:"3,keyasint"`
}

// LogOptions says which part of a log.
type LogOptions struct {
	Stdout bool `cbor:"1,keyasint,omitempty"`
	Stderr bool `cbor:"2,keyasint,omitempty"`
	// Follow goes on with new lines until cancelled or the task ends.
	Follow bool `cbor:"3,keyasint,omitempty"`
	// Tail is how many lines from the end to begin with; negative means all.
	Tail int `cbor:"4,keyasint,omitempty"`
	// Since leaves out earlier lines; zero means none.
	Since Time `cbor:"5,keyasint,omitempty"`
	// Window is how many bytes, by LogLine.Size, may be sent and not yet be taken; 0 is
	// no limit.
	Window int `cbor:"6,keyasint,omitempty"`
}

// LogCredit tells an agent that so many bytes of its answer to the LogRequest of this
// ID have been taken.
type LogCredit struct {
	ID    uint64 `cbor:"1,keyasint"`
	Bytes int    `cbor:"2,keyasint"`
}

// LogChunk is a part of an answer to the LogRequest of this ID.
type LogChunk struct {
	ID    uint64    `cbor:"1,keyasint"`
	Lines []LogLine `cbor:"2,keyasint,omitempty"`
	// Done is set in the last chunk; Err says why the log couldn't be read to its end.
	Done bool   `cbor:"3,keyasint,omitempty"`
	Err  string `cbor:"4,keyasint,omitempty"`
}

// LogLine is one line (or a part of a very long one) that a task wrote.
type LogLine struct {
	// Stderr tells the stream.
	Stderr bool `cbor:"1,keyasint,omitempty"`
	Time   Time `cbor:"2,keyasint"`
	// Data includes the newline, when there was one.
	Data []byte `cbor:"3,keyasint"`
	// Attrs are what the log driver was told to add (labels, env).
	Attrs map[string]string `cbor:"4,keyasint,omitempty"`
}

// Size is about how much memory the line takes, the same for sender and receiver.
func (l *LogLine) Size() int {
	size := len(l.Data) + 64
	for key, value := range l.Attrs {
		size += len(key) + len(value)
	}
	return size
}

// Relay is what a manager tells the leader about its agents, at least every few hundred
// milliseconds and at once when there is news: POST /v1/relay, one at a time.
// Nothing of it is written to the log but what changes an object.
type Relay struct {
	// Manager is the sender; Epoch changes when it starts anew.
	Manager string `cbor:"1,keyasint"`
	Epoch   string `cbor:"2,keyasint"`
	// Sessions are the nodes with a live session on the sender, always all of them.
	Sessions []string `cbor:"3,keyasint"`
	// Nodes are descriptions that came in; Reports are news of tasks.
	Nodes   []NodeNews   `cbor:"4,keyasint,omitempty"`
	Reports []NodeReport `cbor:"5,keyasint,omitempty"`
	// Stopped are nodes whose agent said that it stops.
	Stopped []string `cbor:"6,keyasint,omitempty"`
	// EngineAway are those of Sessions whose engine doesn't answer, always all of them.
	EngineAway []string `cbor:"7,keyasint,omitempty"`
	// Leases are those of Sessions whose agent asks for a lease.
	Leases []string `cbor:"8,keyasint,omitempty"`
	// Number counts an epoch's relays: one can overtake another that its sender gave up.
	Number uint64 `cbor:"9,keyasint,omitempty"`
	// Unseen are the nodes that the sender's own gossip suspects or doesn't see, always
	// all of them.
	Unseen []string `cbor:"10,keyasint,omitempty"`
	// Halting are those of Stopped whose machine stops.
	Halting []string `cbor:"11,keyasint,omitempty"`
	// Runs are the runs of the agents of Sessions, in their order.
	Runs []string `cbor:"12,keyasint,omitempty"`
	// Copies are machines that were turned away since they are copies of a node's.
	Copies []CopyNews `cbor:"13,keyasint,omitempty"`
	// Warnings are what agents of Sessions warn of, always all of it.
	Warnings []Warning `cbor:"14,keyasint,omitempty"`
}

// Warning is what an agent says is wrong with its node though it works.
type Warning struct {
	NodeID string `cbor:"1,keyasint"`
	Text   string `cbor:"2,keyasint"`
}

// CopyNews is that a copy of a node's machine was turned away, and where it says it is.
type CopyNews struct {
	NodeID string `cbor:"1,keyasint"`
	Addr   string `cbor:"2,keyasint"`
}

// RelayAnswer is what the leader says to a relay; nothing when it is empty.
type RelayAnswer struct {
	// Leases are the nodes that may run fenced tasks for FenceLease from when they asked.
	Leases []string `cbor:"1,keyasint,omitempty"`
	// Missing are ready nodes of which no manager has a session: each manager's gossip
	// should look after them.
	Missing []string `cbor:"2,keyasint,omitempty"`
}

// NodeNews is an agent's account of its node.
type NodeNews struct {
	NodeID      string                `cbor:"1,keyasint"`
	Description swarm.NodeDescription `cbor:"2,keyasint"`
	Addr        string                `cbor:"3,keyasint"`
	// Build is what Hello said; zero when there is no news of it.
	Build Build `cbor:"4,keyasint,omitzero"`
	// DataAddr and Engine are what Hello said.
	DataAddr string `cbor:"5,keyasint,omitempty"`
	Engine   string `cbor:"6,keyasint,omitempty"`
	// WireKeys and Uses are as the agent said last.
	WireKeys WireKeys     `cbor:"7,keyasint,omitzero"`
	Uses     []AddressUse `cbor:"8,keyasint,omitempty"`
}

// NodeReport is a report with its sender. A report about a task of another node
// is refused.
type NodeReport struct {
	NodeID string `cbor:"1,keyasint"`
	Report Report `cbor:"2,keyasint"`
}
