package dispatch

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cluster/dispatch/networks"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
	"skep/store"
)

// Config is what a Dispatcher works with. NodeID, Store, Leader and
// LeaderChanged are required.
type Config struct {
	// NodeID is this manager.
	NodeID string
	// Store is this manager's replica.
	Store *store.Store
	// Members lists the nodes that gossip sees; nil means that there is no gossip, and
	// only sessions count.
	Members func() []cluster.Member
	// MembersChanged receives after Members changed. Run is its only reader.
	MembersChanged <-chan struct{}
	// Probe has gossip probe a node at once whose session broke; nil does nothing.
	Probe func(nodeID string)
	// Leader gives the present leader; self means this manager, ok is false when there is none.
	Leader func() (peer cluster.Peer, self bool, ok bool)
	// LeaderChanged gives a channel that is closed at the next change of Leader.
	LeaderChanged func() <-chan struct{}
	// LastContact is when the leader last had an answer of a manager to something other than a
	// relay, such as raft's heartbeats: it keeps that manager's sessions valid between relays.
	// nil means that only relays do.
	LastContact func(managerID string) time.Time
	// ContactFor is for how long such contact keeps them valid.
	ContactFor time.Duration
	// Verify returns nil when this manager led at some time after the call. Without it
	// no agent gets a lease.
	Verify func(context.Context) error
	// Current returns when Store has what was committed when it was called, or can't have it soon: a
	// manager that has just started may know a cluster of long ago, and no agent is served before.
	// It is called once, in Run; nil doesn't wait.
	Current func(context.Context)
	// Client reaches other managers at https://<control address>/v1/..., with this
	// manager's certificate. Without it, this manager talks to no other one.
	Client *http.Client
	// Heartbeat is the longest silence in a session; three of them end it. The
	// default is one second.
	Heartbeat time.Duration
	// IsolatedAfter is after how long without an acknowledged relay a manager ends its sessions: later
	// than any election should take. It is three seconds at least.
	IsolatedAfter time.Duration
	// SuspectAfter is how long gossip may suspect a node without a session before it counts
	// as dead. The default is three seconds.
	SuspectAfter time.Duration
	// Metrics are what is measured; nothing by default.
	Metrics telemetry.Dispatch
	// Trace has spans of what tasks and reports go through here; nil has none.
	Trace *trace.Tracer
	// Now is the clock; the default is time.Now.
	Now func() time.Time
	// Log is where noteworthy things go; the default is nowhere.
	Log *slog.Logger
	// Random gives the epoch; the default is crypto/rand.
	Random io.Reader
}

const (
	defaultHeartbeat = time.Second
	defaultSuspect   = 3 * time.Second
	leastIsolated    = 3 * time.Second
	// silentHeartbeats is after how many missed heartbeats a session ends.
	silentHeartbeats = 3
	// lateTwentieths is after how much of a heartbeat gossip looks after the node; agents speak after
	// eighteen twentieths.
	lateTwentieths = 21
)

// Dispatcher is a manager's side of its agents.
type Dispatcher struct {
	config Config
	epoch  string
	outbox *outbox
	// started is closed when the hub listens to the store, and current after Current: sessions wait for both.
	started, current chan struct{}
	// networks notes what changes in networks.
	networks *networks.Hub
	// engines are the connections to nodes' engines.
	engines engineConns
	// refusals counts reports that sessions refused.
	refusals cluster.Seldom

	mu       sync.Mutex // guards the fields below
	sessions map[string]*session
	// unopened is how many connections of a node have yet to open a session.
	// turns are how often nodes' states turned into others, as agents say, since turnsSince.
	turns      map[string]int
	turnsSince time.Time
	unopened   map[string]int
	// published is the view up to which all sessions were marked.
	published store.View
	// managers are where managers listen, for agents to reconnect to; replaced, never written to.
	managers []cluster.Peer
	// ended is set when Run has returned: there are no sessions any more.
	ended bool
	// isolated is set while no leader has acknowledged a relay for Config.IsolatedAfter. The
	// replica is old then, and what its agents say goes nowhere, so it has no sessions.
	isolated bool
	// collector is nil unless Lead runs.
	collector *collector
}

