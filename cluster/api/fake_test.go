package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/timeline"
	"skep/store"
)

// instantRaft commits each entry at once on one store.
type instantRaft struct {
	fsm   raft.FSM
	mu    sync.Mutex
	index uint64
}

type doneFuture struct {
	response any
	index    uint64
}

func (f doneFuture) Error() error  { return nil }
func (f doneFuture) Response() any { return f.response }
func (f doneFuture) Index() uint64 { return f.index }

func (r *instantRaft) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	return doneFuture{r.fsm.Apply(&raft.Log{Index: r.index, Term: 1, Data: data}), r.index}
}

func (r *instantRaft) Barrier(time.Duration) raft.Future { return doneFuture{} }

// fakeManager leads, unless told otherwise, over a real store.
type fakeManager struct {
	id    string
	store *store.Store

	mu        sync.Mutex
	leader    cluster.Peer // of another manager; empty means this one leads
	none      bool         // there is no leader
	fresh     error
	caughtUp  bool // CatchUp works
	calls     fakeCalls
	canLose   error
	client    *http.Client
	reachable map[string]bool
	asked     int           // how often Reachable was called
	changed   chan struct{} // closed by set, if anybody asked for it
	engine    func(ctx context.Context, nodeID string) (net.Conn, error)
	logs      func(ctx context.Context, nodeID, taskID string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error
}

func (m *fakeManager) NodeID() string      { return m.id }
func (m *fakeManager) Store() *store.Store { return m.store }

func (m *fakeManager) Leader(ctx context.Context) (cluster.Peer, bool, error) {
	for {
		m.mu.Lock()
		leader, none := m.leader, m.none
		m.mu.Unlock()
		switch {
		case !none && leader.NodeID == "":
			return cluster.Peer{NodeID: m.id}, true, nil
		case !none:
			return leader, false, nil
		}
		select {
		case <-ctx.Done():
			return cluster.Peer{}, false, cluster.ErrNoLeader
		case <-time.After(time.Millisecond):
		}
	}
}

func (m *fakeManager) Health() cluster.ManagerHealth {
	leads := m.LeaderID() == m.id
	return cluster.ManagerHealth{NodeID: m.id, State: "leader", Leader: leads, Ready: leads, Term: 3}
}

func (m *fakeManager) Trouble() string                                  { return "" }
func (m *fakeManager) Quorum(context.Context) (answer, needed, all int) { return 1, 2, 3 }

func (m *fakeManager) set(change func(*fakeManager)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

func (m *fakeManager) LeaderChanged() <-chan struct{} { return m.Changed() }

func (m *fakeManager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

func (m *fakeManager) LeaderID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.none:
		return ""
	case m.leader.NodeID != "":
		return m.leader.NodeID
	}
	return m.id
}

func (m *fakeManager) ReadBarrier(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fresh
}

func (m *fakeManager) CatchUp(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.caughtUp {
		return fail(cluster.ErrUnavailable, "the leader isn't asked here")
	}
	return nil
}

func (m *fakeManager) Calls(cluster.Peer) http.RoundTripper { return m.calls }

func (m *fakeManager) Client() *http.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.client
}

func (m *fakeManager) Reachable() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return maps.Clone(m.reachable)
}

func (m *fakeManager) NewRoot(current *cluster.Cluster, certPEM, _ []byte) (*cluster.RootRotation, error) {
	if current.Rotation != nil {
		return nil, fail(cluster.ErrPrecondition, "a rotation is under way")
	}
	if len(certPEM) == 0 {
		certPEM = []byte("a fresh certificate")
	}
	return &cluster.RootRotation{Cert: certPEM, Key: []byte("canary-signing-key")}, nil
}

func (m *fakeManager) CanLose(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.canLose
}

func (m *fakeManager) Logs(ctx context.Context, nodeID, taskID string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	m.mu.Lock()
	logs := m.logs
	m.mu.Unlock()
	if logs == nil {
		return errors.New("no logs here")
	}
	return logs(ctx, nodeID, taskID, opts, emit)
}

func (m *fakeManager) DialEngine(ctx context.Context, nodeID string) (net.Conn, error) {
	m.mu.Lock()
	dial := m.engine
	m.mu.Unlock()
	if dial == nil {
		return nil, fail(cluster.ErrUnavailable, "node %s has no session", nodeID)
	}
	return dial(ctx, nodeID)
}

func (m *fakeManager) Backup(out io.Writer, recipient age.Recipient) error {
	_, err := fmt.Fprintf(out, "for %v", recipient)
	return err
}

func (m *fakeManager) Timeline(_ context.Context, since time.Time) timeline.Timeline {
	return timeline.Timeline{At: time.Unix(1800000000, 0), Since: since, By: m.id}
}

