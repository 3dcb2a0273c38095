package agenttest_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/agent/simulate"
	"skep/cluster"
)

const (
	node      = "node1"
	heartbeat = time.Second
)

// memory is a record that outlives agents, not processes.
type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) Read() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		return nil, fs.ErrNotExist
	}
	return m.data, nil
}

func (m *memory) Write(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = append([]byte(nil), data...)
	return nil
}

// now returns what was written last.
func (m *memory) now() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data
}

// bench is one agent with a simulated engine and managers that the test plays.
type bench struct {
	t    *testing.T
	node string
	// wait lets the agent come to rest, where that can be known.
	wait func()
	// period is the managers' heartbeat.
	period time.Duration
	// driver is nil when a real engine is used.
	driver  *simulate.Driver
	runs    agent.Driver
	record  *memory
	conns   chan net.Conn
	dials   atomic.Int64
	refused atomic.Bool
	// missed is what gossip says of the manager.
	missed atomic.Bool
	peers  []cluster.Peers
	// callManager is as in agent.Config.
	callManager func(ctx context.Context, managerID string) (net.Conn, error)
	// plane is nil where the node carries no networks; names is what the name server was told last.
	plane  network.Plane
	names  atomic.Pointer[dns.Names]
	cancel context.CancelFunc
	done   chan error
}

// newBench returns a bench with a simulated engine, for use in a synctest bubble.
func newBench(t *testing.T) *bench {
	driver := simulate.New(simulate.Config{Hostname: "host1"})
	return &bench{t: t, node: node, wait: synctest.Wait, period: heartbeat, driver: driver, runs: driver, record: &memory{}, conns: make(chan net.Conn)}
}

// newRealBench returns a bench for a real engine.
func newRealBench(t *testing.T, nodeID string, driver agent.Driver) *bench {
	return &bench{t: t, node: nodeID, wait: func() {}, period: 20 * time.Second, runs: driver, record: &memory{}, conns: make(chan net.Conn)}
}

