package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/cluster"
	"skep/cluster/api"
	"skep/cluster/ca"
	"skep/cluster/gossip"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
	"skep/store/seal"
)

// Config says what a node is made of. DataDir and Driver are required.
type Config struct {
	// DataDir holds the node's files; one daemon uses it at a time.
	DataDir string
	// Hosts are the sockets of the API: unix:///path, or tcp:// on a loopback address.
	Hosts []string
	// Group may use the sockets at paths; nil is the daemon's own group.
	Group *int
	// AuditFile is as in api.Config.
	AuditFile string
	// Engine is the local Docker Engine for what isn't the swarm's; empty for none.
	Engine string
	// Driver runs the containers.
	Driver agent.Driver
	// Plane carries the cluster's networks on this machine; nil where NoPlane says why it can't.
	Plane   network.Plane
	NoPlane string
	// NoEncryption says why encrypted networks aren't among them; "" when they are.
	NoEncryption string
	// SlowEncryption says why they are slow; "" when they aren't.
	SlowEncryption string
	// Names is as in agent.Config, of a cluster, and is told nil when the node has left it.
	Names func(clusterID string, names *dns.Names) error
	// EndHelpers ends what outlives the daemon to carry a cluster's networks: the engine's last node has left it. nil
	// where there is nothing.
	EndHelpers func(clusterID string) error
	// StopTasks has the node's containers stop with it when it stops in order, as with a machine's halt, and what
	// its networks consist of go with the last node of an engine: it makes all of it again when it starts.
	StopTasks bool
	// Halting tells whether the machine is being stopped; nil means that nobody knows.
	Halting func() bool
	// Hostname is the node's name; empty means the system's.
	Hostname string
	// Build is which skep this is; a zero Level stands for what this source has.
	Build cluster.Build

	// Init makes a new cluster at start, and Join (each host[:port]) with TokenFile joins
	// one, when the node isn't part of a cluster yet; with both, a new one is made only
	// when there is no token and none of those named has one: see enter. A member looks for managers there, too, when it
	// finds none where they were. AdvertiseAddr, ListenAddr and Availability are as in
	// swarm init and swarm join.
	Init                                    bool
	Join                                    []string
	TokenFile                               string
	AdvertiseAddr, ListenAddr, Availability string
	// DataPathAddr is where packets of networks are taken, if that isn't AdvertiseAddr.
	// DefaultAddrPool, SubnetSize and DataPathPort are for a new cluster, as in swarm init.
	DataPathAddr             string
	DefaultAddrPool          []string
	SubnetSize, DataPathPort uint32
	// UnlockKeyFile has the unlock key with which a locked manager starts by itself;
	// empty leaves it to swarm unlock.
	UnlockKeyFile string

	// Machine names this start of the machine; empty means the kernel's boot ID. Two nodes
	// with one identity are told apart by it.
	Machine string

	// Latency names the node's timing; see cluster.TimingFor.
	Latency string
	// SnapshotEntries, SnapshotBytes and GossipKeyPeriod are as in manager.Config.
	SnapshotBytes, SnapshotEntries uint64
	GossipKeyPeriod                time.Duration

	// MetricsPort is a port of its own for metrics, ConsolePort one for the console.
	MetricsPort MetricsPort
	ConsolePort ConsolePort
	// Metrics are what is measured; nil means that it has its own.
	Metrics *telemetry.Metrics
	// MetricsSwarmNames has them told by Swarm's names, too.
	MetricsSwarmNames bool
	// Trace has spans of requests to this node and of what they bring about here; nil has none.
	Trace *trace.Tracer
	Log   *slog.Logger
	// Fatal ends the process after a fault that must not be survived, such as a disk
	// that lost a write; nil logs the error and exits with status 1.
	Fatal func(error)
	// Now, Random, Network, Interfaces and Gossip are the world outside, and Write runs each write
	// to the disk, as in store.DiskConfig; nil means the real one.
	Now        func() time.Time
	Random     io.Reader
	Network    Network
	Interfaces func() ([]Interface, error)
	Gossip     func(gossip.Config) (Gossip, error)
	// Registry is as in api.Config; nil asks through Engine.
	Registry func(ctx context.Context, image, auth string) (registry.DistributionInspect, error)
	Write    func(what string, write func() error) error
	// FreeRoom tells how many bytes are left on the disk with a folder; nil asks the kernel.
	FreeRoom func(dir string) (uint64, error)
}