func (m *fakeManager) Status(context.Context, bool) (cluster.Status, error) {
	return cluster.Status{ClusterID: "c", LeaderID: m.LeaderID()}, nil
}

// fakeNode is a node whose manager can come and go.
type fakeNode struct {
	mu      sync.Mutex
	manager Manager
	changed chan struct{} // closed by setManager, if anybody asked for it
	// starting is why manager is nil, if it is to be there.
	starting error
	info     swarm.Info
	// ofManager has the database that Attach writes to.
	ofManager *fakeManager
	init      swarm.InitRequest
	join      swarm.JoinRequest
	force     bool
	unlock    cluster.UnlockKey
	err       error
}

func (n *fakeNode) Manager() Manager {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.manager
}

func (n *fakeNode) ManagerChanged() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

func (n *fakeNode) setManager(m Manager) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.manager = m
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

func (n *fakeNode) Starting() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.starting
}

func (n *fakeNode) Init(_ context.Context, request swarm.InitRequest) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.init = request
	return "node1", n.err
}

func (n *fakeNode) Join(_ context.Context, request swarm.JoinRequest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.join = request
	return n.err
}

func (n *fakeNode) Restore(_ context.Context, request cluster.RestoreRequest) (string, error) {
	return "", cluster.Errorf(cluster.ErrUnavailable, "can't restore %s", request.Path)
}

func (n *fakeNode) Leave(_ context.Context, force bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.force = force
	return n.err
}

func (n *fakeNode) Unlock(_ context.Context, key cluster.UnlockKey) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if key != n.unlock {
		return cluster.Errorf(cluster.ErrWrongKey, "swarm could not be unlocked: invalid key provided")
	}
	n.info.LocalNodeState = swarm.LocalNodeStateActive
	return n.err
}

// Attach and Detach do what the leader does, at once.
func (n *fakeNode) Attach(ctx context.Context, request cluster.AttachRequest) (answer *cluster.Attached, err error) {
	err = n.ofManager.store.Update(ctx, func(tx *store.Tx) error {
		answer, err = Attach(tx, nodeID(1), request)
		return err
	})
	return answer, err
}

func (n *fakeNode) Detach(ctx context.Context, ids []string) error {
	return n.ofManager.store.Update(ctx, func(tx *store.Tx) error { return Detach(tx, nodeID(1), ids) })
}

func (n *fakeNode) Info() swarm.Info {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.info
}

// lockedRandom is a deterministic source of IDs for several goroutines.
type lockedRandom struct {
	mu   sync.Mutex
	next uint64
}

func (r *lockedRandom) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p {
		r.next = r.next*6364136223846793005 + 1442695040888963407
		p[i] = byte(r.next >> 40)
	}
	return len(p), nil
}

var testDigest = strings.Repeat("a", 50)

// bench is a Server on a node that manages a small cluster: nodes n1 (manager,
// this one), n2 and n3.
type bench struct {
	t       testing.TB
	node    *fakeNode
	manager *fakeManager
	server  *Server
	handler http.Handler
}

func newStore(t testing.TB) *store.Store {
	s := store.New(store.Config{Fatal: func(err error) { t.Errorf("store: %v", err) }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Lead(ctx, &instantRaft{fsm: s.FSM()}, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("lead: %v", err)
		}
	})
	return s
}

func newBench(t testing.TB, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t}
	b.manager = &fakeManager{id: nodeID(1), store: newStore(t), reachable: map[string]bool{nodeID(1): true}}
	b.node = &fakeNode{manager: b.manager, ofManager: b.manager, info: swarm.Info{
		NodeID: nodeID(1), NodeAddr: "127.0.1.1", LocalNodeState: swarm.LocalNodeStateActive, ControlAvailable: true,
	}}
	config := Config{Node: b.node, Version: "0.1.0-test", Hostname: "n1", Random: &lockedRandom{}, Hold: 2 * time.Second}
	for _, c := range change {
		c(&config)
	}
	b.server = New(config)
	b.handler = b.server.Local()
	b.update(func(tx *store.Tx) error {
		record := &cluster.Cluster{ID: "clusterid", RootCert: []byte("no certificate"), RootKey: []byte("canary-signing-key")}
		record.Spec.Name = "default"
		record.WorkerToken = cluster.JoinToken{Digest: testDigest, Secret: strings.Repeat("w", 25)}.String()
		record.ManagerToken = cluster.JoinToken{Digest: testDigest, Secret: strings.Repeat("m", 25)}.String()
		return tx.Put(record)
	})
	for i := 1; i <= 3; i++ {
		b.addNode(i)
	}
	return b
}

