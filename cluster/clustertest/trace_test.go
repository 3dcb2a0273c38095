package clustertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skep/cluster"
	"skep/cluster/trace"
)

// traced are spans by their ID.
type traced map[string]tracetest.SpanStub

// path is the way to a span from its trace's root.
func (all traced) path(span tracetest.SpanStub) string {
	above, ok := all[span.Parent.SpanID().String()]
	if !ok {
		return span.Name
	}
	return all.path(above) + " > " + span.Name
}

func said(span tracetest.SpanStub, name string) string {
	for _, a := range span.Attributes {
		if string(a.Key) == name {
			return a.Value.String()
		}
	}
	return ""
}

// createWith is Create by a client that has a span.
func (m *Machine) createWith(traceparent string, spec swarm.ServiceSpec) string {
	m.cluster.t.Helper()
	body, err := json.Marshal(spec)
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodPost, "/v1.51/services/create", bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", traceparent)
	response := httptest.NewRecorder()
	var created swarm.ServiceCreateResponse
	if err := serve(m.node.API(), response, request); err != nil || response.Code != http.StatusCreated || json.Unmarshal(response.Body.Bytes(), &created) != nil {
		m.cluster.t.Fatalf("%s: %v, %d %s", m.Name, err, response.Code, response.Body)
	}
	return created.ID
}

// TestTrace_OfServiceCreate follows a service from a client of a follower to its tasks on all nodes: it is one trace, with
// all that the doc of package trace has, and nothing of what the user wrote.
func TestTrace_OfServiceCreate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := tracetest.NewInMemoryExporter()
		c := Start(t, 3, 2, Options{Trace: func() *trace.Tracer { return trace.New(time.Now, sdk.WithSyncer(memory)) }})
		leader := c.Leader()
		follower := c.Machines[slices.IndexFunc(c.Machines, func(m *Machine) bool { return m != leader })]
		key := leader.Secret("key", canary)
		// Followers hear of an origin in one trip, of what is committed in three: in no time at all any of them may be first.
		for _, m := range c.Machines {
			c.Delay(m, 500*time.Microsecond)
		}
		time.Sleep(5 * time.Second)
		memory.Reset()

		spec := Spec("web", "web:1", 10)
		spec.Labels = map[string]string{"label": canary}
		spec.TaskTemplate.ContainerSpec.Args = []string{"--password", canary}
		spec.TaskTemplate.ContainerSpec.Env = []string{"PASSWORD=" + canary}
		spec.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{key}
		spec.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"CMD", canary}, Interval: time.Second}
		spec.TaskTemplate.ContainerSpec.Labels = map[string]string{cluster.LabelSimulate + "prepare-delay": "300ms", cluster.LabelSimulate + "health-delay": "700ms"}
		const client = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		id := follower.createWith(client, spec)
		c.Runs(20*time.Second, id, "web:1", 10)
		time.Sleep(5 * time.Second)

		all, paths, nodes, applied := traced{}, map[string]int{}, map[string]bool{}, map[string]int{}
		for _, span := range memory.GetSpans() {
			all[span.SpanContext.SpanID().String()] = span
			if strings.Contains(fmt.Sprintf("%+v", span), canary) {
				t.Errorf("%s has what the user wrote: %+v", span.Name, span)
			}
		}
		for _, span := range all {
			if span.SpanContext.TraceID().String() != client[3:35] {
				continue // The test's own questions.
			}
			path := all.path(span)
			paths[path]++
			nodes[said(span, trace.Node)] = true
			if span.Name == "fsm.apply" {
				applied[said(span, trace.Index)]++
			}
			if span.Name == "agent.task" && (said(span, trace.State) != "running" || len(span.Events) != 3 || span.EndTime.Sub(span.StartTime) < time.Second) {
				t.Errorf("a task became %q by %d events in %v", said(span, trace.State), len(span.Events), span.EndTime.Sub(span.StartTime))
			}
			if above := all[span.Parent.SpanID().String()]; above.Name != "" && span.StartTime.Before(above.StartTime) {
				t.Errorf("%s began before what it follows from", path)
			}
		}
		const (
			api    = "api POST /services/create"
			update = api + " > api forward > " + api + " > store.update"
			task   = update + " > dispatch.send > agent.task"
			report = task + " > dispatch.report"
		)
		for path, n := range map[string]int{
			api: 1, api + " > api forward": 1, api + " > api forward > " + api: 1, update: 1, update + " > raft.commit": 1,
			update + " > scheduler.plan": 1, update + " > scheduler.plan > store.update": 1, update + " > scheduler.plan > store.update > raft.commit": 1,
			update + " > dispatch.send": 5, task: 10, task + " > agent.prepare": 10, task + " > agent.start": 10, task + " > agent.health": 10,
			// How many messages and writes reports make depends on when they come.
			update + " > fsm.apply": -6, report: -30, report + " > relay.leader": -3, report + " > relay.leader > store.update": -3, report + " > relay.leader > store.update > raft.commit": -3,
		} {
			if got := paths[path]; n > 0 && got != n || got < -n {
				t.Errorf("%d of %s, want %d", got, path, n)
			}
			delete(paths, path)
		}
		if len(paths) > 0 {
			t.Errorf("unexpected: %v", slices.Sorted(maps.Keys(paths)))
		}
		if len(nodes) != 5 || nodes[""] {
			t.Errorf("spans are of the nodes %v, want all 5", slices.Sorted(maps.Keys(nodes)))
		}
		if len(applied) != 2 {
			t.Errorf("entries were applied: %v; want two, by three managers each", applied)
		}

		// What happens to the service long after has no trace.
		time.Sleep(15 * time.Minute)
		memory.Reset()
		tasks, err := leader.Tasks(id, "running")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Machines {
			m.Driver.Kill(tasks[0].ID, 1)
		}
		time.Sleep(5 * time.Second)
		for _, span := range memory.GetSpans() {
			if !strings.HasPrefix(span.Name, "api ") {
				t.Errorf("%s is of nobody's request", span.Name)
			}
		}
	})
}
