package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster"
	"skep/cluster/gossip/guard"
)

const (
	// DefaultPort is where nodes gossip, over both UDP and TCP.
	DefaultPort = cluster.GossipPort

	// exchangeInterval is how often each node compares its whole list with another's:
	// the news of a join is sent to a few members at random and may miss one.
	exchangeInterval = 20 * time.Second
	// streamTimeout bounds every exchange over TCP, and with it each address of Join.
	streamTimeout = 5 * time.Second
	// reclaimAfter is how long a dead node's name stays bound to its old address.
	reclaimAfter = 5 * time.Second
	// leaveTimeout is what Leave takes when it is given no time.
	leaveTimeout = 2 * time.Second
)

// Config says who gossips, where and with what keys.
type Config struct {
	// NodeID names the member; ClusterID labels all packets. Both are required.
	NodeID, ClusterID string
	// BindAddr is the IP address to listen on; empty means all.
	BindAddr string
	// AdvertiseAddr is the IP address that others should use; empty means BindAddr,
	// or a private address of the machine if that is empty too.
	AdvertiseAddr string
	// Port is the port, here and on all other nodes; 0 means DefaultPort.
	Port int
	// Keys are the cluster's gossip keys, KeySize bytes each: the first one sends, all
	// of them are understood. At least one.
	Keys [][]byte
	// Timing is how patient this member is; the zero value means that of a LAN.
	Timing cluster.Timing
	// RejoinEvery is how often a missing seed is tried again; 0 means 10 s.
	RejoinEvery time.Duration
	// Known tells whether a node is in the database, and how many are; 0 when there is no
	// database. It must not block. Nil means that there never is one.
	Known func(nodeID string) (known bool, nodes int)
	// Transport carries packets and streams in tests; nil means UDP and TCP.
	Transport memberlist.Transport
	// Now is the clock for limiting the log; nil means time.Now.
	Now func() time.Time
	// Log is where memberlist's messages go; nil means nowhere.
	Log *slog.Logger
}

// Gossip is a running member.
type Gossip struct {
	config  Config
	list    *memberlist.Memberlist
	ring    guard.Ring
	guard   *guard.Guard
	calm    *calm
	states  atomic.Pointer[states]
	changed chan struct{}
	done    chan struct{} // closed by Close: ends watch
	watched chan struct{} // closed when watch has ended

	doubts   chan struct{} // holds a token for each node that Doubt looks after
	doubting sync.WaitGroup

	ending sync.Mutex // held by Leave and Close: memberlist doesn't take them together

	mu      sync.Mutex        // guards the fields below
	members map[string]string // node ID → IP:port, this node included
	told    map[string]bool   // who was suspected when watch looked last
	passed  bool              // set when Members showed other suspects than those since then
	seeds   []cluster.Member  // of the last Join
	twins   map[string]twin   // by node ID
	left    bool
	closed  bool
}

