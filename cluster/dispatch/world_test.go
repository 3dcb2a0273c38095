package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"skep/cluster"
	"skep/store"
)

// noon is when nothing else matters.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that commits at once, or not, and gives entries to all stores.
type journal struct {
	mu      sync.Mutex
	index   uint64
	stores  []*replica
	failing error
	entries int
	// delay is how long a commit takes.
	delay time.Duration
}

// replica is one manager's copy; while it lags, entries wait.
type replica struct {
	*store.Store
	lags    bool
	waiting []*raft.Log
}

type outcome struct {
	index    uint64
	err      error
	response any
}

func (o outcome) Error() error  { return o.err }
func (o outcome) Index() uint64 { return o.index }
func (o outcome) Response() any { return o.response }

func (j *journal) Barrier(time.Duration) raft.Future { return outcome{} }

func (j *journal) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	time.Sleep(j.delay)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failing != nil {
		return outcome{err: j.failing}
	}
	j.index++
	j.entries++
	var response any
	for _, r := range j.stores {
		r.waiting = append(r.waiting, &raft.Log{Index: j.index, Data: data})
		if !r.lags {
			response = r.catchUp()
		}
	}
	return outcome{index: j.index, response: response}
}

func (r *replica) catchUp() (response any) {
	for _, entry := range r.waiting {
		response = r.FSM().Apply(entry)
	}
	r.waiting = nil
	return response
}

func (j *journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failing = err
}

func (j *journal) lag(r *replica, lags bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.lags = lags; !lags {
		r.catchUp()
	}
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries
}

// world is managers m1, m2, ... in one bubble; one of them leads, or none.
type world struct {
	t       *testing.T
	journal *journal
	names   []string

	mu       sync.Mutex // guards the fields below
	managers map[string]*manager
	leader   string
	turned   chan struct{}
	members  map[string]cluster.Member
	gossip   bool
}

type manager struct {
	*Dispatcher
	replica *replica
	stop    context.CancelFunc
	ran     chan struct{}
	depose  context.CancelFunc
	led     chan struct{}
	members chan struct{}
	blind   map[string]bool // Nodes that this manager's gossip alone doesn't see.
	cut     bool
	asked   int
	probed  map[string]int // How often gossip was to look after each node.
	log     *bytes.Buffer
	logging sync.Mutex
}

func (m *manager) Write(p []byte) (int, error) {
	m.logging.Lock()
	defer m.logging.Unlock()
	return m.log.Write(p)
}

func (m *manager) logged() string {
	m.logging.Lock()
	defer m.logging.Unlock()
	return m.log.String()
}

// newWorld starts managers and makes the first one leader. Everything is stopped
// at the end of the test.
func newWorld(t *testing.T, managers int) *world {
	w := &world{
		t: t, journal: &journal{}, managers: make(map[string]*manager),
		turned: make(chan struct{}), members: make(map[string]cluster.Member), gossip: true,
	}
	for i := range managers {
		w.start(fmt.Sprintf("m%d", i+1))
	}
	t.Cleanup(func() {
		w.lead("")
		for _, id := range w.names {
			w.kill(id)
		}
	})
	w.lead("m1")
	for _, id := range w.names {
		w.update(func(tx *store.Tx) error {
			node := &cluster.Node{ID: id, ManagerAddr: id + ":2377", Role: swarm.NodeRoleManager}
			node.Spec.Role = swarm.NodeRoleManager
			return tx.Put(node)
		})
		w.see(id, true)
	}
	return w
}

