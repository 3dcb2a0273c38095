package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/dispatch"
	"skep/cluster/manager/campaign"
	"skep/cluster/manager/peers"
	"skep/cluster/telemetry"
	"skep/cluster/timeline"
	"skep/cluster/trace"
	"skep/store"
	"skep/store/seal"
)

// Network is how managers reach each other: TCP, or a network in memory.
type Network = peers.Network

// Dial opens a TLS connection to a control port. Its errors wrap
// cluster.ErrUnreachable: nothing was sent.
func Dial(ctx context.Context, network Network, addr string, config *tls.Config) (net.Conn, error) {
	return peers.Dial(ctx, network, addr, config)
}

// Config says what a manager is made of.
type Config struct {
	// NodeID and ClusterID are this manager's.
	NodeID, ClusterID string
	// Listen is the address of the control port, Addr the one it advertises.
	Listen, Addr string
	Credentials  *ca.Credentials
	// KnownManager tells which managers may be heard over a certificate that has ended,
	// to elect a leader. It isn't read from the store, which knows nothing at first.
	KnownManager ca.Known
	// Build is which skep this is.
	Build cluster.Build
	// Ring seals the log and the snapshots, which lie in Dir.
	Ring *seal.Ring
	Dir  string
	// Expected says that there was a database in Dir: see store.DiskConfig.
	Expected bool
	// Write is as in store.DiskConfig; for tests.
	Write func(what string, write func() error) error
	// Bootstrap has the objects that a new cluster begins with; nil everywhere but
	// on its first manager at its first start.
	Bootstrap *Bootstrap
	// NewLineage makes this manager the only one, whatever the log says of others: all that
	// is on its disk counts as committed, the other managers become workers, and the database
	// begins a lineage of that name. Empty everywhere but after the order to go on alone.
	NewLineage string
	Network    Network
	// Peers are the managers that this node was last told of; nil means none.
	Peers func() []cluster.Peer
	// Members and MembersChanged are gossip's view.
	Members        func() []cluster.Member
	MembersChanged <-chan struct{}
	// Doubt has gossip look after a node at once, whose other connections ended.
	Doubt func(nodeID string)
	// Unheard lists the nodes that gossip reaches over TCP only; nil means that nobody asks.
	Unheard func(ctx context.Context) []string
	// Twins lists the nodes that gossip finds on two machines; nil means that nobody looks.
	Twins func() []cluster.Twin
	// API executes forwarded requests of the Docker Engine API; see api.Server.Remote.
	API http.Handler
	// Audit takes in that a node joined, or wasn't let in; nil means that nobody keeps it.
	Audit func(cluster.Audited)
	// WatchImages looks after the images of services until ctx ends, which the leader has it do, and
	// ImageProblems tells of which services it can't; nil means that nobody does.
	WatchImages   func(ctx context.Context, database *store.Store) error
	ImageProblems func(view store.View) []string
	// Keep keeps a copy of the database on this manager's disk, from before the cluster rises to a
	// level, and Kept tells which level that was; 0 for no copy. Nil means that none are kept.
	Keep func(level int, of Copy) error
	Kept func() int
	// HeartbeatTimeout is raft's heartbeat timeout: how long a silence makes followers look for
	// a new leader. 0 means 300 ms.
	HeartbeatTimeout time.Duration
	// Snapshots are taken when so many bytes, or entries, were applied since the last
	// one. 0 means 32 MiB and what the cluster's spec says.
	SnapshotBytes, SnapshotEntries uint64
	// GossipKeyPeriod is how long one gossip key sends before the next one does.
	// 0 means 12 hours.
	GossipKeyPeriod time.Duration
	// Metrics are what is measured; nil for nothing.
	Metrics *telemetry.Metrics
	// Trace has spans of requests; nil has none.
	Trace  *trace.Tracer
	Now    func() time.Time
	Random io.Reader
	Log    *slog.Logger
	// Fatal ends the process: see store.Config.
	Fatal func(error)
}