// Start begins to listen and to gossip. Nobody is known until Join, or until
// another node joins this one.
func Start(config Config) (*Gossip, error) {
	if config.NodeID == "" || len(config.NodeID) > guard.MaxName || strings.Contains(config.NodeID, "/") ||
		config.ClusterID == "" || len(config.ClusterID) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("start gossip: node ID %q, cluster ID %q: %w", config.NodeID, config.ClusterID, cluster.ErrInvalid)
	}
	for _, addr := range []string{config.BindAddr, config.AdvertiseAddr} {
		if _, err := netip.ParseAddr(addr); addr != "" && err != nil {
			return nil, fmt.Errorf("start gossip: %q is not an IP address: %w", addr, cluster.ErrInvalid)
		}
	}
	if config.Port == 0 {
		config.Port = DefaultPort
	}
	if config.RejoinEvery == 0 {
		config.RejoinEvery = 10 * time.Second
	}
	if config.Timing == (cluster.Timing{}) {
		config.Timing, _ = cluster.TimingFor(cluster.LatencyLAN)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		config:  config,
		changed: make(chan struct{}, 1),
		done:    make(chan struct{}),
		watched: make(chan struct{}),
		doubts:  make(chan struct{}, maxDoubts),
		members: make(map[string]string),
	}
	if err := g.ring.Set(config.Keys); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.config.Keys = nil
	logger := log.New(newLogWriter(config.Log, config.Now), "", 0)
	transport, err := g.transport(logger)
	if err != nil {
		return nil, fmt.Errorf("start gossip on %s port %d: %w", config.BindAddr, config.Port, err)
	}
	g.calm = newCalm(config.Timing.ProbeInterval, g.done)
	g.guard = guard.New(transport, &g.ring, config.NodeID, config.ClusterID, logger, g.calm.observe)
	if g.list, err = memberlist.Create(g.memberlistConfig(logger)); err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip on %s port %d: %w", config.BindAddr, config.Port, err), g.guard.Shutdown())
	}
	states, err := statesOf(g.list)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), g.list.Shutdown())
	}
	g.states.Store(&states)
	news, err := newsTicker(g.list)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), g.list.Shutdown())
	}
	g.calm.start(news, config.Timing.GossipInterval)
	go g.watch()
	return g, nil
}

// transport is what the guard stands in front of.
func (g *Gossip) transport(logger *log.Logger) (memberlist.Transport, error) {
	if g.config.Transport != nil {
		return g.config.Transport, nil
	}
	addr := g.config.BindAddr
	if addr == "" {
		addr = "0.0.0.0"
	}
	// memberlist's own error doesn't say which it is.
	if err := usable(addr, g.config.Port); err != nil {
		return nil, err
	}
	return memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{addr}, BindPort: g.config.Port, Logger: logger})
}

// usable tries to listen.
func usable(addr string, port int) error {
	at := net.JoinHostPort(addr, strconv.Itoa(port))
	stream, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	return errors.Join(stream.Close(), packets.Close())
}

func (g *Gossip) memberlistConfig(logger *log.Logger) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.NodeID
	c.BindPort, c.AdvertisePort = g.config.Port, g.config.Port
	c.AdvertiseAddr = g.config.AdvertiseAddr
	// Label and encryption are the guard's, so memberlist has neither, and has to leave
	// room for them. What is compressed the guard can't look into.
	c.Transport = g.guard
	c.UDPBufferSize -= g.guard.Overhead()
	c.EnableCompression = false
	c.RequireNodeNames = true
	c.ProbeInterval, c.ProbeTimeout = g.config.Timing.ProbeInterval, g.config.Timing.ProbeTimeout
	c.SuspicionMult = g.config.Timing.SuspicionMult
	// News are passed on only while there are any, and then it's time that matters: with memberlist's three of
	// six members one in two is told a round later.
	c.GossipInterval, c.GossipNodes = g.config.Timing.GossipInterval, gossipNodes
	c.PushPullInterval = exchangeInterval
	c.TCPTimeout = streamTimeout
	c.DeadNodeReclaimTime = reclaimAfter
	c.Events, c.Alive, c.Conflict, c.Ping = events{g}, events{g}, events{g}, g.calm
	c.Logger = logger
	return c
}

// gossipNodes is how many members each round of news goes to.
const gossipNodes = 6

// Members lists the nodes that are here, this one included, and those that left a
// moment ago, in order of their IDs. Addr is IP:port. Nodes that were given up are not in it.
func (g *Gossip) Members() []cluster.Member {
	states := g.states.Load()
	suspects, left := states.in(memberlist.StateSuspect), states.in(memberlist.StateLeft)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = g.passed || !maps.Equal(suspects, g.told)
	members := make([]cluster.Member, 0, len(g.members)+len(left))
	for id := range g.members {
		delete(left, id)
		members = append(members, cluster.Member{NodeID: id, Addr: g.members[id], Suspect: suspects[id]})
	}
	for id := range left {
		members = append(members, cluster.Member{NodeID: id, Left: true})
	}
	slices.SortFunc(members, func(a, b cluster.Member) int { return strings.Compare(a.NodeID, b.NodeID) })
	return members
}