func (w *world) start(id string) *manager {
	r := &replica{Store: store.New(store.Config{Now: time.Now, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { w.t.Error(err) }})}
	m := &manager{replica: r, ran: make(chan struct{}), members: make(chan struct{}, 1), blind: make(map[string]bool), probed: make(map[string]int), log: &bytes.Buffer{}}
	w.journal.mu.Lock()
	w.journal.stores = append(w.journal.stores, r)
	w.journal.mu.Unlock()
	m.Dispatcher = New(Config{
		NodeID: id, Store: r.Store, Now: time.Now, Log: slog.New(slog.NewTextHandler(m, nil)),
		Members:        func() []cluster.Member { return w.gossiped(id) },
		MembersChanged: m.members,
		Probe: func(nodeID string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			m.probed[nodeID]++
		},
		Leader: func() (cluster.Peer, bool, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return cluster.Peer{NodeID: w.leader, Addr: w.leader + ":2377"}, w.leader == id, w.leader != ""
		},
		LeaderChanged: func() <-chan struct{} {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.turned
		},
		Client: &http.Client{Transport: wire{w, id}}, SuspectAfter: suspectLong,
	})
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() {
		defer close(m.ran)
		m.Run(ctx)
	}()
	w.mu.Lock()
	w.managers[id] = m
	w.names = append(w.names, id)
	w.mu.Unlock()
	return m
}

// kill stops a manager without a word to others.
func (w *world) kill(id string) {
	m := w.managers[id]
	w.mu.Lock()
	m.cut = true
	if w.leader == id {
		w.mu.Unlock()
		w.lead("")
	} else {
		w.mu.Unlock()
	}
	m.stop()
	<-m.ran
}

// lead makes id the leader, or nobody.
func (w *world) lead(id string) {
	if old := w.managers[w.leader]; old != nil && old.depose != nil {
		old.depose()
		<-old.led
		old.depose = nil
	}
	if m := w.managers[id]; m != nil {
		ctx, cancel := context.WithCancel(context.Background())
		m.depose, m.led = cancel, make(chan struct{})
		go func() {
			defer close(m.led)
			m.replica.Lead(ctx, w.journal, m.Lead)
		}()
		synctest.Wait()
	}
	w.mu.Lock()
	w.leader = id
	close(w.turned)
	w.turned = make(chan struct{})
	w.mu.Unlock()
	synctest.Wait()
}

// cut takes a manager off the network of managers, or puts it back.
func (w *world) cut(id string, off bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.managers[id].cut = off
}

func (w *world) now() *manager { return w.managers[w.leader] }

func (w *world) update(fn func(*store.Tx) error) {
	w.t.Helper()
	if err := w.now().replica.Update(context.Background(), fn); err != nil {
		w.t.Fatalf("update: %v", err)
	}
}

func (w *world) gossiped(to string) []cluster.Member {
	w.mu.Lock()
	defer w.mu.Unlock()
	var members []cluster.Member
	for _, m := range w.members {
		if !w.managers[to].blind[m.NodeID] {
			members = append(members, m)
		}
	}
	return members
}

// suspectLong is the world's Config.SuspectAfter.
const suspectLong = 750 * time.Millisecond

// see has gossip see a node, or lose it.
func (w *world) see(nodeID string, seen bool) {
	w.gossips(func() {
		if delete(w.members, nodeID); seen {
			w.members[nodeID] = cluster.Member{NodeID: nodeID}
		}
	})
}

// seenBy has the gossip of some managers only see a node, or lose it.
func (w *world) seenBy(managers []string, nodeID string, seen bool) {
	w.gossips(func() {
		for _, id := range managers {
			w.managers[id].blind[nodeID] = !seen
		}
	})
}

// suspect has gossip suspect a node.
func (w *world) suspect(nodeID string) {
	w.gossips(func() { w.members[nodeID] = cluster.Member{NodeID: nodeID, Suspect: true} })
}

// gossip changes what gossip says, and tells the managers.
func (w *world) gossips(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	for _, m := range w.managers {
		cluster.Notify(m.members)
	}
}

func (w *world) addNode(id string) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		node := &cluster.Node{ID: id, Role: swarm.NodeRoleWorker}
		node.Spec.Role = swarm.NodeRoleWorker
		return tx.Put(node)
	})
	w.see(id, true)
}