// ErrDamaged is store.ErrDamaged: Open fails with it when the manager must not vote on
// what is left in Dir.
var ErrDamaged = store.ErrDamaged

// Bootstrap is what a new cluster begins with.
type Bootstrap struct {
	Cluster *cluster.Cluster
	Node    *cluster.Node
	// Ingress is the network by which published ports are carried, or nil.
	Ingress *cluster.Network
}

// Manager is one manager. Its methods may be called by any goroutine.
type Manager struct {
	cfg             Config
	log             *slog.Logger
	store           *store.Store
	fsm             countingFSM
	raft            *raft.Raft
	port            *peers.Port
	transport       *peers.Transport
	campaign        *campaign.Campaign
	disk            *store.Disk
	dispatch        *dispatch.Dispatcher
	reachable       *reachability
	entries         *entries
	protocolErrors  lineLimit
	refusedRequests lineLimit
	crowdedJoins    lineLimit
	// turnedAway counts those whose certificate, or request, isn't one for here.
	turnedAway cluster.Seldom
	// notLetIn counts those who came by a limited join token that is no longer good.
	notLetIn  cluster.Seldom
	joins     joins
	elections elections
	timeline  *timeline.Ring
	waits     waitReasons
	// confirm asks a quorum whether this manager still leads in a term. Reads share confirmations on the leader, and
	// questions to it elsewhere.
	confirm       func(ctx context.Context, term uint64) error
	confirmations shared[uint64]
	questions     shared[uint64]
	// start names this start of the manager.
	start string
	// opened is set when all of the above is there.
	opened atomic.Bool
	// stuck is the term in which leadership couldn't be handed over.
	stuck atomic.Uint64
	// reloading is held while raft's configuration is read, changed and set.
	reloading sync.Mutex

	mu      sync.Mutex // guards the fields below
	leader  leader
	changed chan struct{} // closed when leader changes
	noticed chan struct{} // closed then, and when another manager answers or doesn't any more
	// warm is set when this manager has followed a leader since its start, or has written
	// that there was none.
	warm bool
}

