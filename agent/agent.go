// Package agent is the part of a node that runs tasks: it keeps a session with
// some manager, holds the set of the node's tasks, takes each through its
// states, one driver call per step, and reports what became of them.
//
// Every node runs one Agent, by Run, for as long as it belongs to a cluster. Its
// goroutines: hold (owns the set of tasks), connect (one session after the
// other, with a reader and a writer), watch (what containers do), describe (the
// machine), record (the file), carry, keepNetworks and tellNames (the cluster's networks here,
// in the engine, and their names), watchMembers (who of
// the other nodes gossip misses), a knock for each of those (whether its machine lives), watchAttached (containers of users on them), answerCalls with one for each
// request of a manager's to the engine, watchUsage (what containers use), and for each task that is under way, one step.
//
// Guarantees: containers go on running without managers and without the agent,
// and are taken over after a restart of either; desired states never go back,
// observed ones neither; a task is reported to have ended only after its
// container has; a manager that is behind what the agent has seen can take
// nothing away; only containers of the agent's own node are ever touched.
package agent

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
)

// lastSteps is how long an agent that stops waits for calls to the driver that
// can't be cut off.
const lastSteps = 5 * time.Second

// Record is the file that outlives the agent; seal.File is one. Read gives an
// error that wraps fs.ErrNotExist when nothing was ever written.
type Record interface {
	Read() ([]byte, error)
	Write(data []byte) error
}

// Config is what an Agent needs.
type Config struct {
	// NodeID is the node's; it must match the certificate that Connect shows.
	NodeID string
	// Hostname, when set, replaces the one that the driver tells.
	Hostname string
	// Addr tells the IP address that the node advertises; nil leaves it to managers. DataAddr tells
	// where it takes packets of networks, if that is another; nil and "" mean that it isn't.
	Addr, DataAddr func() string
	// Build is which skep the node runs.
	Build  cluster.Build
	Driver Driver
	// ClusterID is the cluster's: what the Plane has is known by it.
	ClusterID string
	// Plane carries the networks of the cluster; nil where the node can't.
	Plane network.Plane
	// NoEncryption says why the Plane carries no encrypted networks; "" when it does.
	NoEncryption string
	// SlowEncryption says why encrypted networks are slow, which is shown while the node has any; "" when they aren't.
	SlowEncryption string
	// MTU tells that of the interface that packets between nodes use; nil, or 0, when it isn't
	// known.
	MTU func() int
	// Members lists the nodes that gossip sees, and MembersChanged receives after that changed; nil
	// where there is no gossip. Only a node that Plane is for asks.
	Members        func() []cluster.Member
	MembersChanged <-chan struct{}
	// SuspectAfter is how long gossip suspects a node until others are sent elsewhere (default
	// 150 ms): as long as one that is well takes to object.
	SuspectAfter time.Duration
	// Knock tries to connect to the machine of a node by its data address, before ctx ends, and returns what came of
	// it: see tellsNothing. Nil where all machines that gossip misses are taken to live.
	Knock func(ctx context.Context, addr netip.Addr) error
	// Names is told what the node's name server answers from, after each change, by one
	// goroutine, as soon as all is known; without the node's own resolvers. After an error it
	// is told again; it is told nil while nobody can ask. Nil for nobody.
	Names func(*dns.Names) error
	// Detach tells the leader of attachments whose containers are gone; nil for nobody.
	Detach func(ctx context.Context, ids []string) error
	// Record keeps the tasks across restarts; nil keeps nothing.
	Record Record
	// Warning says what is wrong with the node though it works, for managers to show; "" is
	// nothing, nil is never anything.
	Warning func() string
	// Run names this start of the agent, after the machine's own start: see cluster.Hello.
	Run string
	// OnCopy is told that managers call this machine a copy of the node's, and why; "" when
	// they take it for the node's. Nil for nobody.
	OnCopy func(reason string)
	// Connect opens an authenticated connection to some manager; it is called again
	// after each loss, and should then try another one.
	Connect func(ctx context.Context) (net.Conn, error)
	// CallManager opens an authenticated connection to the manager with that ID, by
	// cluster.ProtocolEngine; nil where managers can't ask the engine.
	CallManager func(ctx context.Context, managerID string) (net.Conn, error)
	// Missed tells whether gossip misses the manager that Connect reached last, so that its
	// silence is believed sooner. It should return at once; nil means never.
	Missed func() bool
	// OnPeers is told the managers, the gossip keys and the node's role, after each
	// connect and at each change. It should return soon; nil for nobody.
	OnPeers func(cluster.Peers)
	// OnRefused is called when a manager refuses a session: the node may have been removed.
	// It should return soon; nil for nobody.
	OnRefused func()
	// TLSInfo, when set, completes the node's description.
	TLSInfo func() swarm.TLSInfo
	// Halting tells whether the machine is being stopped, with this agent; nil means no.
	// It is asked when the agent stops in order.
	Halting func() bool
	// Metrics are what is measured; nothing by default.
	Metrics telemetry.Agent
	// Trace has spans of tasks that managers say the trace of; nil has none.
	Trace *trace.Tracer
	// Now is the clock for time stamps (default time.Now).
	Now func() time.Time
	// Random is where jitter comes from (default crypto/rand).
	Random io.Reader
	Log    *slog.Logger

	// DescribeEvery is how often the machine is looked at for changes (default 20 s).
	DescribeEvery time.Duration
	// ConnectTimeout is how long Connect and the manager's Welcome may take
	// together (default 5 s).
	ConnectTimeout time.Duration
}