// addTask puts a task on a node, of revision 1 of service s.
func (w *world) addTask(id, nodeID string) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		if tx.Revision("s", 1) == nil {
			if err := tx.Put(&cluster.Revision{ServiceID: "s", Number: 1, ServiceName: "web"}); err != nil {
				return err
			}
		}
		task := &cluster.Task{ID: id, ServiceID: "s", Revision: 1, NodeID: nodeID, Desired: cluster.StateRunning}
		task.Status.State = cluster.StateAssigned
		return tx.Put(task)
	})
}

func (w *world) task(id string) *cluster.Task { return w.now().replica.View().Task(id) }

func (w *world) node(id string) *cluster.Node { return w.now().replica.View().Node(id) }

// wire carries requests between managers.
type wire struct {
	w    *world
	from string
}

var errCut = errors.New("connection refused")

func (c wire) RoundTrip(r *http.Request) (*http.Response, error) {
	id, _, err := net.SplitHostPort(r.URL.Host)
	if err != nil {
		return nil, err
	}
	c.w.mu.Lock()
	to := c.w.managers[id]
	cut := to == nil || to.cut || c.w.managers[c.from].cut
	if to != nil {
		to.asked++
	}
	c.w.mu.Unlock()
	if cut {
		return nil, errCut
	}
	reader, writer := io.Pipe()
	response := &pipedResponse{header: make(http.Header), body: writer, begun: make(chan struct{})}
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		defer cancel()
		to.Handler().ServeHTTP(response, r.WithContext(ctx))
		response.WriteHeader(http.StatusOK)
		writer.Close()
	}()
	stop := context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })
	select {
	case <-response.begun:
		return &http.Response{StatusCode: response.status, Header: response.header, Body: pipedBody{reader, stop, cancel}}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

type pipedBody struct {
	*io.PipeReader
	stop   func() bool
	cancel context.CancelFunc
}

func (b pipedBody) Close() error {
	b.stop()
	b.cancel()
	return b.PipeReader.Close()
}

type pipedResponse struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	status int
}

func (p *pipedResponse) Header() http.Header { return p.header }
func (p *pipedResponse) Flush()              {}
func (p *pipedResponse) WriteHeader(status int) {
	p.once.Do(func() { p.status = status; close(p.begun) })
}
func (p *pipedResponse) Write(data []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.body.Write(data)
}

// testAgent is an agent that keeps book of what it is told, and complains about what
// no manager may send.
type testAgent struct {
	t      *testing.T
	nodeID string
	conn   net.Conn
	served chan error

	mu        sync.Mutex // guards the fields below
	inbox     []cluster.FromManager
	tasks     map[string]*cluster.Task
	revisions map[string]*cluster.Revision
	// data has the secrets and configs, by ID, and "gone" for those that are.
	data map[string]string
	// networks is what it knows of each network.
	networks map[string]*knownNetwork
	peers    *cluster.Peers
	to       uint64
	refused  string
	fulls    int
	taken    int
	ended    bool
	lenient  bool
	// pause, when set, is how long the agent takes over each message.
	pause func() time.Duration
	stop  chan struct{}
	done  chan struct{}
}

// connect opens a session of a node on a manager and sends heartbeats.
func (w *world) connect(nodeID, managerID string) *testAgent {
	a := w.dial(nodeID, managerID)
	a.send(cluster.FromAgent{Hello: &cluster.Hello{
		Format: cluster.WireFormat, Addr: "10.0.0." + nodeID[len(nodeID)-1:], Description: swarm.NodeDescription{Hostname: nodeID},
	}})
	go a.beat()
	synctest.Wait()
	return a
}

// dialLenient connects an agent that accepts ended tasks before their revisions.
func (w *world) dialLenient(nodeID, managerID string) *testAgent {
	a := w.dial(nodeID, managerID)
	a.lenient = true
	a.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat}})
	synctest.Wait()
	return a
}

func (w *world) dial(nodeID, managerID string) *testAgent {
	near, far := net.Pipe()
	a := &testAgent{
		t: w.t, nodeID: nodeID, conn: near, served: make(chan error, 1), stop: make(chan struct{}), done: make(chan struct{}),
		tasks: make(map[string]*cluster.Task), revisions: make(map[string]*cluster.Revision),
		data: make(map[string]string), networks: make(map[string]*knownNetwork),
	}
	m := w.managers[managerID]
	go func() { a.served <- m.ServeSession(context.Background(), far, cluster.Identity{NodeID: nodeID}) }()
	go a.read()
	w.t.Cleanup(func() { a.close(); <-a.done })
	return a
}