// Gossip is what a node needs of gossip.Gossip.
type Gossip interface {
	Join(ctx context.Context, seeds []cluster.Member) error
	Members() []cluster.Member
	Changed() <-chan struct{}
	Doubt(nodeID string)
	Unheard(ctx context.Context) []string
	Twins() []cluster.Twin
	SetKeys(keys [][]byte) error
	Leave(timeout time.Duration) error
	Close() error
}

// Node is one machine. Its methods may be called while Run runs.
type Node struct {
	cfg   Config
	log   *slog.Logger
	files files
	api   *api.Server
	// metrics are what is measured here.
	metrics *telemetry.Metrics
	// timing is what Config.Latency names.
	timing cluster.Timing
	// operations lets one init, join or leave happen at a time.
	operations chan struct{}
	// runCtx is Run's: a membership outlives the request that began it.
	runCtx context.Context
	// ready is closed when Run has taken the directory and serves.
	ready chan struct{}
	// serving is closed when the API's sockets are open.
	serving chan struct{}

	// failed has why a membership that worked ended by itself: it ends Run.
	failed chan error

	mu       sync.Mutex // guards the fields below
	member   *member
	joining  bool
	failure  error         // why the membership ended by itself
	managing chan struct{} // closed when Manager changes
	// entry is why the node isn't a member yet, though its command line asks for it.
	entry error
	// lockedAs is who the node is while its keys wait to be unlocked.
	lockedAs *cluster.Identity
}

var _ api.Node = (*Node)(nil)

// setDefaults sets what a node needs whether its daemon runs or its files are changed while that is off.
func (cfg *Config) setDefaults() {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Build.Level == 0 {
		cfg.Build = cluster.NewBuild(cfg.Build.Version)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Network == nil {
		cfg.Network = tcp{}
	}
}

// New makes a node; it touches nothing before Run.
func New(cfg Config) (*Node, error) {
	if cfg.DataDir == "" || cfg.Driver == nil {
		return nil, cluster.Errorf(cluster.ErrInvalid, "make node: a data directory and a driver are needed")
	}
	if err := errors.Join(cfg.MetricsPort.Check(), cfg.ConsolePort.Check()); err != nil {
		return nil, fmt.Errorf("make node: %w", err)
	}
	timing, err := cluster.TimingFor(cfg.Latency)
	if err != nil {
		return nil, fmt.Errorf("make node: %w", err)
	}
	if cfg.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find the host name: %w", err)
		}
		cfg.Hostname = name
	}
	cfg.setDefaults()
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) {
			cfg.Log.Error("stop at once", "err", err)
			os.Exit(1)
		}
	}
	if cfg.Machine == "" {
		// Without one, the runs of agents still differ.
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		cfg.Machine = strings.ReplaceAll(strings.TrimSpace(string(boot)), ".", "")
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = localInterfaces
	}
	if cfg.FreeRoom == nil {
		cfg.FreeRoom = freeRoom
	}
	if cfg.Gossip == nil {
		cfg.Gossip = func(c gossip.Config) (Gossip, error) { return gossip.Start(c) }
	}
	n := &Node{cfg: cfg, timing: timing, log: cfg.Log, files: files{cfg.DataDir}, operations: make(chan struct{}, 1), ready: make(chan struct{}), serving: make(chan struct{}), failed: make(chan error, 1), managing: make(chan struct{})}
	if n.metrics = cfg.Metrics; n.metrics == nil {
		n.metrics = telemetry.New()
	}
	n.metrics.OnScrape(n.measure)
	n.api = api.New(api.Config{
		Node: n, Engine: cfg.Engine, Registry: cfg.Registry, Version: cfg.Build.Version, Hostname: cfg.Hostname,
		AuditFile: cfg.AuditFile, Now: cfg.Now, Random: cfg.Random, Metrics: n.metrics, SwarmNames: cfg.MetricsSwarmNames, Trace: cfg.Trace, Log: cfg.Log,
	})
	return n, nil
}

