package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/store"
)

// measured is a bench whose metrics are shown.
func measured(t testing.TB) *bench {
	return newBench(t, func(c *Config) { c.Metrics = telemetry.New() })
}

// scrape reads all series of skep's own, without those of Go and of the process.
func (b *bench) scrape() map[string]string {
	b.t.Helper()
	series := map[string]string{}
	a := b.do("GET", "/metrics", nil).want(b.t, 200, "")
	for line := range strings.SplitSeq(a.body, "\n") {
		if name, value, ok := strings.Cut(line, " "); ok && strings.HasPrefix(name, "skep_") {
			if at := strings.LastIndexByte(line, ' '); at > 0 {
				name, value = line[:at], line[at+1:]
			}
			series[name] = value
		}
	}
	return series
}

// addService makes a service with tasks in these states.
func (b *bench) serviceWithTasks(name string, first int, states ...cluster.TaskStatus) {
	b.t.Helper()
	b.update(func(tx *store.Tx) error {
		replicas := uint64(len(states))
		s := &cluster.Service{ID: "service" + name, Revision: 1}
		s.Spec.Name = name
		s.Spec.Labels = map[string]string{"com.docker.stack.namespace": "shop"}
		s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
		s.Spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: 5e8}}
		s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "app"}
		r := &cluster.Revision{ServiceID: s.ID, Number: 1, ServiceName: name, Spec: s.Spec.TaskTemplate}
		if err := errors.Join(tx.Put(s), tx.Put(r)); err != nil {
			return err
		}
		for i, status := range states {
			t := &cluster.Task{ID: taskID(first + i), ServiceID: s.ID, Revision: 1, Slot: uint32(i + 1), Desired: cluster.StateRunning, Status: status}
			if status.State >= cluster.StateAssigned {
				t.NodeID = nodeID(2)
			}
			if err := tx.Put(t); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestMetrics_OfTheLeader(t *testing.T) {
	b := measured(t)
	b.serviceWithTasks("web", 1, cluster.TaskStatus{State: cluster.StateRunning}, cluster.TaskStatus{State: cluster.StateStarting},
		cluster.TaskStatus{State: cluster.StatePending, Err: "no suitable node (insufficient memory on 2 nodes; host-mode port already in use on 1 node)"},
		cluster.TaskStatus{State: cluster.StatePending, Err: "no suitable node"},
		cluster.TaskStatus{State: cluster.StatePending, Err: "waits for db to be healthy"})
	b.do("GET", "/nodes", nil).want(t, 200, "")
	b.do("GET", "/nodes/nowhere", nil).want(t, 404, "")
	series := b.scrape()
	for name, want := range map[string]string{
		`skep_raft_is_leader`: "1", `skep_raft_has_leader`: "1", `skep_raft_state{state="leader"}`: "1", `skep_raft_state{state="follower"}`: "0",
		`skep_raft_term`: "3", `skep_raft_voters`: "1", `skep_raft_failure_tolerance`: "0",
		`skep_store_objects{kind="task"}`: "5", `skep_store_objects{kind="node"}`: "3",
		`skep_service_info{mode="replicated",service="web",stack="shop"}`: "1",
		`skep_service_tasks_desired{service="web"}`:                       "5",
		`skep_service_tasks_running{service="web"}`:                       "1",
		`skep_service_tasks{service="web",state="starting"}`:              "1",
		`skep_service_tasks{service="web",state="ready"}`:                 "0",
		`skep_service_tasks_waiting{reason="memory",service="web"}`:       "1",
		`skep_service_tasks_waiting{reason="no_node",service="web"}`:      "1",
		`skep_service_tasks_waiting{reason="dependency",service="web"}`:   "1",
		`skep_nodes{state="ready"}`:                                       "3", `skep_nodes{state="down"}`: "0",
		`skep_node_resources{hostname="n2",node="` + nodeID(2) + `",resource="cpu",what="reserved"}`: "1",
		`skep_node_info{hostname="n1",node="` + nodeID(1) + `",role="manager"}`:                      "1",
		`skep_api_requests_total{code_class="2xx",method="GET",route="/nodes"}`:                      "1",
		`skep_api_requests_total{code_class="4xx",method="GET",route="/nodes/{id}"}`:                 "1",
		`skep_api_request_seconds_count{route="/nodes"}`:                                             "1",
		`skep_backup_last_success_timestamp_seconds`:                                                 "0",
	} {
		if series[name] != want {
			t.Errorf("%s is %q, want %s", name, series[name], want)
		}
	}
}

// Only who leads speaks of services and nodes, and from the next scrape on.
func TestMetrics_OfAFollower(t *testing.T) {
	b := measured(t)
	b.serviceWithTasks("web", 1, cluster.TaskStatus{State: cluster.StateRunning})
	if series := b.scrape(); series["skep_raft_is_leader"] != "1" {
		t.Fatalf("%v", series)
	}
	b.manager.set(func(m *fakeManager) { m.leader = cluster.Peer{NodeID: nodeID(2)} })
	series := b.scrape()
	if series["skep_raft_is_leader"] != "0" || series["skep_raft_has_leader"] != "1" || series[`skep_store_objects{kind="task"}`] != "1" {
		t.Errorf("%v", series)
	}
	for name := range series {
		if strings.HasPrefix(name, "skep_service_") || strings.HasPrefix(name, "skep_nodes") || name == "skep_raft_failure_tolerance" {
			t.Errorf("a follower says %s", name)
		}
	}
	// A worker has only what is its own, and nobody waits.
	b.node.setManager(nil)
	if series = b.scrape(); series["skep_raft_term"] != "" || len(series) == 0 {
		t.Errorf("%v", series)
	}
}

// What a label keeps back, a guard that spares nodes, a job that is done.
func TestMetrics_OfNodesAndJobs(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	b := newBench(t, func(c *Config) {
		c.Metrics = telemetry.New()
		c.Now = func() time.Time { clock = clock.Add(stateLasts); return clock } // each scrape reads anew
	})
	b.update(func(tx *store.Tx) error {
		n := *tx.Node(nodeID(2))
		n.Description.Resources = swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 1 << 30}
		n.Spec.Labels = map[string]string{"skep.reserve.cpus": "0.5", "skep.reserve.memory": "256m"}
		return tx.Put(&n)
	})
	of := func(resource, what string) string {
		return fmt.Sprintf(`skep_node_resources{hostname="n2",node="%s",resource="%s",what="%s"}`, nodeID(2), resource, what)
	}
	series := b.scrape()
	for name, want := range map[string]string{
		of("cpu", "total"): "4", of("cpu", "kept"): "0.5", of("memory", "total"): "1.073741824e+09", of("memory", "kept"): "2.68435456e+08",
		"skep_liveness_brake": "0",
	} {
		if series[name] != want {
			t.Errorf("%s is %q, want %s", name, series[name], want)
		}
	}
	b.update(func(tx *store.Tx) error {
		n := *tx.Node(nodeID(3))
		n.Status.State, n.Status.Message = cluster.NodeDisconnected, cluster.MessageMassFailure
		return tx.Put(&n)
	})
	if got := b.scrape()["skep_liveness_brake"]; got != "1" {
		t.Errorf("while nodes are spared: %s", got)
	}

	// Two of two have completed; the next run isn't done, and the last success stays known.
	two := uint64(2)
	id := b.create(spec("backup", func(s *swarm.ServiceSpec) {
		s.Mode, s.EndpointSpec = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: &two, MaxConcurrent: &two}}, nil
	}))
	const name = `skep_job_last_success_timestamp_seconds{service="backup"}`
	complete := func(at int64) func(*cluster.Task) {
		return func(t *cluster.Task) {
			t.Status = cluster.TaskStatus{State: cluster.StateComplete, Since: cluster.At(time.Unix(at, 0))}
		}
	}
	b.addTask(1, id, 1, 2, complete(1_700_000_000))
	if got := b.scrape()[name]; got != "" {
		t.Errorf("half of it is done: %s", got)
	}
	b.addTask(2, id, 2, 2, complete(1_700_000_060))
	if got := b.scrape()[name]; got != "1.70000006e+09" {
		t.Errorf("done: %s", got)
	}
	b.do("POST", "/skep/v1/services/backup/restart", nil).want(t, 200, "")
	b.addTask(3, id, 1, 2)
	b.update(func(tx *store.Tx) error { tx.Delete(tx.Task(taskID(1))); tx.Delete(tx.Task(taskID(2))); return nil })
	if got := b.scrape()[name]; got != "1.70000006e+09" {
		t.Errorf("in the next run: %s", got)
	}
	global := b.create(spec("sweep", func(s *swarm.ServiceSpec) {
		s.Mode, s.EndpointSpec = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}, nil
	}))
	const swept = `skep_job_last_success_timestamp_seconds{service="sweep"}`
	b.addTask(5, global, 0, 1)
	b.addTask(4, global, 0, 2, complete(1_700_000_090))
	if got := b.scrape()[swept]; got != "" {
		t.Errorf("one node is still at it: %s", got)
	}
	b.update(func(tx *store.Tx) error {
		task := *tx.Task(taskID(5))
		complete(1_700_000_120)(&task)
		return tx.Put(&task)
	})
	if got := b.scrape()[swept]; got != "1.70000012e+09" {
		t.Errorf("all nodes are done: %s", got)
	}
}