// over tells whether the session has ended.
func (a *testAgent) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

func (a *testAgent) send(m cluster.FromAgent) error { return cluster.WriteFrame(a.conn, m) }

func (a *testAgent) report(taskID string, state cluster.State, message string) {
	a.send(cluster.FromAgent{Reports: []cluster.Report{{TaskID: taskID, Status: cluster.TaskStatus{State: state, Message: message}}}})
	synctest.Wait()
}

func (a *testAgent) beat() {
	ticker := time.NewTicker(800 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if a.send(cluster.FromAgent{}) != nil {
				return
			}
		case <-a.stop:
			return
		}
	}
}

func (a *testAgent) read() {
	defer close(a.done)
	defer func() {
		a.mu.Lock()
		a.ended = true
		a.mu.Unlock()
		a.conn.Close()
	}()
	for {
		var m cluster.FromManager
		if err := cluster.ReadFrame(a.conn, &m); err != nil {
			return
		}
		a.mu.Lock()
		a.take(m)
		pause := a.pause
		a.mu.Unlock()
		if pause != nil {
			time.Sleep(pause())
		}
	}
}

func (a *testAgent) take(m cluster.FromManager) {
	a.inbox = append(a.inbox, m)
	a.refused = m.Refused
	if m.Peers != nil {
		a.peers = m.Peers
	}
	for _, update := range m.Networks {
		a.takeNetwork(update)
	}
	if m.Assignments == nil {
		return
	}
	as := m.Assignments
	switch {
	case as.Full:
		a.fulls++
		clear(a.tasks)
		clear(a.data)
	case a.to == 0 || as.From != a.to:
		a.t.Errorf("node %s: gap: difference from %d after %d", a.nodeID, as.From, a.to)
	}
	if as.To < a.to {
		a.t.Errorf("node %s: back in time: to %d after %d", a.nodeID, as.To, a.to)
	}
	a.to = as.To
	for _, r := range as.Revisions {
		key := cluster.RevisionID(r.ServiceID, r.Number)
		if old := a.revisions[key]; old != nil && !as.Full && old.Version == r.Version && reflect.DeepEqual(old.Spec, r.Spec) && a.uses(key) {
			a.t.Errorf("node %s: revision %s sent again", a.nodeID, key)
		}
		a.revisions[key] = r
	}
	for _, task := range as.Tasks {
		a.taken++
		old := a.tasks[task.ID]
		switch {
		case task.NodeID != a.nodeID:
			a.t.Errorf("node %s: task %s is of node %s", a.nodeID, task.ID, task.NodeID)
		case task.Version > as.To:
			a.t.Errorf("node %s: task %s of version %d in a message up to %d", a.nodeID, task.ID, task.Version, as.To)
		case old != nil && old.Version == task.Version:
			a.t.Errorf("node %s: task %s sent twice", a.nodeID, task.ID)
		case old != nil && old.Version > task.Version:
			a.t.Errorf("node %s: task %s goes back", a.nodeID, task.ID)
		case a.revisions[cluster.RevisionID(task.ServiceID, task.Revision)] == nil && !(a.lenient && !task.Live()):
			a.t.Errorf("node %s: task %s without its revision", a.nodeID, task.ID)
		}
		a.tasks[task.ID] = task
		for _, address := range task.Addresses {
			if !a.hears(address.VNI) {
				a.t.Errorf("node %s: task %s before its network %d", a.nodeID, task.ID, address.VNI)
			}
		}
	}
	for _, id := range as.Removed {
		if a.tasks[id] == nil {
			a.t.Errorf("node %s: unknown task %s removed", a.nodeID, id)
		}
		delete(a.tasks, id)
	}
	a.takeData(as)
}