// Run lives the node's life until ctx ends. Stopping is in order: leadership is
// handed over, the agent says that it leaves, and containers are left running.
func (n *Node) Run(ctx context.Context) (err error) {
	release, err := n.files.claim()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	n.runCtx = ctx
	// The API outlives the membership, so that a request under way can be answered.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	servers := make(chan error, len(n.cfg.Hosts)+3)
	running := 0
	for _, host := range n.cfg.Hosts {
		listener, err := listenAPI(host, n.cfg.Group)
		if err != nil {
			return err
		}
		running++
		n.log.Info("serve API", "addr", host)
		handler := n.api.Local()
		if listener.Addr().Network() != "unix" {
			handler = n.api.Loopback()
		}
		go func() { servers <- api.Serve(serving, listener, handler) }()
	}
	if port := n.cfg.MetricsPort; port.Addr != "" {
		listener, err := n.listenMetrics()
		if err != nil {
			return err
		}
		running++
		n.log.Info("serve metrics", "addr", listener.Addr().String(), "tls", port.TLS, "token", port.TokenFile != "")
		go func() { servers <- api.ServeScrapes(serving, listener, n.api.Scrape(port.token, !port.NoServices)) }()
	}
	if port := n.cfg.ConsolePort; port.Addr != "" {
		listener, err := n.listenConsole()
		if err != nil {
			return err
		}
		_, at, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		running++
		n.log.Info("serve console", "addr", listener.Addr().String())
		go func() { servers <- api.ServeConsole(serving, listener, n.api.ConsolePort(at, port.tokens, port.knows)) }()
	}
	running++
	go func() { servers <- n.api.Run(serving) }()
	close(n.serving)

	if err := n.awaitRoom(ctx); err != nil {
		return err
	}
	member, err := n.restore()
	if err != nil {
		return err
	}
	if member != nil {
		// Whatever keeps it from going on, trying again is for whoever restarts daemons.
		member.markReady()
		n.begin(member)
	} else if n.locked() == nil && (n.cfg.Init || len(n.cfg.Join) > 0) {
		if !n.cfg.Init && n.cfg.TokenFile == "" {
			return cluster.Errorf(cluster.ErrInvalid, "join %s: this node is in no cluster yet, so it needs --token-file: put the output of \"skep swarm join-token -q worker|manager\" into a file", strings.Join(n.cfg.Join, ","))
		}
		go n.autoJoin(ctx)
	}
	close(n.ready)
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		n.watchAddresses(watching)
	}()
	select {
	case <-ctx.Done():
	case err = <-n.failed:
	case err = <-servers:
		running--
	}
	stopWatching()
	<-watched
	n.mu.Lock()
	member = n.member
	n.mu.Unlock()
	if member != nil {
		member.stop()
	}
	if n.cfg.StopTasks && ctx.Err() != nil {
		err = errors.Join(err, n.stopTasks(ctx, member))
	}
	stopServing()
	for ; running > 0; running-- {
		if end := <-servers; end != nil && !errors.Is(end, context.Canceled) {
			err = errors.Join(err, end)
		}
	}
	return err
}

// stopTasks stops what a member runs that has stopped, or one that is locked.
func (n *Node) stopTasks(ctx context.Context, m *member) error {
	id := n.locked()
	if m != nil {
		own := m.credentials.Identity()
		id = &own
	}
	if id == nil {
		return nil
	}
	clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearLimit)
	defer cancel()
	return n.clear(clearing, *id)
}

// restore finds the membership that an earlier run left.
func (n *Node) restore() (*member, error) {
	there, err := exists(n.files.keys())
	if err != nil {
		return nil, fmt.Errorf("look for the key file: %w", err)
	}
	if !there {
		return nil, n.files.leftovers(n.log)
	}
	if err := n.files.finish(); err != nil {
		return nil, err
	}
	keys, err := ca.KeyFile{Path: n.files.keys()}.Load()
	if errors.Is(err, cluster.ErrLocked) {
		id, err := keys.Identity()
		if err != nil {
			return nil, n.unreadable(err)
		}
		return n.unlockAlone(id)
	}
	member, err := n.load(cluster.UnlockKey{})
	if err != nil {
		return nil, n.unreadable(err)
	}
	return member, nil
}

// unreadable says what to do about files that make no sense.
func (n *Node) unreadable(err error) error {
	if errors.Is(err, seal.ErrBad) || errors.Is(err, cluster.ErrInvalid) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("go on as a member: %w; nobody else has what was in it: %s, join the cluster again, and remove the node that this one was",
			err, n.startOver())
	}
	return fmt.Errorf("go on as a member: %w", err)
}

func (n *Node) current() *member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