func nodeID(i int) string { return fmt.Sprintf("node%021d", i) }
func taskID(i int) string { return fmt.Sprintf("task%021d", i) }

func (b *bench) addNode(i int) {
	b.update(func(tx *store.Tx) error {
		node := &cluster.Node{ID: nodeID(i), Role: swarm.NodeRoleWorker}
		node.Spec.Role, node.Spec.Availability = swarm.NodeRoleWorker, swarm.NodeAvailabilityActive
		if i == 1 {
			node.Role, node.Spec.Role, node.ManagerAddr = swarm.NodeRoleManager, swarm.NodeRoleManager, "127.0.1.1:2377"
		}
		node.Description.Hostname = fmt.Sprintf("n%d", i)
		node.Description.Engine.EngineVersion = "20.10.24"
		node.Status = cluster.NodeStatus{State: cluster.NodeReady, Addr: fmt.Sprintf("127.0.1.%d", i)}
		return tx.Put(node)
	})
}

// addTask puts a running task of a service, which runs its current revision.
func (b *bench) addTask(i int, serviceID string, slot uint32, node int, change ...func(*cluster.Task)) {
	b.update(func(tx *store.Tx) error {
		task := &cluster.Task{
			ID: taskID(i), ServiceID: serviceID, Slot: slot, NodeID: nodeID(node), Desired: cluster.StateRunning,
			Status: cluster.TaskStatus{State: cluster.StateRunning, Since: cluster.At(tx.Now()), Message: "started", ContainerID: "c0ffee", PID: 7},
		}
		if service := tx.Service(serviceID); service != nil {
			task.Revision = service.Revision
		}
		for _, c := range change {
			c(task)
		}
		return tx.Put(task)
	})
}

func (b *bench) update(fn func(*store.Tx) error) {
	b.t.Helper()
	// The proposer may not have begun.
	for range 1000 {
		err := b.manager.store.Update(context.Background(), fn)
		if errors.Is(err, cluster.ErrNotLeader) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		return
	}
	b.t.Fatal("the proposer doesn't begin")
}

func (b *bench) view() store.View { return b.manager.store.View() }

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request to the local handler.
func (b *bench) do(method, path string, body any, headers ...string) answer {
	b.t.Helper()
	return ask(b.t, b.handler, method, path, body, headers...)
}

func ask(t testing.TB, handler http.Handler, method, path string, body any, headers ...string) answer {
	t.Helper()
	var reader io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(body)
	default:
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(data)
	}
	r := httptest.NewRequest(method, path, reader)
	if reader != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

// want checks status and a part of the body, and returns the answer.
func (a answer) want(t testing.TB, status int, part string) answer {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, part) {
		t.Fatalf("got %d %s\nwant %d with %q", a.status, a.body, status, part)
	}
	if a.status >= 400 {
		var body errorBody
		if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Message == "" {
			t.Fatalf("error body %q: %v", a.body, err)
		}
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Fatalf("error with content type %q", got)
		}
	}
	return a
}

// into decodes the answer.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("decode %s: %v", a.body, err)
	}
}

// spec is a service as the CLI sends it.
func spec(name string, change ...func(*swarm.ServiceSpec)) swarm.ServiceSpec {
	no := false
	one := uint64(1)
	s := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name, Labels: map[string]string{}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: "timecheck:1.0", Init: &no, DNSConfig: &swarm.DNSConfig{}},
			Resources:     &swarm.ResourceRequirements{Limits: &swarm.Limit{}, Reservations: &swarm.Resources{}},
			Placement:     &swarm.Placement{},
		},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

// create makes a service and returns its ID.
func (b *bench) create(s swarm.ServiceSpec, headers ...string) string {
	b.t.Helper()
	var made swarm.ServiceCreateResponse
	b.do("POST", "/services/create", s, headers...).want(b.t, 201, "").into(b.t, &made)
	return made.ID
}

func (b *bench) inspect(ref string) swarm.Service {
	b.t.Helper()
	var service swarm.Service
	b.do("GET", "/services/"+ref, nil).want(b.t, 200, "").into(b.t, &service)
	return service
}

func (b *bench) post(ref, query string, s swarm.ServiceSpec, headers ...string) answer {
	b.t.Helper()
	return b.do("POST", fmt.Sprintf("/services/%s/update?version=%d&%s", ref, b.inspect(ref).Version.Index, query), s, headers...)
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 5000 {
		if holds() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// fakeCalls reach nobody, as with a leader of a version that knows none, unless there is a function.
type fakeCalls struct {
	answer func(*http.Request) (*http.Response, error)
}

func (c fakeCalls) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.answer == nil {
		return nil, fmt.Errorf("call: %w", cluster.ErrUnreachable)
	}
	return c.answer(r)
}
