package clustertest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent/network/dns"
	planes "skep/agent/network/simulate"
	"skep/agent/simulate"
	"skep/cluster"
	"skep/cluster/gossip"
	"skep/cluster/node"
	"skep/cluster/trace"
	"skep/store"
)

// Cluster is a cluster of machines in this process.
type Cluster struct {
	t        testing.TB
	wire     *wire
	air      *air
	dir      string
	Machines []*Machine
	// managers is how many of the machines, the first ones, were made managers.
	managers int
	log      *slog.Logger
	options  Options
}

// Options changes what Start makes; the zero value is right for most tests.
type Options struct {
	// SnapshotEntries makes managers take snapshots early.
	SnapshotEntries uint64
	// GossipKeyPeriod is as in manager.Config.
	GossipKeyPeriod time.Duration
	// Latency is as in node.Config.
	Latency string
	// Log is where the machines log to; the default is standard error, errors only.
	Log *slog.Logger
	// AutoLock makes a cluster whose managers are locked.
	AutoLock bool
	// Generic are each machine's generic resources.
	Generic []swarm.GenericResource
	// Clock is how far the clock of the machine with the number is ahead at first; nil
	// means that all are right.
	Clock func(number int) time.Duration
	// Build is which skep all machines run at first; the zero value is this source's.
	Build cluster.Build
	// Public is the address of the NAT that the machine with the number is behind; nil
	// and "" mean none.
	Public func(number int) string
	// Networks gives each machine a second interface, for packets of networks: those can't be for
	// the loopback addresses that machines have otherwise.
	Networks bool
	// OneEngine has all machines be one, so that the nodes share its engine and its kernel.
	OneEngine bool
	// RealGossip has the machines gossip as nodes do, by memberlist, for what depends on when it
	// notices something.
	RealGossip bool
	// Trace is where all machines' spans go; nil for none.
	Trace func() *trace.Tracer
	// Registry is as in node.Config, for all machines.
	Registry func(ctx context.Context, image, auth string) (registry.DistributionInspect, error)
	// Seed decides what the network loses.
	Seed uint64
}

// Machine is one machine: what survives a crash of its daemon, and the daemon.
type Machine struct {
	cluster *Cluster
	// Name is the host name, IP the address: n1 is 127.0.1.1. Public is the address of
	// the NAT that it is behind, if it is.
	Name, IP, Public string
	// Driver holds the machine's containers.
	Driver *simulate.Driver
	// Plane holds what carries the cluster's networks on the machine.
	Plane *planes.Plane
	// data is the interface that packets of networks come in by.
	data string
	// names is what the machine's name server was told last.
	names atomic.Pointer[dns.Names]
	clock clock

	// Build is which skep the daemon is when it starts next.
	Build cluster.Build
	// UnlockKeyFile is as in node.Config.
	UnlockKeyFile string
	// Flags, when set, changes what the next daemon is started with.
	Flags func(*node.Config)

	// daemon is the present run, or the last one.
	daemon *daemon

	mu sync.Mutex // guards the fields below, for clients and daemons that call meanwhile
	// at is IP, and dataAddr the address of data.
	at, dataAddr string
	// node is the daemon, also when it is off; dead is set while it is.
	node *node.Node
	dead bool
	// failure is why the daemon last ended by itself.
	failure error
	// fault is what writes to the disk fail with, and hung is closed when they go on; nil
	// means that nothing is wrong. harmed tells whether it ever was.
	fault  error
	hung   chan struct{}
	harmed bool
	// slow is how much longer each write takes.
	slow time.Duration
}