// begin starts a membership.
func (n *Node) begin(m *member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.member, n.failure, n.entry = m, nil, nil
	m.start(n.runCtx, func(err error) {
		if err == nil {
			return
		}
		n.mu.Lock()
		n.failure = err
		n.mu.Unlock()
		select {
		case <-m.ready:
			n.failed <- fmt.Errorf("be a member of the cluster: %w", err)
		default:
			// Init or Join waits for it, says why and undoes it.
		}
	})
}

// Failure is why the membership ended by itself; nil while it goes on.
func (n *Node) Failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failure
}

// end stops a membership and forgets it.
func (n *Node) end(m *member) error {
	m.stop()
	n.unshare(m.credentials.Identity().ClusterID)
	n.mu.Lock()
	n.member, n.failure = nil, nil
	n.mu.Unlock()
	return n.files.wipe()
}

// Manager is this node's manager; nil unless it runs one now.
func (n *Node) Manager() api.Manager {
	if member := n.current(); member != nil {
		if m := member.manager.Load(); m != nil {
			return m
		}
	}
	return nil
}

// ManagerChanged returns a channel that is closed at the next change of Manager.
func (n *Node) ManagerChanged() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.managing
}

func (n *Node) announceManager() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.managing)
	n.managing = make(chan struct{})
}

// Starting says why there is no Manager yet; nil when there is one, or when the node is
// none.
func (n *Node) Starting() error {
	select {
	case <-n.ready:
	default:
		return errStarting
	}
	member := n.current()
	if member == nil || member.gone() != nil || member.credentials.Identity().Role != swarm.NodeRoleManager || member.manager.Load() != nil {
		return nil
	}
	if damage := member.damaged(); damage != nil {
		return fmt.Errorf("this node's manager doesn't run: %w: %w", cluster.ErrUnavailable, damage)
	}
	return errStarting
}

// Info is the part of /info that is this node's own.
func (n *Node) Info() swarm.Info {
	n.mu.Lock()
	member, joining, failure, locked, entry := n.member, n.joining, n.failure, n.lockedAs, n.entry
	n.mu.Unlock()
	info := swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}
	if locked != nil {
		info.LocalNodeState, info.NodeID = swarm.LocalNodeStateLocked, locked.NodeID
		return info
	}
	if joining {
		info.LocalNodeState = swarm.LocalNodeStatePending
	}
	if member == nil {
		if entry != nil {
			info.LocalNodeState, info.Error = swarm.LocalNodeStatePending, entry.Error()
		}
		return info
	}
	info.LocalNodeState = swarm.LocalNodeStateActive
	if failure != nil {
		info.LocalNodeState, info.Error = swarm.LocalNodeStateError, failure.Error()
	} else if gone := member.gone(); gone != nil {
		info.LocalNodeState, info.Error = swarm.LocalNodeStateError, gone.Error()
	} else if damage := member.damaged(); damage != nil {
		info.Error = damage.Error()
	} else if trouble := member.trouble(); trouble != nil {
		info.Error = trouble.Error()
	} else if copied := member.copied(); copied != "" {
		info.Error = copied
	} else if lack := member.addressError(); lack != nil {
		info.Error = lack.Error()
	}
	id := member.credentials.Identity()
	known := member.currentRecord()
	info.NodeID, info.NodeAddr = id.NodeID, known.Addresses.IP
	info.ControlAvailable = member.manager.Load() != nil
	for _, peer := range known.Peers.Managers {
		info.RemoteManagers = append(info.RemoteManagers, swarm.Peer{NodeID: peer.NodeID, Addr: peer.Addr})
	}
	return info
}

// splitRemote completes host[:port] of a manager.
func splitRemote(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = strings.Trim(addr, "[]"), fmt.Sprint(controlPort)
	}
	if host == "" {
		return "", cluster.Errorf(cluster.ErrInvalid, "%q is no address of a manager: want host or host:port", addr)
	}
	return net.JoinHostPort(host, port), nil
}

// Ready is closed when orders may be given: Run has taken the directory and goes
// on with the membership that it found there.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// CarriesFor is the cluster whose networks this node carries; "" while it carries none.
func (n *Node) CarriesFor() string {
	if m := n.current(); m != nil && m.agent.Carries() {
		return m.credentials.Identity().ClusterID
	}
	return ""
}

// API serves what the node's sockets serve.
func (n *Node) API() http.Handler { return n.api.Local() }
