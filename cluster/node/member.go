package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/agent"
	"skep/agent/network/dns"
	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/gossip"
	"skep/cluster/manager"
	"skep/store/seal"
)

const (
	recordKind = "node"
	tasksKind  = "agent"
	// leaveLimit bounds the parts of a stop in order.
	leaveLimit = 2 * time.Second
)

// member is a node's part in one cluster.
type member struct {
	node        *Node
	keys        ca.Keys
	credentials *ca.Credentials
	ring        *seal.Ring
	file        sealedFile
	tasks       sealedFile
	agent       *agent.Agent
	gossip      Gossip
	// gossips is set when gossip is there.
	gossips atomic.Bool
	// manager is nil while the node runs none.
	manager atomic.Pointer[manager.Manager]
	// mtu is what dataMTU found last.
	mtu atomic.Pointer[foundMTU]
	// ready is closed when the agent has first been welcomed and, on a manager, the
	// cluster has a leader: the membership works.
	ready       chan struct{}
	arrivedOnce sync.Once
	// opened is closed when the member first runs a manager.
	managerStarted     chan struct{}
	managerStartedOnce sync.Once
	// refused tells renew that a manager refused the agent's session.
	refused chan struct{}
	// wake tells renew that the role may have changed, moved tells gossiping that the
	// managers may have, and certified tells manage that the certificate has. seen tells the
	// manager, and missing the agent, that what gossip sees has changed. Each holds one signal.
	wake, moved, certified, seen, missing chan struct{}

	cancel context.CancelFunc
	done   chan struct{}

	// asking lets one renewal happen at a time. It is held while a manager is asked,
	// which may take long, so it isn't what guards keys.
	asking   chan struct{}
	renewing sync.Mutex // guards keys and the key file; never held while waiting for anybody

	// changing lets one write of the record happen at a time; it may take long.
	changing chan struct{}

	keeping sync.Mutex // held while a copy of the database is kept

	mu     sync.Mutex // guards the fields below; never held while waiting for the disk
	record record
	// damage is why the node waits to be a manager, or to be one again: see report and
	// repair. lack is why it can't take its place in the cluster yet: see takeAddresses.
	// unrenewed is why the certificate wasn't renewed the last time it was tried.
	damage, lack, unrenewed error
	// told are the managers as an answer of the leader named them since the last session did.
	told []cluster.Peer
	// removed is set while the leader says that this node isn't part of the cluster.
	removed error
	// warning is what warn said.
	warning string
	// copyOf is what managers say when this machine is a copy of the node's; "" when it isn't.
	copyOf string
	// called is when connect last called each manager; session is the connection that it
	// made last, and host whose that is.
	lastDial map[string]time.Time
	session  net.Conn
	host     string
}

func dataRing(keys [][32]byte) *seal.Ring {
	older := make([]seal.Key, 0, len(keys))
	for _, key := range keys[1:] {
		older = append(older, seal.Key(key))
	}
	return seal.NewRing(seal.Key(keys[0]), older...)
}