// Changed signals after a change of what Members says; it holds one signal at most.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Join meets the others through some of them: managers, mostly. Addr is an IP
// address, with a port or without one. It tries all at once and returns when the
// first was reached, or else with an error, at the end of ctx or after five seconds
// at the latest. The seeds replace those of earlier calls, and while any of them is
// missing it is tried again from time to time, whatever this call returned. This
// node itself may be among them.
func (g *Gossip) Join(ctx context.Context, seeds []cluster.Member) error {
	seeds = slices.DeleteFunc(slices.Clone(seeds), func(m cluster.Member) bool { return m.NodeID == g.config.NodeID })
	targets := make([]string, len(seeds))
	for i, seed := range seeds {
		target, err := g.target(seed)
		if err != nil {
			return fmt.Errorf("join gossip: %w", err)
		}
		targets[i] = target
	}
	g.mu.Lock()
	if g.left || g.closed {
		g.mu.Unlock()
		return fmt.Errorf("join gossip: this node has left: %w", cluster.ErrUnavailable)
	}
	g.seeds = seeds
	g.mu.Unlock()
	if len(targets) == 0 {
		return nil
	}
	results := make(chan error, len(targets))
	for _, target := range targets {
		go func() {
			_, err := g.list.Join([]string{target})
			results <- err
		}()
	}
	deadline := time.NewTimer(streamTimeout)
	defer deadline.Stop()
	var failed error
	for range targets {
		var end error
		select {
		case err := <-results:
			if err == nil {
				return nil
			}
			failed = errors.Join(failed, err)
		case <-deadline.C:
			end = context.DeadlineExceeded
		case <-ctx.Done():
			end = ctx.Err()
		case <-g.done:
			end = errors.New("closed meanwhile")
		}
		if end != nil {
			failed = errors.Join(failed, end)
			break
		}
	}
	return fmt.Errorf("join gossip: no node of %d answered: %w: %w", len(targets), failed, cluster.ErrUnavailable)
}

// target writes a seed as memberlist wants it: with a name, since nothing is sent
// to nodes without one, and with a port.
func (g *Gossip) target(seed cluster.Member) (string, error) {
	if seed.NodeID == "" || strings.Contains(seed.NodeID, "/") {
		return "", fmt.Errorf("seed %q has no node ID: %w", seed.Addr, cluster.ErrInvalid)
	}
	if ip, err := netip.ParseAddr(seed.Addr); err == nil {
		return seed.NodeID + "/" + net.JoinHostPort(ip.String(), strconv.Itoa(g.config.Port)), nil
	}
	if addr, err := netip.ParseAddrPort(seed.Addr); err == nil {
		return seed.NodeID + "/" + addr.String(), nil
	}
	return "", fmt.Errorf("seed %s: %q is not an IP address: %w", seed.NodeID, seed.Addr, cluster.ErrInvalid)
}

// Leave tells the others that this node goes, and waits until that is sent or the
// timeout (0 means two seconds) is over. Close is still to be called.
func (g *Gossip) Leave(timeout time.Duration) error {
	if timeout <= 0 {
		timeout = leaveTimeout
	}
	g.ending.Lock()
	defer g.ending.Unlock()
	g.calm.stir()
	g.mu.Lock()
	closed := g.closed
	g.left = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	if err := g.list.Leave(timeout); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Close stops all of it. Without Leave before, the others find out by themselves.
// Attempts to reach nodes that don't answer end by themselves within five seconds.
// It may be called more than once.
func (g *Gossip) Close() error {
	g.ending.Lock()
	defer g.ending.Unlock()
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	close(g.done)
	<-g.watched
	g.doubting.Wait()
	if err := g.list.Shutdown(); err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}

func (g *Gossip) signal() {
	cluster.Notify(g.changed)
}
