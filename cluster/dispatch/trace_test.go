package dispatch

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skep/cluster"
	"skep/cluster/trace"
)

func recorded(t *testing.T) (*trace.Tracer, *tracetest.InMemoryExporter) {
	memory := tracetest.NewInMemoryExporter()
	tracer := trace.New(time.Now, sdk.WithSyncer(memory))
	t.Cleanup(tracer.Close)
	return tracer, memory
}

// What an agent says of a trace counts where it is that of the task's service, and nowhere else: it has other managers
// make spans.
func TestAttack_TracesAreTheServices(t *testing.T) {
	tracer, _ := recorded(t)
	_, asked := tracer.Serve(t.Context(), http.Header{}, "api")
	_, others := tracer.Serve(t.Context(), http.Header{}, "api")
	tracer.SetOrigin("web", asked)
	s := &session{d: New(Config{NodeID: "m1", Trace: tracer})}
	web, db := &cluster.Task{ServiceID: "web"}, &cluster.Task{ServiceID: "db"}
	for _, report := range []struct {
		traceparent string
		task        *cluster.Task
		counts      bool
	}{
		{asked.Traceparent(), web, true}, {asked.Traceparent(), db, false}, {asked.Traceparent(), nil, false}, {others.Traceparent(), web, false},
		{"", web, false}, {strings.Repeat("0", 1<<20), web, false},
	} {
		if got := s.checkTrace(report.traceparent, report.task); (got != "") != report.counts || report.counts && got != report.traceparent {
			t.Errorf("%.60s of %+v counts as %q", report.traceparent, report.task, got)
		}
	}
	s.d.config.Trace = nil
	if got := s.checkTrace(asked.Traceparent(), web); got != "" {
		t.Errorf("without a tracer %s counts", got)
	}
}

// A manager takes in what the leader tells of origins, and does nothing with it where it makes no traces.
func TestServeOrigin(t *testing.T) {
	tracer, _ := recorded(t)
	_, asked := tracer.Serve(t.Context(), http.Header{}, "api")
	body, err := cluster.Encode(cluster.Traces{"web": asked.Traceparent()})
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []*trace.Tracer{tracer, nil} {
		for text, want := range map[string]int{string(body): http.StatusNoContent, "nonsense": http.StatusBadRequest, string(make([]byte, 2*maxOriginBody)): http.StatusRequestEntityTooLarge} {
			answer := httptest.NewRecorder()
			New(Config{NodeID: "m2", Trace: of}).Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/v1/origin", strings.NewReader(text)))
			if answer.Code != want {
				t.Errorf("%d bytes: %d, want %d", len(text), answer.Code, want)
			}
		}
	}
	if got := tracer.Origin("web").Traceparent(); got != asked.Traceparent() {
		t.Errorf("the origin is %q", got)
	}
}

// A new report of a task ends the span of the one whose place it takes, and each that the leader has is told once.
func TestOutbox_EndsSpans(t *testing.T) {
	tracer, memory := recorded(t)
	_, asked := tracer.Serve(t.Context(), http.Header{}, "api")
	o := newOutbox(tracer)
	report := func(state cluster.State) cluster.Report {
		return cluster.Report{TaskID: "t1", Status: cluster.TaskStatus{State: state}, Traceparent: asked.Traceparent()}
	}
	o.addReports("n", []cluster.Report{report(cluster.StatePreparing)})
	o.addReports("n", []cluster.Report{report(cluster.StateStarting), report(cluster.StatePreparing)})
	if n := len(memory.GetSpans()); n != 1 {
		t.Errorf("%d reports were replaced, want 1", n)
	}
	p := o.next("m", "e", noon)
	if got := p.relay.Reports[0].Report.Traceparent; !strings.HasPrefix(got, asked.Traceparent()[:36]) || got == asked.Traceparent() {
		t.Errorf("it is relayed below %q, want a span of its own", got)
	}
	if o.ack(p); len(memory.GetSpans()) != 2 {
		t.Errorf("%d spans, want 2", len(memory.GetSpans()))
	}
}