// load reads a membership from its files; key is for a key file that is locked.
func (n *Node) load(key cluster.UnlockKey) (*member, error) {
	keys, err := ca.KeyFile{Path: n.files.keys()}.Unlock(key)
	if err != nil {
		return nil, err
	}
	credentials, err := keys.Credentials(n.cfg.Now)
	if err != nil {
		return nil, err
	}
	id := credentials.Identity()
	m := &member{
		node: n, keys: keys, credentials: credentials, ring: dataRing(keys.DataKeys),
		lastDial: map[string]time.Time{}, ready: make(chan struct{}), managerStarted: make(chan struct{}), asking: make(chan struct{}, 1), changing: make(chan struct{}, 1), wake: make(chan struct{}, 1), refused: make(chan struct{}, 1), moved: make(chan struct{}, 1), certified: make(chan struct{}, 1), seen: make(chan struct{}, 1), missing: make(chan struct{}, 1), done: make(chan struct{}),
	}
	m.file = n.sealedFile(n.files.known(), m.ring, id.ClusterID, recordKind)
	m.tasks = n.sealedFile(n.files.tasks(), m.ring, id.ClusterID, tasksKind)
	if m.record, err = readRecord(m.file); err != nil {
		return nil, err
	}
	// What this version doesn't know of the database would be lost. A worker has none, and
	// is told by the managers.
	if id.Role == swarm.NodeRoleManager {
		err := n.cfg.Build.Fits(m.record.Peers.Cluster)
		if k := m.record.Kept; err != nil && k.Level > max(n.cfg.Build.Level, 1) {
			err = fmt.Errorf("%w; or go back to what the cluster was at %s, before its level rose: \"skep upgrade back\"", err, k.At.UTC().Format(time.RFC3339))
		}
		if err != nil {
			return nil, err
		}
	}
	var names func(*dns.Names) error
	if n.cfg.Names != nil {
		names = func(known *dns.Names) error { return n.cfg.Names(id.ClusterID, known) }
	}
	n.cfg.Trace.SetNode(id.NodeID)
	m.agent, err = agent.New(agent.Config{
		NodeID: id.NodeID, Hostname: n.cfg.Hostname, Addr: func() string { return m.currentRecord().Addresses.IP }, DataAddr: func() string { return m.currentRecord().Addresses.Data }, Build: n.cfg.Build, Driver: n.cfg.Driver,
		ClusterID: id.ClusterID, Plane: n.cfg.Plane, NoEncryption: n.cfg.NoEncryption, SlowEncryption: n.cfg.SlowEncryption, Names: names, MTU: m.dataMTU,
		Members: func() []cluster.Member { return m.gossip.Members() }, MembersChanged: m.missing, SuspectAfter: objections * n.timing.GossipInterval, Knock: n.knock,
		Record: m.tasks, Detach: n.Detach,
		Halting: n.cfg.Halting,
		Warning: m.warned, Run: n.cfg.Machine + "." + cluster.NewID(n.cfg.Random), OnCopy: m.onCopy,
		Connect: m.connect, CallManager: m.callManager, Missed: m.missed, OnPeers: m.onPeers, OnRefused: m.onRefused, TLSInfo: credentials.TLSInfo,
		Metrics: n.metrics.Agent, Trace: n.cfg.Trace, Now: n.cfg.Now, Random: n.cfg.Random, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// mtuFor is how long an interface's MTU is taken for what it was: it is asked for at each change of networks, and to
// find it is to list all links and addresses of the machine.
const mtuFor = 10 * time.Second

type foundMTU struct {
	of string
	is int
	at time.Time
}

// dataMTU is that of the interface with this node's address; 0 when none has it.
func (m *member) dataMTU() int {
	known := m.currentRecord().Addresses
	of, now := cmp.Or(known.Data, known.IP), m.node.cfg.Now()
	if last := m.mtu.Load(); last != nil && last.of == of && last.is != 0 && now.Sub(last.at) < mtuFor {
		return last.is
	}
	list, err := m.node.cfg.Interfaces()
	if err != nil {
		return 0
	}
	found := foundMTU{of: of, at: now}
	own := net.ParseIP(of)
	for _, one := range list {
		if slices.ContainsFunc(one.Networks, func(n net.IPNet) bool { return n.IP.Equal(own) }) {
			found.is = one.MTU
			break
		}
	}
	m.mtu.Store(&found)
	return found.is
}

// start runs the membership until stop, or until it fails; ended hears of it.
func (m *member) start(ctx context.Context, ended func(error)) {
	// Stopping is in order and so not by ctx alone: see stop.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = cancel
	go func() {
		defer close(m.done)
		err := m.run(running)
		if running.Err() != nil {
			err = nil
		}
		ended(err)
	}()
}

// stop ends the membership in order and waits for it.
func (m *member) stop() {
	m.cancel()
	<-m.done
}

// wait returns when the membership works.
func (m *member) wait(ctx context.Context) error {
	select {
	case <-m.ready:
		return nil
	case <-m.done:
		if err := m.node.Failure(); err != nil {
			return err
		}
		return cluster.Errorf(cluster.ErrUnavailable, "the membership ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inDatabase tells whether a node is in this manager's database, and how many are; 0 on
// a worker.
func (m *member) inDatabase(nodeID string) (known bool, nodes int) {
	manager := m.manager.Load()
	if manager == nil {
		return false, 0
	}
	view := manager.Store().View()
	return view.Node(nodeID) != nil, view.NodeCount()
}

// run is the membership's life.
func (m *member) run(ctx context.Context) (err error) {
	m.node.share(ctx, m.credentials.Identity().ClusterID)
	if err := m.takeAddresses(ctx); err != nil {
		return err
	}
	id, known := m.credentials.Identity(), m.currentRecord()
	err = m.bind(ctx, func() (err error) {
		m.gossip, err = m.node.cfg.Gossip(gossip.Config{
			NodeID: id.NodeID, BindAddr: known.Addresses.Bind, AdvertiseAddr: known.Addresses.IP, Port: gossipPort,
			Timing: m.node.timing, Keys: known.Peers.GossipKeys, ClusterID: id.ClusterID, Now: m.node.cfg.Now, Log: m.node.log,
			Known: m.inDatabase,
		})
		return err
	})
	if err != nil {
		return err
	}
	m.gossips.Store(true)
	defer func() {
		err = errors.Join(err, m.gossip.Close())
	}()
	// The agent stops first, while the manager can still pass its farewell on; the
	// manager hands its leadership over before anything else.
	agentCtx, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAgent()
	restCtx, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	agentDone := make(chan struct{})
	g.Go(func() error {
		defer close(agentDone)
		if err := m.agent.Run(agentCtx); agentCtx.Err() == nil {
			if errors.Is(err, seal.ErrBad) {
				err = fmt.Errorf("%w; remove the file and its copy while managers can be reached, and start the daemon again: it learns of its tasks from them", err)
			}
			return fmt.Errorf("run agent: %w", err)
		}
		return nil
	})
	for _, part := range []func(context.Context) error{m.renew, m.manage, m.gossiping, m.watchMembers, m.watchEngineSwarm} {
		g.Go(func() error {
			if err := part(restCtx); restCtx.Err() == nil {
				return err
			}
			return nil
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			if leading := m.manager.Load(); leading != nil {
				leading.StepDown()
			}
		case <-failed.Done():
		}
		stopAgent()
		<-agentDone
		stopRest()
		if err := m.gossip.Leave(leaveLimit); err != nil {
			m.node.log.Debug("leave gossip", "err", err)
		}
		return nil
	})
	return g.Wait()
}

func (m *member) currentRecord() record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record
}

// change rewrites the record. It is changed in memory also when that fails.
func (m *member) change(edit func(*record)) error {
	m.changing <- struct{}{}
	defer func() { <-m.changing }()
	m.mu.Lock()
	edit(&m.record)
	next := m.record
	m.mu.Unlock()
	return next.write(m.file)
}

// keep is change for what is found again when it is lost, such as where the
// managers are.
func (m *member) keep(edit func(*record)) {
	if err := m.change(edit); err != nil {
		m.node.log.Error("keep what the node knows", "err", err)
	}
}

// onPeers takes in what a manager says of the cluster.
func (m *member) onPeers(peers cluster.Peers) {
	if len(peers.Managers) == 0 {
		return
	}
	m.keep(func(r *record) {
		m.told = nil // m.mu is held.
		known := r.Peers.Trust
		r.Peers = peers
		if peers.Trust.Version < known.Version {
			r.Peers.Trust = known // of a manager that is behind
		}
	})
	if err := m.gossip.SetKeys(peers.GossipKeys); err != nil {
		m.node.log.Error("take new gossip keys", "err", err)
	}
	cluster.Notify(m.wake)
	cluster.Notify(m.moved)
	if peers.Role == swarm.NodeRoleWorker || m.manager.Load() != nil {
		m.markReady()
	}
}

// onRefused has renew ask the leader whether this node is still a member: the manager that
// refused the agent may only be behind.
func (m *member) onRefused() { cluster.Notify(m.refused) }

// markReady notes that the membership works.
func (m *member) markReady() { m.arrivedOnce.Do(func() { close(m.ready) }) }

// stayed is how long ago a session must have begun for its manager to be tried
// first again.
const stayed = 10 * time.Second

// connect opens a session connection to some manager: a manager's own first,
// otherwise in an order of the node's own, so that agents spread. A manager that
// was called a moment ago comes last, since it can't have been of use. Only the
// agent's connecting goroutine calls it.
func (m *member) connect(ctx context.Context) (net.Conn, error) {
	id := m.credentials.Identity()
	known := m.currentRecord()
	managers := m.others(known)
	if id.Role == swarm.NodeRoleManager {
		managers = append(managers, cluster.Peer{NodeID: id.NodeID, Addr: known.Addresses.Control})
	}
	sort.Slice(managers, func(i, j int) bool {
		own := managers[i].NodeID == id.NodeID
		if own != (managers[j].NodeID == id.NodeID) {
			return own
		}
		if named := managers[i].NodeID == ""; named != (managers[j].NodeID == "") {
			return !named
		}
		return rank(id.NodeID, managers[i].NodeID) < rank(id.NodeID, managers[j].NodeID)
	})
	// To call a machine without power takes until the limit. Nobody is left out: gossip may be wrong.
	well := wellOf(m.gossip.Members())
	sort.SliceStable(managers, func(i, j int) bool { return well[managers[i].NodeID] && !well[managers[j].NodeID] })
	config := m.credentials.ClientTLS(cluster.Identity{Role: swarm.NodeRoleManager}, cluster.ProtocolSession)
	last := cluster.Errorf(cluster.ErrUnavailable, "open session: no manager's address is known")
	now := m.node.cfg.Now()
	m.mu.Lock()
	recent := func(peer cluster.Peer) time.Time {
		if called := m.lastDial[cmp.Or(peer.NodeID, peer.Addr)]; now.Sub(called) < stayed {
			return called
		}
		return time.Time{}
	}
	sort.SliceStable(managers, func(i, j int) bool { return recent(managers[i]).Before(recent(managers[j])) })
	m.mu.Unlock()
	for _, peer := range managers {
		if ctx.Err() != nil {
			break // It wasn't called, and so comes first next time.
		}
		m.mu.Lock()
		m.lastDial[cmp.Or(peer.NodeID, peer.Addr)] = now
		m.mu.Unlock()
		conn, err := manager.Dial(ctx, known.Addresses.home(m.node.cfg.Network), peer.Addr, config)
		if err == nil {
			m.mu.Lock()
			m.session, m.host = conn, peer.NodeID
			m.mu.Unlock()
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// callManager opens a connection to a manager, for a request of its to this node's engine.
func (m *member) callManager(ctx context.Context, managerID string) (net.Conn, error) {
	known := m.currentRecord()
	config := m.credentials.ClientTLS(cluster.Identity{NodeID: managerID, Role: swarm.NodeRoleManager}, cluster.ProtocolEngine)
	for _, peer := range known.Peers.Managers {
		if peer.NodeID == managerID {
			return manager.Dial(ctx, known.Addresses.home(m.node.cfg.Network), peer.Addr, config)
		}
	}
	return nil, cluster.Errorf(cluster.ErrDenied, "call manager %s: it is none, as far as this node knows", managerID)
}

// preferLocalManager ends a session with another manager, now that this node has one of its own: the
// agent would have to find another when that one stops.
func (m *member) preferLocalManager() {
	own := m.credentials.Identity().NodeID
	m.mu.Lock()
	session, away := m.session, m.host != own
	delete(m.lastDial, own)
	m.mu.Unlock()
	if session != nil && away {
		session.Close()
	}
}

// missed tells whether gossip misses the manager that has the agent's session.
func (m *member) missed() bool {
	m.mu.Lock()
	host, managers := m.host, m.record.Peers.Managers
	m.mu.Unlock()
	return misses(host, managers, m.gossip.Members())
}

// misses tells whether one manager is gone from gossip, or suspected, while another one
// is well. When none is, the fault may be this node's, and there is nobody to turn to.
func misses(host string, managers []cluster.Peer, members []cluster.Member) bool {
	well := wellOf(members)
	return host != "" && !well[host] && slices.ContainsFunc(managers, func(peer cluster.Peer) bool { return well[peer.NodeID] })
}

// wellOf are the nodes that gossip sees, and doesn't suspect.
func wellOf(members []cluster.Member) map[string]bool {
	well := make(map[string]bool, len(members))
	for _, member := range members {
		well[member.NodeID] = !member.Suspect && !member.Left
	}
	return well
}

// knock connects to gossip's port of a machine, which firewalls must let through on all.
func (n *Node) knock(ctx context.Context, addr netip.Addr) error {
	conn, err := n.cfg.Network.Dial(ctx, netip.AddrPortFrom(addr, gossipPort).String())
	if err == nil {
		conn.Close()
	}
	return err
}

// objections is for how many rounds of gossip a suspect may object before others are led elsewhere:
// it hears of it within one, and is heard in the next.
const objections = 3

// watchMembers passes on that what gossip sees has changed.
func (m *member) watchMembers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.gossip.Changed():
			cluster.Notify(m.seen)
			cluster.Notify(m.missing)
		}
	}
}

// rank orders managers differently for each node.
func rank(nodeID, managerID string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(nodeID + "/" + managerID))
	return h.Sum64()
}

// control asks the managers in this node's name.
func (m *member) control() manager.ControlClient {
	known := m.currentRecord()
	asker := manager.ControlClient{
		Network:  known.Addresses.home(m.node.cfg.Network),
		Build:    m.node.cfg.Build,
		TLS:      m.credentials.ClientTLS(cluster.Identity{Role: swarm.NodeRoleManager}, cluster.ProtocolHTTP),
		RenewTLS: m.credentials.ClientTLS(cluster.Identity{Role: swarm.NodeRoleManager}, cluster.ProtocolRenew),
		Own:      m.manager.Load,
	}
	for _, peer := range m.others(known) {
		asker.Managers = append(asker.Managers, peer.Addr)
	}
	return asker
}

// others are the managers that this node knows of besides itself, and those that its
// command line names: all may have moved since they were last heard of.
func (m *member) others(known record) []cluster.Peer {
	own := m.credentials.Identity().NodeID
	var others []cluster.Peer
	addrs := map[string]bool{known.Addresses.Control: true}
	for _, peer := range known.Peers.Managers {
		if peer.NodeID != own {
			others = append(others, peer)
			addrs[peer.Addr] = true
		}
	}
	for _, named := range m.node.cfg.Join {
		if addr, err := splitRemote(named); err == nil && !addrs[addr] {
			others = append(others, cluster.Peer{Addr: addr})
			addrs[addr] = true
		}
	}
	return others
}

// gossiping meets the other members through the managers, again at each change
// of who they are; gossip itself goes back to those that are missing.
func (m *member) gossiping(ctx context.Context) error {
	for {
		var seeds []cluster.Member
		for _, peer := range m.currentRecord().Peers.Managers {
			if host, _, err := net.SplitHostPort(peer.Addr); err == nil {
				seeds = append(seeds, cluster.Member{NodeID: peer.NodeID, Addr: host})
			}
		}
		wait := time.Minute
		if err := m.gossip.Join(ctx, seeds); err != nil {
			m.node.log.Debug("join gossip", "err", err)
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-m.moved:
		case <-timer.C:
		}
		timer.Stop()
	}
}
