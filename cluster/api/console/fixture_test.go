package console

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/timeline"
	"skep/store"
)

// noon is when all tests look.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// manual is a clock that tests move.
type manual struct {
	mu sync.Mutex
	at time.Time
}

func (m *manual) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

func (m *manual) set(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = at
}

// fakeManager is one of a cluster that a test has made.
type fakeManager struct {
	memory *store.Memory

	mu      sync.Mutex
	leader  string
	self    cluster.ManagerHealth
	status  cluster.Status
	changed chan struct{}
	hangs   chan struct{} // while it is open, nobody answers Status; nil for none
}

func (m *fakeManager) NodeID() string      { return m.self.NodeID }
func (m *fakeManager) Store() *store.Store { return m.memory.Store }

func (m *fakeManager) Health() cluster.ManagerHealth {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.self
}

func (m *fakeManager) LeaderID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader
}

func (m *fakeManager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

func (m *fakeManager) Status(context.Context, bool) (cluster.Status, error) {
	m.mu.Lock()
	hangs := m.hangs
	m.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, nil
}

func (m *fakeManager) set(change func(*fakeManager)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// bench is a Console on a cluster in memory.
type bench struct {
	t       testing.TB
	clock   *manual
	manager *fakeManager
	console *Console
	tasks   int

	mu     sync.Mutex
	events []*events.Message
	asked  []string // of the API
	api    http.HandlerFunc
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, clock: &manual{at: noon.Add(-48 * time.Hour)}}
	b.manager = &fakeManager{memory: store.NewMemory(b.clock.now), leader: "m1"}
	b.manager.self = cluster.ManagerHealth{NodeID: "m1", Reachable: true, Leader: true, Ready: true, Voter: true, State: "leader", Term: 7, CommitIndex: 48213, AppliedIndex: 48213, LastIndex: 48213}
	b.manager.status = cluster.Status{ClusterID: "c", LeaderID: "m1"}
	var manager Manager = b.manager
	b.console = New(Config{
		Manager: func() Manager { return manager }, ManagerChanged: func() <-chan struct{} { return nil }, NotManager: func() error { return cluster.ErrNotManager },
		API: http.HandlerFunc(b.serveAPI), Now: b.clock.now,
		Events: func() []*events.Message {
			b.mu.Lock()
			defer b.mu.Unlock()
			return append([]*events.Message(nil), b.events...)
		},
	})
	return b
}

func (b *bench) serveAPI(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	api := b.api
	b.mu.Unlock()
	if api == nil {
		http.Error(w, `{"message":"not here"}`, http.StatusNotFound)
		return
	}
	api(w, r)
}

func (b *bench) put(objects ...any) {
	b.t.Helper()
	err := b.manager.memory.Update(context.Background(), func(tx *store.Tx) error {
		for _, object := range objects {
			if err := tx.Put(object); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) node(id string, role swarm.NodeRole, change ...func(*cluster.Node)) *cluster.Node {
	n := &cluster.Node{ID: id, Role: role, Status: cluster.NodeStatus{State: cluster.NodeReady, Addr: "10.0.0." + strings.TrimLeft(id, "mw"), Since: noon.Add(-26 * time.Hour)}}
	n.Spec = swarm.NodeSpec{Role: role, Availability: swarm.NodeAvailabilityActive}
	n.Description.Hostname = id
	n.Description.Engine.EngineVersion = "28.5.2"
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
	n.Description.Resources = swarm.Resources{NanoCPUs: 8e9, MemoryBytes: 16 << 30}
	n.Build = cluster.Build{Version: "0.1.0"}
	n.Certificate.Ends = noon.Add(80 * 24 * time.Hour)
	if role == swarm.NodeRoleManager {
		n.ManagerAddr = n.Status.Addr + ":2377"
	}
	for _, c := range change {
		c(n)
	}
	b.put(n)
	return n
}

// service puts a service with its revision.
func (b *bench) service(id string, replicas uint64, change ...func(*cluster.Service)) *cluster.Service {
	s := &cluster.Service{ID: id, Revision: 1, LastRevision: 1}
	name, stack := id, ""
	if before, after, ok := strings.Cut(id, "_"); ok && after != "" {
		stack = before
	}
	s.Spec.Name = name
	if stack != "" {
		s.Spec.Labels = map[string]string{stackLabel: stack}
	}
	s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "registry.example.org/" + id + ":1.4@sha256:" + strings.Repeat("4f", 32), Env: []string{"TOKEN=canary-of-an-environment"}}
	for _, c := range change {
		c(s)
	}
	b.put(s, &cluster.Revision{ServiceID: s.ID, Number: s.Revision, ServiceName: s.Spec.Name, Spec: s.Spec.TaskTemplate, Endpoint: s.Spec.EndpointSpec, Job: s.Job()})
	return s
}

func (b *bench) task(s *cluster.Service, slot uint32, node string, state cluster.State, since time.Duration, change ...func(*cluster.Task)) {
	b.tasks++
	t := &cluster.Task{
		ID: fmt.Sprintf("%025d", b.tasks), ServiceID: s.ID, Revision: s.Revision, Slot: slot, NodeID: node, Desired: cluster.StateRunning,
		CreatedAt: cluster.At(noon.Add(-since - time.Second)), Status: cluster.TaskStatus{State: state, Since: cluster.At(noon.Add(-since)), Applied: cluster.At(noon.Add(-since))},
	}
	if state >= cluster.StateRunning {
		t.RunningAt = t.Status.Since
	}
	if state > cluster.StateRunning {
		t.Desired = cluster.StateShutdown
	}
	for _, c := range change {
		c(t)
	}
	b.put(t)
}

func (b *bench) event(ago time.Duration, kind events.Type, action events.Action, id, name string, attributes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]string{"name": name}
	for i := 0; i+1 < len(attributes); i += 2 {
		all[attributes[i]] = attributes[i+1]
	}
	at := noon.Add(-ago)
	b.events = append(b.events, &events.Message{Type: kind, Action: action, Actor: events.Actor{ID: id, Attributes: all}, Time: at.Unix(), TimeNano: at.UnixNano()})
}

// shop is the cluster that pictures are of: three managers and five workers in two zones, with
// something of everything that a page has to show.
func shop(t testing.TB) *bench {
	b := newBench(t)
	record := &cluster.Cluster{ID: "k2m8v5x1q7w3e9r4t6y0u2i8o"}
	record.Spec.Name = "shop.example.org"
	b.put(record)
	zone := func(name string) func(*cluster.Node) {
		return func(n *cluster.Node) { n.Spec.Labels = map[string]string{"zone": name} }
	}
	for i := 1; i <= 3; i++ {
		b.node(fmt.Sprintf("m%d", i), swarm.NodeRoleManager, zone([]string{"east", "west"}[i%2]))
	}
	for i := 1; i <= 5; i++ {
		b.node(fmt.Sprintf("w%d", i), swarm.NodeRoleWorker, zone([]string{"east", "west"}[i%2]), func(n *cluster.Node) {
			switch i {
			case 4:
				n.Spec.Availability = swarm.NodeAvailabilityDrain
			case 5:
				n.Status.State, n.Status.Message, n.Status.Since = cluster.NodeDown, "heartbeat failure", noon.Add(-3*time.Minute)
			}
		})
	}

	front := &cluster.Network{ID: "front", VNI: 4097, Subnets: []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.10.1.0/24"), Gateway: netip.MustParseAddr("10.10.1.1")}}}
	front.Spec.Name = "shop_front"
	front.Spec.Labels = map[string]string{stackLabel: "shop"}
	b.put(front)

	api := b.service("shop_api", 4)
	for i := uint32(1); i <= 4; i++ {
		b.task(api, i, fmt.Sprintf("w%d", (i-1)%3+1), cluster.StateRunning, 5*time.Hour)
	}
	db := b.service("shop_db", 1, func(s *cluster.Service) {
		s.Spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.zone==east"}}
		s.Spec.TaskTemplate.LogDriver = &swarm.Driver{Name: "splunk", Options: map[string]string{"splunk-token": "canary-of-a-log-server"}}
		s.Spec.TaskTemplate.ContainerSpec.Command = []string{"db", "--password=canary-of-a-command"}
	})
	b.task(db, 1, "w2", cluster.StateRunning, 26*time.Hour)
	train := b.service("train", 3)
	b.task(train, 1, "w3", cluster.StateRunning, 20*time.Minute)
	for i := uint32(2); i <= 3; i++ {
		b.task(train, i, "", cluster.StatePending, 20*time.Minute, func(t *cluster.Task) {
			t.Status.Err = "no suitable node (insufficient resources on 6 nodes; 1 node not available for new tasks; 1 node is down)"
		})
	}
	mailer := b.service("mailer", 1)
	b.task(mailer, 1, "w1", cluster.StateFailed, 40*time.Second, func(t *cluster.Task) {
		t.Status.Err, t.Status.ExitCode = "task: non-zero exit (3): <b>can't reach smtp.example.org</b>", 3
	})
	b.task(mailer, 1, "w1", cluster.StateReady, 38*time.Second, func(t *cluster.Task) {
		t.Desired, t.Status.Message = cluster.StateReady, "waiting for the restart delay to end at 12:00:05 UTC"
	})
	agent := b.service("agent", 0, func(s *cluster.Service) { s.Spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} })
	for _, node := range []string{"m1", "m2", "m3", "w1", "w2", "w3"} {
		b.task(agent, 0, node, cluster.StateRunning, 26*time.Hour)
	}
	report := b.service("report", 0, func(s *cluster.Service) {
		total, most := uint64(4), uint64(2)
		s.Spec.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: &total, MaxConcurrent: &most}}
	})
	for i := uint32(1); i <= 3; i++ {
		b.task(report, i, "w3", cluster.StateComplete, time.Hour, func(t *cluster.Task) { t.Desired = cluster.StateComplete })
	}
	b.task(report, 4, "w3", cluster.StateRunning, time.Minute, func(t *cluster.Task) { t.Desired = cluster.StateComplete })

	b.clock.set(noon.Add(-95 * time.Second))
	web := b.service("shop_web", 6, func(s *cluster.Service) {
		s.Revision, s.LastRevision, s.PreviousRevision = 2, 2, 1
		s.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}
		s.Spec.TaskTemplate.ContainerSpec.Image = "registry.example.org/shop_web:1.5@sha256:" + strings.Repeat("5a", 32)
		s.Spec.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretName: "tls-key", SecretID: "tlskey"}}
		s.Spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "front"}}
		s.Spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, Delay: 10 * time.Second, FailureAction: swarm.UpdateFailureActionRollback, MaxFailureRatio: .2}
		s.VirtualIPs = []cluster.Address{{VNI: 4097, Host: 2}}
		previous := s.Spec
		s.Previous = &previous
	})
	old := *web
	old.Revision = 1
	was := web.Spec.TaskTemplate
	spec := *was.ContainerSpec
	spec.Image, spec.Env = "registry.example.org/shop_web:1.4@sha256:"+strings.Repeat("4f", 32), []string{"TOKEN=another-canary"}
	was.ContainerSpec = &spec
	b.put(&cluster.Revision{ServiceID: web.ID, Number: 1, ServiceName: web.Spec.Name, Spec: was})
	b.put(&cluster.Revision{ServiceID: web.ID, Number: 2, ServiceName: web.Spec.Name, Spec: web.Spec.TaskTemplate, By: "uid 1000 on m1", Message: "baskets are kept"})
	b.put(&cluster.Rollout{ServiceID: web.ID, State: swarm.UpdateStateUpdating, Revision: 2, Total: 6, StartedAt: noon.Add(-95 * time.Second), Message: "update in progress"})
	for i, node := range []string{"w1", "w2", "w3", "m1", "m2", "m3"} {
		slot := uint32(i + 1)
		switch {
		case i < 3:
			b.task(web, slot, node, cluster.StateRunning, time.Duration(90-20*i)*time.Second)
			b.task(&old, slot, node, cluster.StateShutdown, time.Duration(92-20*i)*time.Second)
		case i == 3:
			b.task(&old, slot, node, cluster.StateRunning, 26*time.Hour, func(t *cluster.Task) { t.Desired = cluster.StateShutdown })
			b.task(web, slot, "w2", cluster.StatePreparing, 4*time.Second)
		default:
			b.task(&old, slot, node, cluster.StateRunning, 26*time.Hour)
		}
	}
	secret := &cluster.Secret{ID: "tlskey"}
	secret.Spec.Name, secret.Spec.Data = "tls-key", []byte("canary-of-a-secret")
	config := &cluster.Config{ID: "nginxconf"}
	config.Spec.Name, config.Spec.Data = "nginx.conf", []byte("canary-of-a-config")
	b.put(secret, config)

	b.manager.status = cluster.Status{ClusterID: record.ID, LeaderID: "m1", Term: 7}
	for i := 1; i <= 3; i++ {
		m := cluster.ManagerHealth{
			NodeID: fmt.Sprintf("m%d", i), Hostname: fmt.Sprintf("m%d", i), Addr: fmt.Sprintf("10.0.0.%d:2377", i), Reachable: true, Voter: true,
			Term: 7, LastIndex: 48213, CommitIndex: 48213, AppliedIndex: 48213, SnapshotIndex: 40960, State: "follower", LastContact: 31 * time.Millisecond,
			HeartbeatTimeout: 300 * time.Millisecond, DiskFree: 40 << 30, DiskSize: 100 << 30, Build: cluster.Build{Version: "0.1.0"},
		}
		if i == 1 {
			m.Leader, m.Ready, m.State, m.LastContact = true, true, "leader", 0
		}
		b.manager.status.Managers = append(b.manager.status.Managers, m)
	}
	for node := range b.manager.Store().View().Nodes() {
		h := cluster.NodeHealth{NodeID: node.ID, Hostname: node.Description.Hostname, Gossip: "alive", Session: "m1", Build: node.Build}
		if node.ID == "w5" {
			h.Gossip, h.Session = "suspect", ""
		}
		b.manager.status.Nodes = append(b.manager.status.Nodes, h)
	}
	b.manager.status.Problems = []string{
		"node w5 (w5) is down: heartbeat failure",
		"service mailer runs 0 of 1 tasks: the last one was failed on w1: task: non-zero exit (3): <b>can't reach smtp.example.org</b>",
		"service train runs 1 of 3 tasks: no suitable node (insufficient resources on 6 nodes; 1 node not available for new tasks; 1 node is down)",
	}
	b.event(26*time.Hour, events.ServiceEventType, events.ActionCreate, "shop_web", "shop_web")
	b.event(20*time.Minute, events.ServiceEventType, events.ActionUpdate, "train", "train", "replicas.old", "1", "replicas.new", "3")
	b.event(5*time.Minute, events.NodeEventType, events.ActionUpdate, "w4", "w4", "availability.old", "active", "availability.new", "drain")
	b.event(3*time.Minute, events.NodeEventType, events.ActionUpdate, "w5", "w5", "state.old", "ready", "state.new", "down")
	b.event(150*time.Second, events.NodeEventType, events.ActionUpdate, "m1", "m1", "leader.old", "false", "leader.new", "true")
	b.event(95*time.Second, events.ServiceEventType, events.ActionUpdate, "shop_web", "shop_web", "image.old", "registry.example.org/shop_web:1.4@sha256:4f", "image.new", "registry.example.org/shop_web:1.5@sha256:5a")
	b.event(95*time.Second, events.ServiceEventType, events.ActionUpdate, "shop_web", "shop_web", "updatestate.new", "updating")
	b.api = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/skep/v1/timeline" {
			writeJSON(w, election())
			return
		}
		if r.URL.Path == cluster.UsagePath {
			var told []cluster.TaskUsage
			for task := range 5 {
				var cpus, memory []float64
				for i := range cluster.UsageKept {
					cpus, memory = append(cpus, .2+.1*float64((i*7+task)%5)+float64(i/50)), append(memory, float64(90+i/2+task))
				}
				told = append(told, used(0, cpus, memory))
			}
			writeJSON(w, told)
			return
		}
		if r.URL.Path != "/services/shop_web/logs" {
			http.Error(w, `{"message":"not <here>"}`, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
		for i := range 40 {
			text := fmt.Sprintf("%s com.docker.swarm.node.id=w%d,com.docker.swarm.task.id=%025d GET /basket/%d 200 %d ms\n", noon.Add(time.Duration(i-60)*time.Second).Format(time.RFC3339Nano), i%3+1, 2*(i%3)+1, 4711+i, 3+i*7%40)
			head := []byte{1, 0, 0, 0, 0, 0, 0, 0}
			if i%9 == 8 {
				head[0], text = 2, strings.Replace(text, "200", "502 <script>alert(1)</script> upstream", 1)
			}
			binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
			// In pieces: what is read must not depend on how it was cut.
			all := append(head, text...)
			_, _ = w.Write(all[:5])
			_, _ = w.Write(all[5:])
		}
	}
	b.clock.set(noon)
	return b
}

