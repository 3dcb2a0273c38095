package docker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skep/cluster/trace"
)

// A call to the engine has a span below that of whoever makes it, of which the engine is told; others have none.
func TestDescribe_IsTraced(t *testing.T) {
	told := make(chan string, 10)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/info") {
			told <- r.Header.Get("Traceparent")
			_, _ = w.Write([]byte("{}"))
			return
		}
		_, _ = w.Write([]byte("[]"))
	}))
	t.Cleanup(engine.Close)
	driver, err := New(Config{Host: "tcp://" + engine.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	if _, err := driver.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if header := <-told; header != "" {
		t.Errorf("the engine was told of %s, which nobody asked for", header)
	}
	memory := tracetest.NewInMemoryExporter()
	tracer := trace.New(time.Now, sdk.WithSyncer(memory))
	t.Cleanup(tracer.Close)
	ctx, span := tracer.Serve(t.Context(), http.Header{}, "api")
	if _, err := driver.Describe(ctx); err != nil {
		t.Fatal(err)
	}
	header := <-told
	span.End(nil)
	for _, call := range memory.GetSpans() {
		if call.Name == "engine GET /info" && strings.HasPrefix(span.Traceparent(), "00-"+call.Parent.TraceID().String()+"-"+call.Parent.SpanID().String()) &&
			header == "00-"+call.SpanContext.TraceID().String()+"-"+call.SpanContext.SpanID().String()+"-01" {
			return
		}
	}
	t.Errorf("the engine was told %q, below %s, and there are %+v", header, span.Traceparent(), memory.GetSpans())
}