// Start starts a cluster of so many managers and workers and waits until all are
// ready. It ends with the test.
func Start(t testing.TB, managers, workers int, options Options) *Cluster {
	t.Helper()
	level := slog.LevelError
	if os.Getenv("SKEP_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	w := newWire(options.Seed)
	c := &Cluster{t: t, wire: w, air: newAir(w), dir: memoryDir(t), options: options, managers: managers,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
	if options.Log != nil {
		c.log = options.Log
	}
	t.Cleanup(c.stop)
	for i := range managers + workers {
		c.add(i + 1)
	}
	first := c.Machines[0]
	listen, advertise := first.addresses()
	first.Do(http.MethodPost, "/swarm/init", swarm.InitRequest{ListenAddr: listen, AdvertiseAddr: advertise, DataPathAddr: first.data, AutoLockManagers: options.AutoLock}, nil)
	for i, m := range c.Machines[1:] {
		m.Join(first, i+1 < managers)
	}
	c.Eventually(time.Minute, "all nodes are ready and all managers vote", func() error {
		var nodes []swarm.Node
		if err := first.Try(http.MethodGet, "/nodes", nil, &nodes); err != nil {
			return err
		}
		ready := 0
		for _, n := range nodes {
			if n.Status.State == swarm.NodeStateReady {
				ready++
			}
		}
		voters, err := first.voters()
		if err == nil && (ready != managers+workers || voters != managers) {
			err = fmt.Errorf("%d ready, %d managers vote", ready, voters)
		}
		return err
	})
	return c
}

// voters counts the managers that answer and vote, as this one says. One that has joined
// votes only when it has caught up. It fails while one of those who vote knows of more or
// fewer votes: who leads counts one before it is decided.
func (m *Machine) voters() (int, error) {
	var status cluster.Status
	err := m.Try(http.MethodGet, "/skep/v1/status", nil, &status)
	voters, all := 0, map[string]bool{}
	for _, manager := range status.Managers {
		if manager.Voter {
			all[manager.NodeID] = true
		}
		if manager.Voter && manager.Reachable {
			voters++
		}
	}
	for _, other := range m.cluster.Machines {
		running, ok := other.manager().(interface{ Reachable() map[string]bool })
		if !ok || err != nil || !all[other.node.Info().NodeID] {
			continue
		}
		if known := len(running.Reachable()); known != len(all) {
			err = fmt.Errorf("%s knows %d votes, %s knows %d", m.Name, len(all), other.Name, known)
		}
	}
	return voters, err
}

// memoryDir is a folder for the machines' data that lies in memory where there is
// room, so that a sync takes no time: what syncs are for, other tests try.
func memoryDir(t testing.TB) string {
	const memory, room = "/dev/shm", 1 << 30
	var at syscall.Statfs_t
	if syscall.Statfs(memory, &at) != nil || at.Bavail*uint64(at.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "skep-clustertest-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// add starts one more machine, which is in no cluster.
func (c *Cluster) add(number int) *Machine {
	m := &Machine{cluster: c, Name: fmt.Sprintf("n%d", number), IP: fmt.Sprintf("127.0.1.%d", number), Build: c.options.Build, dead: true}
	m.at = m.IP
	if c.options.Public != nil {
		if m.Public = c.options.Public(number); m.Public != "" {
			c.wire.public[m.Public] = m.IP
		}
	}
	if c.options.Clock != nil {
		m.SetClock(c.options.Clock(number))
	}
	m.Plane = planes.New()
	if c.options.Networks {
		m.data, m.dataAddr = "eth1", fmt.Sprint("192.0.2.", number)
		c.wire.also(m.dataAddr, m.IP)
	}
	engine := simulate.Config{Bridges: m.Plane, Seed: uint64(number), Hostname: m.Name, Generic: c.options.Generic, Now: m.clock.Now}
	if c.options.OneEngine {
		engine.EngineID = "one"
	}
	m.Driver = simulate.New(engine)
	if c.options.OneEngine && len(c.Machines) > 0 {
		m.Plane, m.Driver = c.Machines[0].Plane, c.Machines[0].Driver
	}
	c.Machines = append(c.Machines, m)
	m.Restart()
	return m
}

// stop ends everything, and leaves time for what ends by its deadline: raft
// doesn't wait for all of its goroutines, and a bubble's clock ends with its test.
func (c *Cluster) stop() {
	for _, m := range c.Machines {
		m.daemon.cancel()
	}
	for _, m := range c.Machines {
		<-m.daemon.ended
	}
	c.wire.end()
	time.Sleep(15 * time.Second)
}

// readyLimit is how long a start is waited for.
const readyLimit = 5 * time.Second

// config is what the machine's node is made of.
func (m *Machine) config() node.Config {
	c := m.cluster
	return node.Config{
		Machine: m.Name, DataDir: filepath.Join(c.dir, m.Name), Driver: m.Driver, Plane: m.Plane, Names: func(_ string, names *dns.Names) error { m.names.Store(names); return nil }, Hostname: m.Name, Build: m.Build,
		UnlockKeyFile: m.UnlockKeyFile, Latency: c.options.Latency, Now: m.clock.Now,
		Log: c.log.With("host", m.Name), Registry: c.options.Registry,
		Network: ofMachine{m}, Interfaces: m.interfaces, SnapshotEntries: c.options.SnapshotEntries, GossipKeyPeriod: c.options.GossipKeyPeriod,
		Gossip: func(cfg gossip.Config) (node.Gossip, error) {
			if c.options.RealGossip {
				transport, err := c.air.plug(m.address())
				if err != nil {
					return nil, err
				}
				cfg.Transport = transport
				return gossip.Start(cfg)
			}
			return c.air.join(cfg.NodeID, m.address(), cfg.Keys), nil
		},
	}
}

// Restart starts the machine's daemon, which is off.
func (m *Machine) Restart() {
	c := m.cluster
	c.wire.revive(m.IP)
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{cancel: cancel, dying: make(chan struct{}), ended: make(chan struct{})}
	config := m.config()
	config.Fatal = func(err error) { m.fatal(d, err) }
	config.Write = func(what string, write func() error) error { return m.write(d, what, write) }
	if c.options.Trace != nil {
		config.Trace = c.options.Trace()
	}
	if m.Flags != nil {
		m.Flags(&config)
	}
	n, err := node.New(config)
	if err != nil {
		c.t.Fatalf("make node %s: %v", m.Name, err)
	}
	m.daemon = d
	m.mu.Lock()
	m.node, m.dead = n, false
	m.mu.Unlock()
	go m.run(ctx, n, d)
	select {
	case <-n.Ready():
	case <-d.ended: // Failure says why.
	case <-time.After(readyLimit): // It waits for room on its disk.
	}
}

// Crash kills the machine's daemon: nothing it does from now on reaches anybody. What
// it still writes to its disk is there, unless the disk hangs.
// Its containers run on.
func (m *Machine) Crash() {
	m.cluster.wire.kill(m.IP)
	m.mu.Lock()
	hung := m.hung != nil
	m.mu.Unlock()
	if hung {
		m.daemon.kill()
	}
	m.daemon.cancel()
	<-m.daemon.ended
}

// Stop stops the machine's daemon in order.
func (m *Machine) Stop() {
	m.daemon.cancel()
	<-m.daemon.ended
}

// off tells whether the machine's daemon is off.
func (m *Machine) off() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// Manager is what tests want of a machine's manager.
type Manager interface {
	NodeID() string
	LeaderID() string
	ReadBarrier(context.Context) error
	Store() *store.Store
	Health() cluster.ManagerHealth
	Status(context.Context, bool) (cluster.Status, error)
}

// manager is the machine's manager, nil when it has none or is off.
func (m *Machine) manager() Manager {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil
	}
	running, _ := m.node.Manager().(Manager)
	return running
}

// Join makes the machine part of the cluster of another.
func (m *Machine) Join(by *Machine, manager bool) {
	m.cluster.t.Helper()
	tokens := m.Tokens(by)
	token := tokens.Worker
	if manager {
		token = tokens.Manager
	}
	listen, advertise := m.addresses()
	_, remote := by.addresses()
	m.Do(http.MethodPost, "/swarm/join", swarm.JoinRequest{
		ListenAddr: listen, AdvertiseAddr: advertise, DataPathAddr: m.data, RemoteAddrs: []string{remote}, JoinToken: token,
	}, nil)
}

// Tokens lets one join the cluster of another.
func (m *Machine) Tokens(by *Machine) swarm.JoinTokens {
	m.cluster.t.Helper()
	var of swarm.Swarm
	by.Do(http.MethodGet, "/swarm", nil, &of)
	return of.JoinTokens
}

// addresses are what the machine's node is told to listen at and to advertise.
func (m *Machine) addresses() (listen, advertise string) {
	if m.Public != "" {
		return "0.0.0.0", m.Public
	}
	return m.IP, m.IP
}

// address is IP, for the daemon.
func (m *Machine) address() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// dataAddress is where the machine takes packets of networks.
func (m *Machine) dataAddress() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dataAddr
}

// MoveData gives the machine another address for packets of networks, as Move does.
func (m *Machine) MoveData(ip string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dataAddr = ip
}

func (m *Machine) interfaces() ([]node.Interface, error) {
	list := []node.Interface{{Name: "eth0"}}
	if ip := net.ParseIP(m.address()); ip != nil {
		list[0].Networks = []net.IPNet{{IP: ip, Mask: net.CIDRMask(32, 32)}}
	}
	if ip := net.ParseIP(m.dataAddress()); ip != nil {
		list = append(list, node.Interface{Name: m.data, Networks: []net.IPNet{{IP: ip, Mask: net.CIDRMask(24, 32)}}, MTU: 9000})
	}
	return list, nil
}

// Move gives the machine another address, also while its daemon runs, which isn't told;
// "" takes it away. What was under way to and from the address of before stays there.
func (m *Machine) Move(ip string) {
	m.cluster.wire.move(m.IP, ip)
	m.IP = ip
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = ip
}

// Do calls the machine's API and fails the test when it is refused.
func (m *Machine) Do(method, path string, body, into any) {
	m.cluster.t.Helper()
	if err := m.Try(method, path, body, into); err != nil {
		m.cluster.t.Fatalf("%s: %v", m.Name, err)
	}
}

// Try calls the machine's API.
func (m *Machine) Try(method, path string, body, into any) error {
	answer, err := m.call(method, path, body)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(answer, into)
}

// Get reads what the machine's API has at path, whatever its form, and fails the
// test when that is refused.
func (m *Machine) Get(path string) []byte {
	m.cluster.t.Helper()
	answer, err := m.call(http.MethodGet, path, nil)
	if err != nil {
		m.cluster.t.Fatalf("%s: %v", m.Name, err)
	}
	return answer
}

func (m *Machine) call(method, path string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request := httptest.NewRequestWithContext(ctx, method, "/v1.51"+path, content)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response := httptest.NewRecorder()
	m.mu.Lock()
	api := m.node.API()
	m.mu.Unlock()
	err := serve(api, response, request)
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err) // what was recorded is no answer
	}
	if response.Code >= 300 {
		return nil, &Refusal{Request: method + " " + path, Code: response.Code, Text: string(bytes.TrimSpace(response.Body.Bytes()))}
	}
	return response.Body.Bytes(), nil
}