// election is a timeline in which m1 was cut off, and m2 leads after it.
func election() timeline.Timeline {
	at := func(ms int) time.Time { return noon.Add(-80*time.Second + time.Duration(ms)*time.Millisecond) }
	t := timeline.Timeline{At: noon, Since: noon.Add(-2 * time.Minute), By: "m2", Names: map[string]string{"m1": "m1", "m2": "m2", "m3": "m3", "w5": "w5<b>"}}
	for _, id := range []string{"m1", "m2", "m3"} {
		t.Managers = append(t.Managers, timeline.Lane{NodeID: id, Name: id})
	}
	t.Managers[0].Missing = "it <doesn't> answer"
	for i := range 60 {
		t.Records = append(t.Records, timeline.Record{Manager: "m1", Time: at(-40000 + 600*i), Kind: timeline.Writes, Term: 6, Count: 5 + i%7, Took: 4 * time.Millisecond})
	}
	t.Records = append(t.Records, []timeline.Record{
		{Manager: "m2", Time: at(300), Kind: timeline.Silent, Node: "m1", Took: 300 * time.Millisecond},
		{Manager: "m2", Time: at(301), Kind: timeline.Asked, Node: "m3", Word: timeline.Misses},
		{Manager: "m2", Time: at(302), Kind: timeline.Role, Word: timeline.Candidate},
		{Manager: "m3", Time: at(304), Kind: timeline.Voted, Node: "m2", Term: 7, Word: timeline.Granted},
		{Manager: "m2", Time: at(305), Kind: timeline.Vote, Node: "m3", Term: 7, Word: timeline.Granted, Took: 2 * time.Millisecond},
		{Manager: "m2", Time: at(305), Kind: timeline.Role, Word: timeline.Leader, Term: 7},
		{Manager: "m3", Time: at(307), Kind: timeline.Follows, Node: "m2", Term: 7},
		{Manager: "m2", Time: at(310), Kind: timeline.Ready, Term: 7, Took: 5 * time.Millisecond},
	}...)
	for i := range 70 {
		t.Records = append(t.Records, timeline.Record{Manager: "m2", Time: at(1000 + 1000*i), Kind: timeline.Writes, Term: 7, Count: 3 + i%9, Took: 3 * time.Millisecond})
	}
	for i := range t.Records {
		t.Records[i].Seq = uint64(i + 1)
	}
	return t
}

// get asks for a page, as a proxy does for a browser.
func (b *bench) get(path string, headers ...string) *httptest.ResponseRecorder {
	return b.ask(http.MethodGet, path, "", headers...)
}

func (b *bench) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set(GrantHeader, GrantRead)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.console.ServeHTTP(w, r)
	return w
}
