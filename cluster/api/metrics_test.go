package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

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
		cluster.TaskStatus{State: cluster.StatePending, Err: "no suitable node"})
	b.do("GET", "/nodes", nil).want(t, 200, "")
	b.do("GET", "/nodes/nowhere", nil).want(t, 404, "")
	series := b.scrape()
	for name, want := range map[string]string{
		`skep_raft_is_leader`: "1", `skep_raft_has_leader`: "1", `skep_raft_state{state="leader"}`: "1", `skep_raft_state{state="follower"}`: "0",
		`skep_raft_term`: "3", `skep_raft_voters`: "1", `skep_raft_failure_tolerance`: "0",
		`skep_store_objects{kind="task"}`: "4", `skep_store_objects{kind="node"}`: "3",
		`skep_service_info{mode="replicated",service="web",stack="shop"}`: "1",
		`skep_service_tasks_desired{service="web"}`:                       "4",
		`skep_service_tasks_running{service="web"}`:                       "1",
		`skep_service_tasks{service="web",state="starting"}`:              "1",
		`skep_service_tasks{service="web",state="ready"}`:                 "0",
		`skep_service_tasks_waiting{reason="memory",service="web"}`:       "1",
		`skep_service_tasks_waiting{reason="no_node",service="web"}`:      "1",
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

// A scrape has few series, and costs little: see shared bounds in DESIGN.md.
func TestMetrics_AreFewAndLint(t *testing.T) {
	b := measured(t)
	for i := range 50 {
		b.serviceWithTasks(fmt.Sprint("s", i), 10*i+1, cluster.TaskStatus{State: cluster.StateRunning}, cluster.TaskStatus{State: cluster.StatePending, Err: "no suitable node"})
	}
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{ServiceID: "services1", State: swarm.UpdateStateUpdating, Revision: 1, Total: 2, StartedAt: time.Unix(1, 0)})
	})
	of, rest := 0, 0
	for name := range b.scrape() {
		if strings.Contains(name, `service="s1"`) {
			of++
		} else if !strings.Contains(name, `service="`) && !strings.Contains(name, `node="`) && !strings.Contains(name, "_bucket{") {
			rest++
		}
	}
	if of == 0 || of > 25 || rest > 60 {
		t.Errorf("%d series of a service and %d without, want at most 25 and 60", of, rest)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&stateReader{server: b.server})
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
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
	open, guarded := b.server.Scrape("", true), b.server.Scrape("sesame", false)
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

// 1,000 services with 10,000 tasks: at most 50 ms.
func BenchmarkMetrics(b *testing.B) {
	bench := measured(b)
	for i := range 1000 {
		states := make([]cluster.TaskStatus, 10)
		for j := range states {
			states[j].State = cluster.StateRunning
		}
		bench.serviceWithTasks(fmt.Sprint("s", i), 10*i+1, states...)
	}
	reader := &stateReader{server: bench.server}
	b.ResetTimer()
	for b.Loop() {
		reader.read = nil
		series := make(chan prometheus.Metric, 100_000)
		reader.Collect(series)
	}
}