// Logs that are followed are counted while they are.
func TestMetrics_OfStreams(t *testing.T) {
	b := measured(t)
	const events = `skep_api_streams{kind="events"}`
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/events", nil).WithContext(ctx))
	}()
	until(t, "the stream to be counted", func() bool { return b.scrape()[events] == "1" })
	cancel()
	<-ended
	if got := b.scrape()[events]; got != "0" {
		t.Errorf("%s after its end", got)
	}
	for path, kind := range map[string]string{
		"/services/web/logs": "logs", "/tasks/t/logs": "logs", "/containers/c/logs": "engine", "/exec/e/start": "engine", "/skep/v1/backup": "other", "/metrics": "other",
	} {
		if got := streamKind(path); got != kind {
			t.Errorf("%s is %s", path, got)
		}
	}
}

// Swarm's names are there for those who ask for them.
func TestMetrics_BySwarmsNames(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Metrics, c.SwarmNames = telemetry.New(), true })
	b.serviceWithTasks("web", 1, cluster.TaskStatus{State: cluster.StateRunning}, cluster.TaskStatus{State: cluster.StateFailed})
	text := b.do("GET", "/metrics", nil).want(t, 200, "").body
	for _, line := range []string{
		`swarm_manager_nodes{state="ready"} 3`, `swarm_manager_tasks_total{state="running"} 1`, `swarm_manager_tasks_total{state="failed"} 1`,
		`swarm_manager_tasks_total{state="orphaned"} 0`, "swarm_manager_services_total 1", "swarm_manager_leader 1", "swarm_node_manager 1",
		`swarm_node_info{node_id="` + nodeID(1) + `",swarm_id="clusterid"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if text := measured(t).do("GET", "/metrics", nil).body; strings.Contains(text, "swarm_manager") {
		t.Error("they are there for everybody")
	}
}

// A scrape of 1,000 services has few series of each, of one that has all that a service can have too, and few besides.
func TestMetrics_AreFew(t *testing.T) {
	b := measured(t)
	worst := []cluster.TaskStatus{{State: cluster.StateRunning}}
	// Its old tasks and its new ones lack something else, some wait for a fence, some until they are begun again.
	for _, why := range []string{"no suitable node (insufficient memory on 2 nodes)", "no suitable node (scheduling constraints not satisfied on 2 nodes)"} {
		worst = append(worst, cluster.TaskStatus{State: cluster.StatePending, Err: why})
	}
	for _, why := range []string{"waiting for the restart delay to end at 12:00:00 UTC", "waiting until 12:00:00 UTC, when fenced task t1 must have stopped"} {
		worst = append(worst, cluster.TaskStatus{State: cluster.StatePending, Message: why})
	}
	for i := range 1000 {
		b.serviceWithTasks(fmt.Sprint("s", i), 10*i+1, worst...)
	}
	for _, result := range []string{"complete", "failed", "rejected", "orphaned"} {
		b.server.Metrics.Scheduler.Ends.Add(1, "s1", result)
	}
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{ServiceID: "services1", State: swarm.UpdateStateUpdating, Revision: 1, Total: 2, StartedAt: time.Unix(1, 0)})
	})
	of, waits, rest := 0, 0, 0
	for name := range b.scrape() {
		if strings.Contains(name, `service="s1"`) {
			of++
			if strings.HasPrefix(name, "skep_service_tasks_waiting{") {
				waits++
			}
		} else if !strings.Contains(name, `service="`) && !strings.Contains(name, `node="`) && !strings.Contains(name, "_bucket{") {
			rest++
		}
	}
	if of == 0 || of > 25 || waits != 4 || rest >= 60 {
		t.Errorf("%d series of a service, %d of them why it waits, and %d without; want at most 25, 4 and fewer than 60", of, waits, rest)
	}
	// What goes past the registry is held to what it would have refused.
	if _, err := (prometheus.Gatherers{b.server.Metrics}).Gather(); err != nil {
		t.Error(err)
	}
}

func TestMetrics_Lint(t *testing.T) {
	b := measured(t)
	b.serviceWithTasks("web", 1, cluster.TaskStatus{State: cluster.StateRunning}, cluster.TaskStatus{State: cluster.StatePending, Err: "no suitable node"})
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{ServiceID: "serviceweb", State: swarm.UpdateStateUpdating, Revision: 1, Total: 2, StartedAt: time.Unix(1, 0)})
	})
	b.scrape()
	problems, err := testutil.GatherAndLint(b.server.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Who scrapes while another does waits for its turn, also at the other port; nobody waits, or scrapes, for more than
// five seconds.
func TestMetrics_OneScrapeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{scraping: make(chan struct{}, 1)}
		under, most := 0, 0
		var mu sync.Mutex
		gather := func(takes time.Duration) prometheus.GathererFunc {
			return func() ([]*dto.MetricFamily, error) {
				mu.Lock()
				under++
				most = max(most, under)
				mu.Unlock()
				time.Sleep(takes)
				mu.Lock()
				under--
				mu.Unlock()
				return nil, nil
			}
		}
		began := time.Now()
		type answer struct {
			status int
			after  time.Duration
		}
		scrape := func(handler http.Handler) <-chan answer {
			answered := make(chan answer, 1)
			go func() {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				answered <- answer{w.Code, time.Since(began)}
			}()
			synctest.Wait()
			return answered
		}
		own, port, stuck := s.scrapeOf(gather(time.Second)), s.scrapeOf(gather(time.Second)), s.scrapeOf(gather(8*time.Second))
		first, second := scrape(own), scrape(port)
		if got := []answer{<-first, <-second}; got[0] != (answer{200, time.Second}) || got[1] != (answer{200, 2 * time.Second}) {
			t.Errorf("one after the other: %v", got)
		}
		began = time.Now()
		long, waits := scrape(stuck), scrape(own)
		if got := []answer{<-long, <-waits}; got[0] != (answer{503, scrapeLimit}) || got[1] != (answer{503, scrapeLimit}) {
			t.Errorf("for too long: %v", got)
		}
		time.Sleep(5 * time.Second)
		began = time.Now()
		if got := <-scrape(own); got != (answer{200, time.Second}) {
			t.Errorf("after that: %v", got)
		}
		if most != 1 {
			t.Errorf("%d scrapes at a time", most)
		}
	})
}

// What is left out for one who may not see services is there for the next one who may: readings are shared.
func TestMetrics_WithoutServicesLeavesThemToOthers(t *testing.T) {
	b := measured(t)
	b.serviceWithTasks("web", 1, cluster.TaskStatus{State: cluster.StateRunning})
	before := b.scrape()
	if families, err := withoutServices(b.server.Metrics).Gather(); err != nil || len(families) == 0 {
		t.Fatal(len(families), err)
	}
	after := b.scrape()
	for name := range before {
		if strings.Contains(name, `service="web"`) && after[name] != before[name] {
			t.Errorf("%s is %q, and was %q", name, after[name], before[name])
		}
	}
}

// A port of its own serves metrics to those with the token, nothing else, and no services if it is to have none.
func TestMetrics_Port(t *testing.T) {
	b := measured(t)
	b.serviceWithTasks("web", 1, cluster.TaskStatus{State: cluster.StateRunning})
	b.server.Metrics.Scheduler.Ends.Add(1, "web", "failed")
	ask := func(handler http.Handler, method, path, authorization string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	secret, failing := "sesame", error(nil)
	open := b.server.Scrape(func() (string, error) { return "", nil }, true)
	guarded := b.server.Scrape(func() (string, error) { return secret, failing }, false)
	for _, of := range []struct {
		handler                     http.Handler
		method, path, authorization string
		status                      int
	}{
		{open, "GET", "/metrics", "", 200},
		{open, "POST", "/metrics", "", 405},
		{open, "GET", "/services", "", 404},
		{open, "GET", "/v1.44/metrics", "", 404},
		{guarded, "GET", "/metrics", "Bearer sesame", 200},
		{guarded, "GET", "/metrics", "", 401},
		{guarded, "GET", "/metrics", "Bearer ", 401},
		{guarded, "GET", "/metrics", "Bearer sesame2", 401},
		{guarded, "GET", "/metrics", "Basic sesame", 401},
		{guarded, "GET", "/services", "", 401},
	} {
		if w := ask(of.handler, of.method, of.path, of.authorization); w.Code != of.status {
			t.Errorf("%s %s with %q: %d, want %d", of.method, of.path, of.authorization, w.Code, of.status)
		}
	}
	secret = "rotated"
	for authorization, want := range map[string]int{"Bearer rotated": 200, "Bearer sesame": 401} {
		if w := ask(guarded, "GET", "/metrics", authorization); w.Code != want {
			t.Errorf("after the token has changed, %s: %d, want %d", authorization, w.Code, want)
		}
	}
	secret, failing = "", errors.New("no such file")
	if w := ask(guarded, "GET", "/metrics", "Bearer "); w.Code != 503 {
		t.Errorf("a token that can't be read: %d", w.Code)
	}
	secret, failing = "sesame", nil
	if all := ask(open, "GET", "/metrics", "").Body.String(); !strings.Contains(all, `service="web"`) || !strings.Contains(all, "skep_task_ends_total{") {
		t.Error("services are missing where they should be")
	}
	if part := ask(guarded, "GET", "/metrics", "Bearer sesame").Body.String(); strings.Contains(part, "web") || !strings.Contains(part, "skep_raft_term 3") {
		t.Errorf("without services:\n%s", part)
	}
}

func TestMetrics_ManyServicesAreAddedUp(t *testing.T) {
	b := measured(t)
	b.update(func(tx *store.Tx) error {
		for i := range telemetry.NamedServices + 3 {
			replicas := uint64(2)
			s := &cluster.Service{ID: fmt.Sprintf("service%05d", i), Revision: 1}
			s.Spec.Name = fmt.Sprintf("s%05d", i)
			s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
			if err := tx.Put(s); err != nil {
				return err
			}
		}
		return nil
	})
	series := b.scrape()
	if series["skep_metrics_services_dropped"] != "3" || series[`skep_service_tasks_desired{service="_other"}`] != "6" || series[`skep_service_tasks_desired{service="s00000"}`] != "2" {
		t.Errorf("dropped %s, others %s", series["skep_metrics_services_dropped"], series[`skep_service_tasks_desired{service="_other"}`])
	}
}