// Open restores the manager's state from disk and listens on the control port.
// Nothing is answered before Run.
func Open(cfg Config) (_ *Manager, err error) {
	if cfg.Doubt == nil {
		cfg.Doubt = func(string) {}
	}
	if cfg.Metrics == nil {
		cfg.Metrics = &telemetry.Metrics{}
	}
	if cfg.WatchImages == nil {
		cfg.WatchImages = func(ctx context.Context, _ *store.Store) error { <-ctx.Done(); return ctx.Err() }
		cfg.ImageProblems = func(store.View) []string { return nil }
	}
	cfg.HeartbeatTimeout = defaulted(cfg.HeartbeatTimeout, 300*time.Millisecond)
	cfg.SnapshotBytes = defaulted(cfg.SnapshotBytes, 32<<20)
	cfg.GossipKeyPeriod = defaulted(cfg.GossipKeyPeriod, 12*time.Hour)
	m := &Manager{
		cfg: cfg, log: cfg.Log, changed: make(chan struct{}), noticed: make(chan struct{}), reachable: newReachability(),
		start: cluster.NewID(cfg.Random), timeline: timeline.NewRing(cfg.NodeID, cfg.Now()),
	}
	m.store = store.New(store.Config{Now: cfg.Now, Log: cfg.Log, Build: cfg.Build, Fatal: m.cfg.Fatal, Metrics: cfg.Metrics.Store, Trace: cfg.Trace, Wrote: m.wrote})
	m.fsm.FSM = m.store.FSM()
	m.elections.metrics, m.elections.timeline = cfg.Metrics.Raft, m.timeline
	if m.port, err = peers.Listen(cfg.Network, cfg.Listen); err != nil {
		return nil, err
	}
	m.transport = peers.New(peers.Config{
		NodeID: cfg.NodeID, Addr: cfg.Addr, Network: cfg.Network, Credentials: cfg.Credentials, KnownManager: cfg.KnownManager, Told: cfg.Peers,
		HeartbeatTimeout: cfg.HeartbeatTimeout, Believe: m.believe, Heard: func() { m.campaign.Heard() },
		HandedOver: func() { m.elections.stands(causeHandOver) }, Timeline: m.timeline,
		Ask: func(ctx context.Context, addr string) error {
			_, err := m.askHealth(ctx, addr)
			return err
		},
		Now: cfg.Now, Log: cfg.Log, RaftLog: raftLogger(cfg.Log),
	})
	defer func() {
		if err != nil {
			err = errors.Join(err, m.port.Close(), m.transport.Close())
		}
	}()
	if m.disk, err = m.openDisk(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.disk.Close())
		}
	}()
	m.dispatch = dispatch.New(dispatch.Config{
		NodeID: cfg.NodeID, Store: m.store, Members: cfg.Members, MembersChanged: cfg.MembersChanged, Probe: cfg.Doubt,
		Leader: m.dispatchLeader, LeaderChanged: m.LeaderChanged, Verify: m.ReadBarrier, Current: m.untilCurrent, Client: m.transport.Client(),
		Metrics: cfg.Metrics.Dispatch, Trace: cfg.Trace, LastContact: m.lastContact, ContactFor: max(heardFor, 2*cfg.HeartbeatTimeout), IsolatedAfter: 4 * cfg.HeartbeatTimeout, SuspectAfter: 5 * cfg.HeartbeatTimeout / 2, Now: cfg.Now, Log: cfg.Log, Random: cfg.Random,
	})
	if m.raft, err = m.startRaft(); err != nil {
		return nil, err
	}
	m.entries, m.confirm = newEntries(m.raft), m.transport.Confirm
	m.campaign = campaign.New(campaign.Config{
		NodeID: cfg.NodeID, Raft: m.raft, HeartbeatTimeout: cfg.HeartbeatTimeout, Servers: m.servers, Dial: cfg.Network.Dial,
		Ask: m.askRefusal, Stand: m.stand, Lost: m.transport.Lost(), Doubt: cfg.Doubt, Timeline: m.timeline, Now: cfg.Now, Log: cfg.Log,
	})
	m.timeline.Add(timeline.Record{Time: cfg.Now(), Kind: timeline.Started, Term: m.raft.CurrentTerm()})
	m.opened.Store(true)
	return m, nil
}

// stallLimit is how long a write to the disk may take. Until then a leader whose disk
// hangs keeps its lead, and nothing can be written.
const stallLimit = 1500 * time.Millisecond

// openDisk opens the files in Dir.
func (m *Manager) openDisk() (*store.Disk, error) {
	return store.OpenDisk(store.DiskConfig{
		Dir: m.cfg.Dir, Ring: m.cfg.Ring, ClusterID: m.cfg.ClusterID, Expected: m.cfg.Expected,
		StallLimit: max(stallLimit, 4*m.cfg.HeartbeatTimeout), Fatal: m.fatal, Dispensable: m.othersSuffice, Write: m.cfg.Write, Log: m.cfg.Log, Metrics: m.cfg.Metrics.Store, Now: m.cfg.Now,
	})
}

// fatal ends the process, after the others were told by breaking the connections.
func (m *Manager) fatal(err error) {
	_ = m.port.Break() // What matters is err.
	m.transport.Break()
	m.cfg.Fatal(err)
}