// knownNetwork is what an agent knows of a network.
type knownNetwork struct {
	to      uint64
	network *cluster.Network
	// parts are services, endpoints and nodes.
	parts map[string]any
}

func (a *testAgent) takeNetwork(data []byte) {
	var u cluster.NetworkUpdate
	if err := cluster.Decode(data, &u); err != nil {
		a.t.Errorf("node %s: %v", a.nodeID, err)
		return
	}
	known := a.networks[u.NetworkID]
	switch {
	case u.Dropped:
		if known == nil {
			a.t.Errorf("node %s: unknown network %s dropped", a.nodeID, u.NetworkID)
		}
		for _, task := range a.tasks {
			for _, address := range task.Addresses {
				if known != nil && known.network.VNI == address.VNI {
					a.t.Errorf("node %s: network %s dropped before task %s", a.nodeID, u.NetworkID, task.ID)
				}
			}
		}
		delete(a.networks, u.NetworkID)
		return
	case u.Full:
		known = &knownNetwork{parts: make(map[string]any)}
		a.networks[u.NetworkID] = known
	case known == nil || known.to != u.From:
		a.t.Errorf("node %s: gap in network %s: difference from %d after %+v", a.nodeID, u.NetworkID, u.From, known)
		return
	}
	if known.to = u.To; u.Network != nil {
		known.network = u.Network
	}
	for _, part := range u.Services {
		known.parts[part.ID] = part
	}
	for _, part := range u.Endpoints {
		known.parts[part.ID] = part
	}
	for _, part := range u.Nodes {
		known.parts[fmt.Sprint(part.Index)] = part
	}
	for _, id := range u.Gone {
		delete(known.parts, id)
	}
	for _, index := range u.GoneNodes {
		delete(known.parts, fmt.Sprint(index))
	}
}

// hears tells whether the agent was told of the network with this number.
func (a *testAgent) hears(vni uint32) bool {
	for _, known := range a.networks {
		if known.network != nil && known.network.VNI == vni {
			return true
		}
	}
	return false
}

// knowsOf is what the agent knows of networks.
func (a *testAgent) knowsOf() map[string]map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]map[string]any)
	for id, known := range a.networks {
		all[id] = maps.Clone(known.parts)
		if known.network != nil {
			all[id]["network"] = fmt.Sprintf("%+v", known.network)
		}
	}
	return all
}

func (a *testAgent) takeData(as *cluster.Assignments) {
	add := func(id, data string) {
		if _, held := a.data[id]; held {
			a.t.Errorf("node %s: %s sent again", a.nodeID, id)
		}
		a.data[id] = data
	}
	for _, secret := range as.Secrets {
		add(secret.ID, string(secret.Spec.Data))
	}
	for _, config := range as.Configs {
		add(config.ID, string(config.Spec.Data))
	}
	for _, id := range as.Gone {
		add(id, "gone")
	}
	for _, id := range as.Dropped {
		if _, held := a.data[id]; !held {
			a.t.Errorf("node %s: %s dropped, but never sent", a.nodeID, id)
		}
		delete(a.data, id)
	}
}

// knows tells whether the agent has these secrets and configs and no others.
func (a *testAgent) knows(data map[string]string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Equal(a.data, data)
}

func (a *testAgent) uses(revision string) bool {
	for _, task := range a.tasks {
		if cluster.RevisionID(task.ServiceID, task.Revision) == revision {
			return true
		}
	}
	return false
}

// holds lists the tasks of the agent, with what managers want of them.
func (a *testAgent) holds() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for _, task := range a.tasks {
		list = append(list, orders(task))
	}
	slices.Sort(list)
	return list
}

func orders(t *cluster.Task) string {
	text := fmt.Sprintf("%s r%d %s", t.ID, t.Revision, t.Desired)
	if t.Status.State == cluster.StateOrphaned {
		text += " orphaned"
	}
	return text
}

// hush ends the agent's heartbeats.
func (a *testAgent) hush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
}

// close is the agent's process being killed.
func (a *testAgent) close() {
	a.hush()
	a.conn.Close()
}