// serve has the API answer. An answer that breaks off is an error, as it is for a client
// at the other end of a connection.
func serve(api http.Handler, response http.ResponseWriter, request *http.Request) (err error) {
	defer func() {
		switch fault := recover(); fault {
		case nil:
		case http.ErrAbortHandler:
			err = io.ErrUnexpectedEOF
		default:
			panic(fault)
		}
	}()
	api.ServeHTTP(response, request)
	return nil
}

// Refusal is an answer of the API that isn't success: the HTTP status and the body.
type Refusal struct {
	Request string
	Code    int
	Text    string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %d %s", r.Request, r.Code, r.Text) }

// Alive lists the machines whose daemon runs.
func (c *Cluster) Alive() []*Machine {
	var alive []*Machine
	for _, m := range c.Machines {
		if !m.off() {
			alive = append(alive, m)
		}
	}
	return alive
}

// Manager is some machine whose manager runs.
func (c *Cluster) Manager() *Machine {
	c.t.Helper()
	var found *Machine
	c.Eventually(30*time.Second, "a manager runs", func() error {
		for _, m := range c.Alive() {
			if m.node.Manager() != nil {
				found = m
				return nil
			}
		}
		return cluster.ErrNotManager
	})
	return found
}

// Leader is the machine that leads, as most see it; it waits for one.
func (c *Cluster) Leader() *Machine {
	c.t.Helper()
	var leader *Machine
	c.Eventually(30*time.Second, "there is a leader", func() error {
		failed := fmt.Errorf("nobody leads: %w", cluster.ErrNoLeader)
		for _, m := range c.Machines {
			switch running := m.manager(); {
			case running == nil:
				failed = fmt.Errorf("%w\n%s is off, or no manager: %v", failed, m.Name, m.Failure())
			case running.LeaderID() != running.NodeID():
				failed = fmt.Errorf("%w\n%s follows %q: %+v", failed, m.Name, running.LeaderID(), running.Health())
			default:
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				err := running.ReadBarrier(ctx)
				cancel()
				if err == nil {
					leader = m
					return nil
				}
				failed = fmt.Errorf("%w\n%s leads: %w: %+v", failed, m.Name, err, running.Health())
			}
		}
		return failed
	})
	return leader
}

// Partition cuts the machines of one side off from all others, until Heal.
func (c *Cluster) Partition(side ...*Machine) { c.split(side, c.wire.sever) }

// split does something to each pair of a machine of one side and one of the other.
func (c *Cluster) split(side []*Machine, to func(a, b string, on bool)) {
	for _, a := range side {
		for _, b := range c.Machines {
			if !slices.Contains(side, b) {
				to(a.IP, b.IP, true)
			}
		}
	}
}

// Cut cuts two machines off from each other, and from nobody else, until Heal.
func (c *Cluster) Cut(a, b *Machine) { c.wire.sever(a.IP, b.IP, true) }

// Mute has one machine hear nothing from another, until Heal, though the other
// hears it.
func (c *Cluster) Mute(from, to *Machine) { c.wire.silence(from.IP, to.IP, true) }

// Delay has everything to and from the machine take so long, until Heal.
func (c *Cluster) Delay(m *Machine, by time.Duration) { c.wire.delay(m.IP, by) }

// Refuse has the machines of one side and all others refuse each other, until Heal,
// as a firewall that rejects does: connections break and new ones are refused at once.
func (c *Cluster) Refuse(side ...*Machine) { c.split(side, c.wire.refuse) }

// Lose has a part, from 0 to 1, of what the machine sends and is sent get lost, until
// Heal: on a connection it comes later then, and in order.
func (c *Cluster) Lose(m *Machine, part float64) { c.wire.lose(m.IP, part) }

// Snap breaks all connections of the machine. New ones can be made.
func (c *Cluster) Snap(m *Machine) { c.wire.snap(m.IP) }

// Heal mends the network.
func (c *Cluster) Heal() {
	for _, a := range c.Machines {
		c.wire.delay(a.IP, 0)
		c.wire.lose(a.IP, 0)
		for _, b := range c.Machines {
			c.wire.silence(a.IP, b.IP, false)
			c.wire.sever(a.IP, b.IP, false)
			c.wire.refuse(a.IP, b.IP, false)
		}
	}
}

// Eventually waits until check is content, and fails the test when that takes
// longer than limit.
func (c *Cluster) Eventually(limit time.Duration, what string, check func() error) {
	c.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			if os.Getenv("SKEP_TEST_STACKS") != "" {
				_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
			}
			c.t.Fatalf("after %v it isn't so that %s: %v", limit, what, err)
		}
	}
}

// Views lists the database as each running manager has it.
func (c *Cluster) Views() map[string]store.View {
	views := map[string]store.View{}
	for _, m := range c.Alive() {
		if running := m.node.Manager(); running != nil {
			views[m.Name] = running.Store().View()
		}
	}
	return views
}

// Same waits until all running managers have the same state, and fails the test
// when they don't come to.
func (c *Cluster) Same() {
	c.t.Helper()
	c.Eventually(30*time.Second, "all managers have the same state", func() error {
		var first store.View
		name := ""
		for host, view := range c.Views() {
			if name == "" {
				name, first = host, view
				continue
			}
			if view.Index() != first.Index() || view.Digest() != first.Digest() {
				return fmt.Errorf("%s at %d and %s at %d differ", name, first.Index(), host, view.Index())
			}
		}
		if name == "" {
			return fmt.Errorf("no manager runs")
		}
		return nil
	})
}
