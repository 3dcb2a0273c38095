// Package crowd is many agents in one process: what `lab scale` has for machines.
//
// Each is the real agent with a key, a certificate and TLS sessions of its own: it joined by a token
// as any node does, and calls from an address of its own. Simulated are its containers and its
// networks; nothing is kept on a disk, and it takes no part in gossip, so a manager knows of it by its
// session alone.
//
// Each agent has its own goroutines (see package agent). Methods may be called by several goroutines.
package crowd

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/agent"
	planes "skep/agent/network/simulate"
	"skep/agent/simulate"
	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
)

// Config says what a Crowd is of.
type Config struct {
	// Managers are the control addresses of the managers to join at: agents begin with another one each.
	Managers []string
	// Token is the join token of workers.
	Token string
	// Addr is the address of the agent with that number, which it calls from and advertises. It must be one
	// of this machine's, such as any of 127.0.0.0/8.
	Addr func(number int) netip.Addr
	// Name is the host name of the agent with that number.
	Name func(number int) string
	// Networks has the agents carry the cluster's networks, in simulation.
	Networks bool
	// Machine names this start of the machine, as in cluster.Hello; any text without a dot.
	Machine string
	Build   cluster.Build
	Now     func() time.Time
	Random  io.Reader
	Log     *slog.Logger
}

// Crowd is the agents of one process.
type Crowd struct {
	cfg             Config
	token           cluster.JoinToken
	joined, started atomic.Int64

	mu      sync.Mutex // guards members
	members []*member  // by number; nil for those that haven't joined
}

// New returns a Crowd without agents.
func New(cfg Config) (*Crowd, error) {
	token, err := cluster.ParseJoinToken(cfg.Token)
	if err != nil {
		return nil, err
	}
	if len(cfg.Managers) == 0 {
		return nil, cluster.Errorf(cluster.ErrInvalid, "make agents: no manager is named")
	}
	return &Crowd{cfg: cfg, token: token}, nil
}

// Count is how a Crowd is.
type Count struct {
	// Joined are the agents that were let in, Sessions those of them with a session that a manager has
	// welcomed. Killed ones are in neither.
	Joined, Sessions int
	// Running are their containers that run, and RunningFirst those of the first agents, see Count.
	Running, RunningFirst int
	// Started is how many containers were started so far.
	Started int
}

// Count counts; first says how many agents RunningFirst is about. It looks at each container.
func (c *Crowd) Count(first int) (n Count) {
	n.Joined, n.Started = int(c.joined.Load()), int(c.started.Load())
	for number, m := range c.all() {
		if m == nil || m.dead.Load() {
			continue
		}
		if m.session.Load() {
			n.Sessions++
		}
		running := m.driver.Count(m.id.NodeID)
		n.Running += running
		if number < first {
			n.RunningFirst += running
		}
	}
	return n
}

// IDs are the node IDs of the agents, by number; "" for those that haven't joined.
func (c *Crowd) IDs() []string {
	all := c.all()
	ids := make([]string, len(all))
	for i, m := range all {
		if m != nil {
			ids[i] = m.id.NodeID
		}
	}
	return ids
}

func (c *Crowd) all() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// Join has that many agents join, and run until ctx ends; at most atOnce are on their way in at a time. It
// returns when all have been let in, or with the first error. It may be called once.
func (c *Crowd) Join(ctx context.Context, count, atOnce int) error {
	c.mu.Lock()
	c.members = make([]*member, count)
	c.mu.Unlock()
	group, joining := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for number := range count {
		group.Go(func() error {
			m, err := c.join(joining, number)
			if err != nil {
				return fmt.Errorf("join as %s: %w", c.cfg.Name(number), err)
			}
			m.start(ctx)
			c.mu.Lock()
			c.members[number] = m
			c.mu.Unlock()
			c.joined.Add(1)
			return nil
		})
	}
	return group.Wait()
}

// Kill ends the last agents, that many, as SIGKILL does: their connections are closed and nothing is said. It returns
// their node IDs.
func (c *Crowd) Kill(count int) (ids []string) {
	all := c.all()
	for _, m := range slices.Backward(all) {
		if len(ids) == count {
			break
		}
		if m == nil || m.dead.Swap(true) {
			continue
		}
		c.joined.Add(-1)
		m.kill()
		ids = append(ids, m.id.NodeID)
	}
	return ids
}

// Wait returns when all agents have ended, after the end of Join's ctx.
func (c *Crowd) Wait() {
	for _, m := range c.all() {
		if m != nil {
			<-m.ended
		}
	}
}

// member is one agent and what it needs of a node.
type member struct {
	crowd       *Crowd
	network     network
	credentials *ca.Credentials
	id          cluster.Identity
	driver      *simulate.Driver
	agent       *agent.Agent
	// dead is set when it was killed, session while it has been welcomed since it connected last.
	dead, session atomic.Bool
	end           context.CancelFunc
	ended         chan struct{}

	mu       sync.Mutex // guards the fields below
	managers []cluster.Peer
	conn     net.Conn // the session's
	called   map[string]time.Time
}

// counted is a driver that counts the containers that it starts.
type counted struct {
	*simulate.Driver
	started *atomic.Int64
}

// Start starts a container.
func (c counted) Start(ctx context.Context, taskID string) (agent.Container, error) {
	container, err := c.Driver.Start(ctx, taskID)
	if err == nil {
		c.started.Add(1)
	}
	return container, err
}

// network calls from one address.
type network struct{ from netip.Addr }