// New makes a Dispatcher. Nothing happens before Run.
func New(config Config) *Dispatcher {
	if config.Heartbeat <= 0 {
		config.Heartbeat = defaultHeartbeat
	}
	if config.SuspectAfter <= 0 {
		config.SuspectAfter = defaultSuspect
	}
	config.IsolatedAfter = max(config.IsolatedAfter, leastIsolated)
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Probe == nil {
		config.Probe = func(string) {}
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Random == nil {
		config.Random = rand.Reader
	}
	return &Dispatcher{
		config:   config,
		epoch:    cluster.NewID(config.Random),
		outbox:   newOutbox(config.Trace),
		networks: networks.NewHub(),
		started:  make(chan struct{}),
		current:  make(chan struct{}),
		sessions: make(map[string]*session),
		unopened: make(map[string]int),
	}
}

// Run serves until ctx ends, and ends all sessions then. It runs once, on every
// manager, whoever leads.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.endSessions()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.fanOut(ctx) })
	group.Go(func() error { return d.relay(ctx) })
	group.Go(func() error {
		defer close(d.current)
		if d.config.Current != nil {
			d.config.Current(ctx)
		}
		return nil
	})
	if d.config.Trace != nil {
		group.Go(func() error { return d.shareOrigins(ctx) })
	}
	return group.Wait()
}

func (d *Dispatcher) endSessions() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	for _, s := range d.sessions {
		s.cancel(errStopping)
	}
	d.engines.end()
}

// setIsolated ends all sessions when this manager has lost its leader, so that the
// agents go to a manager that hasn't.
func (d *Dispatcher) setIsolated(isolated bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isolated == isolated {
		return
	}
	d.isolated = isolated
	d.config.Log.Debug("contact with the leader", "node", d.config.NodeID, "lost", isolated, "sessions", len(d.sessions))
	if isolated {
		for _, s := range d.sessions {
			s.cancel(errIsolated)
		}
	}
}

// Isolated tells whether no leader has acknowledged a relay of this manager for Config.IsolatedAfter.
func (d *Dispatcher) Isolated() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.isolated
}

// Sessions gives the manager that has the session of each node. Only the leader
// knows all; on another manager it lists that one's own.
func (d *Dispatcher) Sessions() map[string]string {
	d.mu.Lock()
	in := d.collector
	d.mu.Unlock()
	if in != nil {
		return in.sessions()
	}
	sessions := make(map[string]string)
	for _, nodeID := range d.outbox.sessionIDs() {
		sessions[nodeID] = d.config.NodeID
	}
	return sessions
}

// Figures tells how many agents have a session with this manager, and how many of their reports wait
// for the leader.
func (d *Dispatcher) Figures() (sessions, reports int) {
	d.outbox.mu.Lock()
	defer d.outbox.mu.Unlock()
	return len(d.outbox.sessions), d.outbox.pending
}

// session finds the live session of a node on this manager.
func (d *Dispatcher) session(nodeID string) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[nodeID]
}

// opening counts the connections of a node that have yet to open a session. It tells
// whether there may be so many.
func (d *Dispatcher) opening(nodeID string, more int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unopened[nodeID] += more
	if d.unopened[nodeID] == 0 {
		delete(d.unopened, nodeID)
	}
	return d.unopened[nodeID] <= maxOpening
}

// turn notes that a node's state is another one, as its agent says, and tells whether that may
// be once more.
func (d *Dispatcher) turn(nodeID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.config.Now()
	if since := now.Sub(d.turnsSince); d.turns == nil || since < 0 || since >= turnSpan {
		d.turns, d.turnsSince = map[string]int{}, now
	}
	if d.turns[nodeID] >= maxTurns {
		return false
	}
	d.turns[nodeID]++
	return true
}

// view gives the view up to which all sessions were marked.
func (d *Dispatcher) view() store.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.published
}

// leading gives the collector while Lead runs.
func (d *Dispatcher) leading() *collector {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.collector
}

// heartbeat is the longest silence in sessions that begin now: what the cluster's
// spec says when that is shorter than this manager's own.
func (d *Dispatcher) heartbeat(view store.View) time.Duration {
	if asked := view.Cluster().SessionHeartbeat(); asked > 0 && asked < d.config.Heartbeat {
		return asked
	}
	return d.config.Heartbeat
}