// start starts an agent on the bench.
func (b *bench) start() {
	b.t.Helper()
	a, err := agent.New(agent.Config{
		NodeID: b.node, Addr: func() string { return "127.0.1.1" }, Driver: b.runs, Record: b.record,
		ClusterID: "c", Plane: b.plane, Names: func(n *dns.Names) error { b.names.Store(n); return nil },
		Connect: func(ctx context.Context) (net.Conn, error) {
			b.dials.Add(1)
			if b.refused.Load() {
				return nil, errors.New("connection refused")
			}
			ours, theirs := net.Pipe()
			select {
			case b.conns <- theirs:
				return ours, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		CallManager: b.callManager,
		Missed:      b.missed.Load,
		OnPeers:     func(p cluster.Peers) { b.peers = append(b.peers, p) },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.done = cancel, make(chan error, 1)
	go func() { b.done <- a.Run(ctx) }()
}

// stop stops the agent in order.
func (b *bench) stop() {
	b.t.Helper()
	b.cancel()
	select {
	case err := <-b.done:
		if err != nil {
			b.t.Errorf("run: %v", err)
		}
	case <-time.After(time.Minute):
		b.t.Fatal("the agent doesn't stop")
	}
}

// crash throws the agent away without a farewell: nothing that it writes to its
// record from now on counts.
func (b *bench) crash() {
	b.t.Helper()
	data := b.record.now()
	b.cancel()
	<-b.done
	b.record = &memory{data: data}
}

// manager is the other end of one session.
type manager struct {
	t    *testing.T
	wait func()
	conn net.Conn

	mu       sync.Mutex // guards the fields below
	hello    *cluster.Hello
	reports  map[string]cluster.TaskStatus
	history  map[string][]cluster.State
	logs     []cluster.LogChunk
	arrivals []time.Time
	// engineAway is what the last message said.
	engineAway bool
	// warning likewise.
	warning string
	// leases are the stamps of messages that asked for one.
	leases  []int64
	leaving bool
	ended   bool
}

// accept waits for the agent's next session and welcomes it.
func (b *bench) accept() *manager {
	b.t.Helper()
	m := b.meet()
	m.send(&cluster.FromManager{Welcome: &cluster.Welcome{Format: cluster.WireFormat, HeartbeatMillis: b.period.Milliseconds()}})
	return m
}

// meet waits for the agent's next session and takes its Hello.
func (b *bench) meet() *manager {
	b.t.Helper()
	m := &manager{t: b.t, wait: b.wait, reports: make(map[string]cluster.TaskStatus), history: make(map[string][]cluster.State)}
	select {
	case m.conn = <-b.conns:
	case <-time.After(time.Minute):
		b.t.Fatal("the agent doesn't connect")
	}
	met := make(chan struct{})
	go m.listen(met)
	select {
	case <-met:
	case <-time.After(time.Minute):
		b.t.Fatal("the agent didn't say hello")
	}
	return m
}

func (m *manager) listen(met chan struct{}) {
	for {
		var message cluster.FromAgent
		err := cluster.ReadFrame(m.conn, &message)
		m.mu.Lock()
		if err != nil {
			m.ended = true
			m.mu.Unlock()
			return
		}
		m.arrivals, m.engineAway, m.warning = append(m.arrivals, time.Now()), message.EngineAway, message.Warning
		if message.Lease != 0 {
			m.leases = append(m.leases, message.Lease)
		}
		if message.Hello != nil {
			m.hello = message.Hello
			close(met)
		}
		for _, r := range message.Reports {
			m.reports[r.TaskID] = r.Status
			m.history[r.TaskID] = append(m.history[r.TaskID], r.Status.State)
		}
		if message.Logs != nil {
			m.logs = append(m.logs, *message.Logs)
		}
		m.leaving = m.leaving || message.Leaving
		m.mu.Unlock()
	}
}

func (m *manager) send(message *cluster.FromManager) {
	m.t.Helper()
	if err := cluster.WriteFrame(m.conn, message); err != nil {
		m.t.Fatalf("manager sends: %v", err)
	}
	m.wait()
}

// beat sends heartbeats for a while.
func (m *manager) beat(d time.Duration) {
	m.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(heartbeat / 2)
		m.send(&cluster.FromManager{})
	}
}

// full sends the complete set as of index.
func (m *manager) full(index uint64, tasks ...*cluster.Task) {
	m.t.Helper()
	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
		Full: true, To: index, Tasks: tasks, Revisions: []*cluster.Revision{revision(nil)},
	}})
}

// diff sends a difference.
func (m *manager) diff(from, to uint64, removed []string, tasks ...*cluster.Task) {
	m.t.Helper()
	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{From: from, To: to, Removed: removed, Tasks: tasks}})
}

// expect checks the last report of a task.
func (m *manager) expect(taskID string, state cluster.State, message, err string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	got := m.reports[taskID]
	if got.State != state || got.Message != message || got.Err != err {
		m.t.Fatalf("task %s is reported as %v %q %q, want %v %q %q", taskID, got.State, got.Message, got.Err, state, message, err)
	}
}

// reported returns the last report of a task.
func (m *manager) reported(taskID string) cluster.TaskStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reports[taskID]
}

// engine checks what the last message said of the engine.
func (m *manager) engine(away bool) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.engineAway != away {
		m.t.Errorf("the agent says that the engine is away: %v; want %v", m.engineAway, away)
	}
}

func (m *manager) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

func (m *manager) knows(taskID string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.reports[taskID]
	return ok
}

func revision(labels map[string]string) *cluster.Revision {
	return &cluster.Revision{
		ServiceID: "s1", Number: 1, ServiceName: "web", ServiceLabels: labels,
		Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}},
	}
}

func task(id string, version uint64, desired cluster.State) *cluster.Task {
	return &cluster.Task{
		ID: id, Version: version, ServiceID: "s1", Revision: 1, Slot: 1, NodeID: node, Desired: desired,
		Status: cluster.TaskStatus{State: cluster.StateAssigned},
	}
}