// Agent runs the tasks of one node.
type Agent struct {
	cfg Config
	log *slog.Logger
	// driver is Config.Driver, measured.
	driver Driver
	// calls are run one after the other by the goroutine that holds the set.
	calls chan func(*taskSet)
	// look wakes describe.
	look chan struct{}
	// dirty wakes the recorder.
	dirty chan struct{}
	// plan wakes the plane, name what tells of names, and keep what looks after the engine's
	// networks.
	plan, name, keep chan struct{}
	// stopped is closed when the holder takes no more calls.
	stopped chan struct{}
	// engineCalls are the agent's to managers that ask the engine.
	engineCalls engineCalls
	// usage asks watchUsage.
	usage chan usageRequest

	// carriesNetworks is set while the account of nodes has this one.
	carriesNetworks atomic.Bool
	// networkWarning is what is wrong with networks: a string.
	networkWarning atomic.Value

	randomMu sync.Mutex // guards random
	random   *rand.Rand
}

// New returns an Agent; Run makes it work.
func New(cfg Config) (*Agent, error) {
	if cfg.NodeID == "" || cfg.Driver == nil || cfg.Connect == nil {
		return nil, fmt.Errorf("make agent: node ID, driver and connect are needed: %w", cluster.ErrInvalid)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Addr == nil {
		cfg.Addr = func() string { return "" }
	}
	if cfg.MTU == nil {
		cfg.MTU = func() int { return 0 }
	}
	if cfg.DataAddr == nil {
		cfg.DataAddr = func() string { return "" }
	}
	if cfg.Warning == nil {
		cfg.Warning = func() string { return "" }
	}
	if cfg.OnCopy == nil {
		cfg.OnCopy = func(string) {}
	}
	if cfg.Missed == nil {
		cfg.Missed = func() bool { return false }
	}
	if cfg.OnPeers == nil {
		cfg.OnPeers = func(cluster.Peers) {}
	}
	if cfg.SuspectAfter == 0 {
		cfg.SuspectAfter = 150 * time.Millisecond
	}
	if cfg.DescribeEvery == 0 {
		cfg.DescribeEvery = 20 * time.Second
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	if cfg.Random == nil {
		cfg.Random = crand.Reader
	}
	seed := [32]byte{}
	if _, err := io.ReadFull(cfg.Random, seed[:]); err != nil {
		return nil, fmt.Errorf("make agent: read randomness: %w", err)
	}
	return &Agent{
		cfg:         cfg,
		log:         cfg.Log.With("node", cfg.NodeID),
		driver:      timed(cfg.Driver, cfg.Metrics, cfg.Trace, cfg.Now),
		calls:       make(chan func(*taskSet)),
		look:        make(chan struct{}, 1),
		dirty:       make(chan struct{}, 1),
		plan:        make(chan struct{}, 1),
		name:        make(chan struct{}, 1),
		keep:        make(chan struct{}, 1),
		stopped:     make(chan struct{}),
		engineCalls: newEngineCalls(),
		usage:       make(chan usageRequest),
		random:      rand.New(rand.NewChaCha8(seed)),
	}, nil
}

// Run works until ctx ends, and then returns nil: the session was closed in
// order, the record is written, the containers go on running. It may be called
// once. It fails only when the record can't be read.
func (a *Agent) Run(ctx context.Context) error {
	remembered, err := a.remember()
	if err != nil {
		return err
	}
	s := newTaskSet(a, remembered)

	// The holder and the recorder outlive ctx, so that the last news get into the
	// farewell and into the record.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var holders, workers sync.WaitGroup
	holders.Go(func() { a.hold(inner, s) })

	if !remembered.Described {
		a.describeFirst(ctx)
	}
	workers.Go(func() { a.connect(ctx) })
	workers.Go(func() { a.answerCalls(ctx) })
	if sampler, ok := a.cfg.Driver.(Sampler); ok {
		workers.Go(func() { a.watchUsage(ctx, sampler) })
	}
	workers.Go(func() { a.watch(ctx) })
	workers.Go(func() { a.describe(ctx) })
	workers.Go(func() { a.record(ctx) })
	if a.cfg.Plane != nil {
		workers.Go(func() { a.carry(ctx) })
		workers.Go(func() { a.keepNetworks(ctx) })
		if a.cfg.Members != nil {
			workers.Go(func() { a.watchMembers(ctx) })
		}
	}
	if engine, ok := a.cfg.Driver.(AttachingEngine); ok && a.cfg.Detach != nil {
		workers.Go(func() { a.watchAttached(ctx, engine) })
	}
	if a.cfg.Names != nil {
		workers.Go(func() { a.tellNames(ctx) })
	}

	<-ctx.Done()
	a.call(func(s *taskSet) { s.close() })
	workers.Wait()
	a.call(func(s *taskSet) {}) // let what is queued come through
	stepped := make(chan struct{})
	go func() { s.steps.Wait(); close(stepped) }()
	select {
	case <-stepped:
	case <-time.After(lastSteps): // an engine that hangs must not hang us; the step will be repeated
	}
	err = a.writeRecord()
	close(a.stopped)
	cancel()
	holders.Wait()
	return err
}

// Carries tells whether the node carries networks, as far as the agent last knew.
func (a *Agent) Carries() bool { return a.carriesNetworks.Load() }

// Describe has the agent look at its machine now, and tell what changed.
func (a *Agent) Describe() {
	cluster.Notify(a.look)
}

// hold owns the set of tasks: it runs one call after the other.
func (a *Agent) hold(ctx context.Context, s *taskSet) {
	s.begin()
	for {
		select {
		case call := <-a.calls:
			call(s)
		case <-ctx.Done():
			return
		}
	}
}

// post hands call to the holder and returns when it has begun, or when the agent
// has stopped.
func (a *Agent) post(call func(*taskSet)) bool {
	select {
	case a.calls <- call:
		return true
	case <-a.stopped:
		return false
	}
}

// call runs call in the holder and waits for it.
func (a *Agent) call(call func(*taskSet)) bool {
	done := make(chan struct{})
	if !a.post(func(s *taskSet) { defer close(done); call(s) }) {
		return false
	}
	<-done
	return true
}

// jitter returns a random duration from half of d to d.
func (a *Agent) jitter(d time.Duration) time.Duration {
	a.randomMu.Lock()
	defer a.randomMu.Unlock()
	if d < 2 {
		return d
	}
	return d/2 + time.Duration(a.random.Int64N(int64(d/2)))
}