// Run serves until ctx ends. Then leadership is handed over first, so that the
// cluster goes on without an election; connections are closed last.
func (m *Manager) Run(ctx context.Context) error {
	// What serves outlives ctx by the hand-over.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error { return m.serveControl(serving) })
	g.Go(func() error { return m.watch(serving) })
	g.Go(func() error { return m.leadership(serving) })
	g.Go(func() error { return m.compact(serving) })
	g.Go(func() error { return m.campaign.Run(serving) })
	g.Go(func() error { return m.transport.Run(serving) })
	g.Go(func() error { return m.dispatch.Run(serving) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			m.StepDown()
		case <-serving.Done():
		}
		stop()
		return nil
	})
	err := g.Wait()
	m.transport.Client().CloseIdleConnections()
	if shutdown := m.raft.Shutdown().Error(); shutdown != nil {
		err = errors.Join(err, fmt.Errorf("shut down raft: %w", shutdown))
	}
	err = errors.Join(err, m.transport.Close(), m.disk.Close())
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// wrote takes in how many Updates were accepted together, and how long that took.
func (m *Manager) wrote(updates int, took time.Duration) {
	m.timeline.Wrote(m.cfg.Now(), m.raft.CurrentTerm(), updates, took)
}

// stand stands for election for want of a leader: it is silent, or nobody listens at its port.
func (m *Manager) stand(refused bool) error {
	cause := causeSilence
	if refused {
		cause = causeConnection
	}
	m.elections.stands(cause)
	err := m.transport.Stand()
	if err != nil {
		m.elections.stands("")
	}
	return err
}

const (
	// successorLimit is how long a manager that stops waits until its successor takes
	// writes. Its last news, such as its agent's farewell, then reach that one; and the
	// agents that must find another manager don't do so while everybody waits for it.
	successorLimit = time.Second
	// successorLook is how often it looks.
	successorLook = 2 * time.Millisecond
)

// StepDown hands leadership to another manager, if this one leads and there is
// another that is up to date, and returns when that one takes writes.
func (m *Manager) StepDown() {
	if m.raft.State() != raft.Leader || len(m.servers()) < 2 {
		return
	}
	if err := m.handOver(context.Background()); err != nil {
		m.log.Warn("stop leading", "node", m.cfg.NodeID, "err", err)
		return
	}
	limited, cancel := context.WithTimeout(context.Background(), successorLimit)
	defer cancel()
	for limited.Err() == nil {
		if peer, self, err := m.Leader(limited); err == nil && !self {
			if health, err := m.askHealth(limited, peer.Addr); err == nil && health.Ready {
				return
			}
		}
		cluster.Sleep(limited, successorLook)
	}
	m.log.Warn("hand over leadership: nobody took it yet", "node", m.cfg.NodeID)
}

// Isolated tells whether no leader has heard of this manager for some time: there
// is no quorum, or it isn't a manager any more.
func (m *Manager) Isolated() bool { return m.dispatch.Isolated() }

// Sessions tells which manager has the session of each node, as far as this one
// knows; the leader knows all.
func (m *Manager) Sessions() map[string]string { return m.dispatch.Sessions() }

// Figures tells how many agents have a session with this manager, and how many of their reports wait
// for the leader.
func (m *Manager) Figures() (sessions, reports int) { return m.dispatch.Figures() }

// Bytes is how large its log and its snapshots are on disk.
func (m *Manager) Bytes() (log, snapshots int64) { return m.disk.Bytes() }

// NodeID is this manager's node.
func (m *Manager) NodeID() string { return m.cfg.NodeID }

// Store is this manager's copy of the database.
func (m *Manager) Store() *store.Store { return m.store }

// Client speaks to other managers in this manager's name.
func (m *Manager) Client() *http.Client { return m.transport.Client() }

// Logs reads a task's log from wherever its node's session is.
func (m *Manager) Logs(ctx context.Context, nodeID, taskID string, options cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	return m.dispatch.Logs(ctx, nodeID, taskID, options, emit)
}

// DialEngine opens a connection to a node's engine, for one request.
func (m *Manager) DialEngine(ctx context.Context, nodeID string) (net.Conn, error) {
	return m.dispatch.DialEngine(ctx, nodeID)
}

// defaulted gives value, or otherwise when value is zero.
func defaulted[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