// Listen is for managers.
func (network) Listen(string) (net.Listener, error) {
	return nil, cluster.Errorf(cluster.ErrUnsupported, "listen: an agent doesn't")
}

// Dial connects.
func (n network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.from, 0))}
	return d.DialContext(ctx, "tcp", addr)
}

// join asks for admission as a node does.
func (c *Crowd) join(ctx context.Context, number int) (*member, error) {
	addr := c.cfg.Addr(number)
	m := &member{crowd: c, network: network{addr}, called: map[string]time.Time{}}
	keyPEM, csr, err := ca.NewRequest(c.cfg.Random)
	if err != nil {
		return nil, err
	}
	config, trusted := ca.JoinTLS(c.token.Digest, c.cfg.Now, cluster.ProtocolHTTP)
	at := number % len(c.cfg.Managers)
	asker := manager.ControlClient{
		Network: m.network, TLS: config, Build: c.cfg.Build,
		Managers: append(slices.Clone(c.cfg.Managers[at:]), c.cfg.Managers[:at]...),
	}
	admission, err := asker.Join(ctx, manager.JoinRequest{Token: c.token.String(), CSR: csr, Hostname: c.cfg.Name(number), Addr: addr.String()})
	if err != nil {
		return nil, err
	}
	roots := admission.Peers.Trust.Roots
	if len(roots) == 0 {
		roots = trusted.Root().CertPEM()
	}
	if m.credentials, err = (ca.Keys{CertPEM: admission.Certificate, KeyPEM: keyPEM, RootPEM: roots}).Credentials(c.cfg.Now); err != nil {
		return nil, err
	}
	m.id, m.managers = m.credentials.Identity(), admission.Peers.Managers
	plane := planes.New()
	// Its engine has no name: nodes on loopback whose engines have one are looked through for those that share it, as
	// nodes elsewhere aren't.
	m.driver = simulate.New(simulate.Config{Hostname: c.cfg.Name(number), NanoCPUs: 64e9, MemoryBytes: 256 << 30, Now: c.cfg.Now, Bridges: plane})
	of := agent.Config{
		NodeID: m.id.NodeID, Hostname: c.cfg.Name(number), Addr: addr.String, Build: c.cfg.Build, Driver: counted{m.driver, &c.started}, ClusterID: m.id.ClusterID,
		Run: c.cfg.Machine + "." + cluster.NewID(c.cfg.Random), Connect: m.connect, OnPeers: m.onPeers, TLSInfo: m.credentials.TLSInfo,
		Now: c.cfg.Now, Random: c.cfg.Random, Log: c.cfg.Log,
	}
	if c.cfg.Networks {
		of.Plane = plane
	}
	m.agent, err = agent.New(of)
	return m, err
}

// start runs the agent until ctx ends, or it is killed.
func (m *member) start(ctx context.Context) {
	running, cancel := context.WithCancel(ctx)
	m.end, m.ended = cancel, make(chan struct{})
	go func() {
		defer close(m.ended)
		defer cancel()
		if err := m.agent.Run(running); err != nil {
			m.crowd.cfg.Log.Error("run agent", "node", m.id.NodeID, "err", err)
		}
	}()
}

func (m *member) kill() {
	m.mu.Lock()
	if m.conn != nil {
		cut(m.conn)
	}
	m.mu.Unlock()
	m.end()
}

// cut closes a connection as the kernel does for a process that is gone: without a last word of TLS.
func cut(conn net.Conn) {
	if within, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = within.NetConn()
	}
	_ = conn.Close()
}

// onPeers is told with each welcome.
func (m *member) onPeers(peers cluster.Peers) {
	m.session.Store(true)
	if len(peers.Managers) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.managers = peers.Managers
}

// stayed is as in cluster/node: a manager that was called so lately comes last.
const stayed = 10 * time.Second

// connect opens a session with some manager, in the order in which a worker's node does.
func (m *member) connect(ctx context.Context) (net.Conn, error) {
	m.session.Store(false)
	now := m.crowd.cfg.Now()
	m.mu.Lock()
	managers := slices.Clone(m.managers)
	slices.SortFunc(managers, func(a, b cluster.Peer) int {
		if x, y := rank(m.id.NodeID, a.NodeID), rank(m.id.NodeID, b.NodeID); x < y {
			return -1
		}
		return 1
	})
	recent := func(p cluster.Peer) time.Time {
		if called := m.called[p.NodeID]; now.Sub(called) < stayed {
			return called
		}
		return time.Time{}
	}
	slices.SortStableFunc(managers, func(a, b cluster.Peer) int { return recent(a).Compare(recent(b)) })
	m.mu.Unlock()
	config := m.credentials.ClientTLS(cluster.Identity{Role: "manager"}, cluster.ProtocolSession)
	last := cluster.Errorf(cluster.ErrUnavailable, "open session: no manager's address is known")
	for _, peer := range managers {
		if ctx.Err() != nil || m.dead.Load() {
			break
		}
		m.mu.Lock()
		m.called[peer.NodeID] = now
		m.mu.Unlock()
		conn, err := manager.Dial(ctx, m.network, peer.Addr, config)
		if err != nil {
			last = err
			continue
		}
		m.mu.Lock()
		m.conn = conn
		m.mu.Unlock()
		if m.dead.Load() {
			cut(conn) // It was killed meanwhile.
		}
		return conn, nil
	}
	return nil, last
}

// rank is as in cluster/node: agents spread over the managers by it.
func rank(nodeID, managerID string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(nodeID + "/" + managerID))
	return h.Sum64()
}
