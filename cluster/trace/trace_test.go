package trace

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// machine is a clock that tests set.
type machine struct{ time.Time }

func (m *machine) now() time.Time { return m.Time }

func recording(t testing.TB, options ...sdk.TracerProviderOption) (*Tracer, *tracetest.InMemoryExporter, *machine) {
	memory, clock := tracetest.NewInMemoryExporter(), &machine{time.Unix(1_800_000_000, 0)}
	tracer := New(clock.now, append(options, sdk.WithSyncer(memory))...)
	t.Cleanup(tracer.Close)
	return tracer, memory, clock
}

// work is what a traced package does, once.
func work(ctx context.Context, t *Tracer, err error) {
	ctx, span := t.Start(With(ctx, t.Origin("s1")), "work")
	span.Event("taken")
	span.Set(Result, "ok")
	span.SetNumber(Index, 7)
	t.SetOrigin("s1", span)
	_, below := t.Start(With(ctx, Join(nil)), "below")
	_ = below.Traceparent()
	below.End(err)
	span.End(err)
	t.TakeOrigin(Origin{"s1", span.Traceparent()})
	t.SetNode("n1")
}

// Off, it costs comparisons: nothing is made, by clock and by allocation.
func TestNil_MakesNothing(t *testing.T) {
	ctx, err := t.Context(), errors.New("failed")
	if n := testing.AllocsPerRun(100, func() { work(ctx, nil, err) }); n != 0 {
		t.Errorf("%v allocations without a tracer", n)
	}
	var none *Tracer
	header := http.Header{}
	if got, span := none.Serve(ctx, header, "api"); got != ctx || span != nil {
		t.Error("a request has a span without a tracer")
	}
	if none.Call(ctx, header, "api"); len(header) > 0 {
		t.Errorf("%v is said without a tracer", header)
	}
	none.Close()
}

// On, there is nothing of what no request asked for.
func TestStart_OnlyBelowARequest(t *testing.T) {
	tracer, memory, _ := recording(t)
	work(t.Context(), tracer, nil)
	if got := memory.GetSpans(); len(got) > 0 {
		t.Errorf("%d spans of nobody's", len(got))
	}
	ctx, request := tracer.Serve(t.Context(), http.Header{}, "api")
	work(ctx, tracer, errors.New("secret"))
	request.End(nil)
	got := memory.GetSpans()
	if len(got) != 3 || got[0].Name != "below" || got[1].Name != "work" || got[2].Name != "api" ||
		got[0].Parent.SpanID() != got[1].SpanContext.SpanID() || got[1].Parent.SpanID() != got[2].SpanContext.SpanID() {
		t.Fatalf("%+v", got)
	}
	if strings.Contains(fmt.Sprintf("%+v", got), "secret") || got[1].Status.Code == 0 {
		t.Errorf("a failed span is %+v", got[1])
	}
}

// A context goes to another process in a header, or in a message, and what isn't one means nothing.
func TestTraceparent(t *testing.T) {
	tracer, memory, _ := recording(t)
	const client = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx, request := tracer.Serve(t.Context(), http.Header{"Traceparent": {client}}, "api")
	header := http.Header{}
	forward := tracer.Call(ctx, header, "forward")
	forward.End(nil)
	request.End(nil)
	_, there := tracer.Start(With(t.Context(), At(header.Get("Traceparent"))), "there")
	there.End(nil)
	got := memory.GetSpans()
	if len(got) != 3 || got[1].Parent.SpanID().String() != "b7ad6b7169203331" || got[0].Parent.SpanID() != got[1].SpanContext.SpanID() || got[2].Parent.SpanID() != got[0].SpanContext.SpanID() {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"", "x", client[:54], client + "-more", strings.Replace(client, "0af7", "0AF7", 1), strings.Replace(client, "-01", "-00", 1), "00-" + strings.Repeat("0", 32) + client[35:]} {
		if At(text) != nil {
			t.Errorf("%q means something", text)
		}
	}
	// Who asked that nobody trace it is heard by the next one, too.
	header = http.Header{}
	ctx, none := tracer.Serve(t.Context(), http.Header{"Traceparent": {client[:53] + "00"}}, "api")
	tracer.Call(ctx, header, "forward")
	if none != nil || len(memory.GetSpans()) != 3 || !strings.HasSuffix(header.Get("Traceparent"), "-00") {
		t.Errorf("a request that isn't to be traced has %d spans, and is passed on with %v", len(memory.GetSpans())-3, header)
	}
}

// What is done once for several is in each of their traces, with links to the others, and once in each.
func TestJoin(t *testing.T) {
	tracer, memory, _ := recording(t)
	var all []*Span
	for range maxTraces + 3 {
		ctx, request := tracer.Serve(t.Context(), http.Header{}, "api")
		_, update := tracer.Start(ctx, "update")
		all = append(all, request, update, nil)
	}
	_, commit := tracer.Start(With(t.Context(), Join(all)), "commit")
	commit.End(nil)
	got := memory.GetSpans()
	if len(got) != maxTraces {
		t.Fatalf("%d spans, want one in each of %d traces", len(got), maxTraces)
	}
	for i, span := range got {
		if span.Parent.SpanID() != all[3*i].in[0].SpanContext().SpanID() || len(span.Links) != maxTraces-1 {
			t.Errorf("span %d is below %v, with %d links", i, span.Parent, len(span.Links))
		}
	}
	if commit.TraceparentFor(all[4]) != "00-"+got[1].SpanContext.TraceID().String()+"-"+got[1].SpanContext.SpanID().String()+"-01" || commit.TraceparentFor(all[len(all)-2]) != "" {
		t.Error("the parts for one of the traces isn't found")
	}
}

// Origins are kept for a while, so many of them, the youngest; what follows from one replaces it not.
func TestOrigins_AreBounded(t *testing.T) {
	tracer, _, clock := recording(t)
	ctx, first := tracer.Serve(t.Context(), http.Header{}, "api")
	for i := range originsKept + 10 {
		clock.Time = clock.Add(time.Millisecond)
		tracer.SetOrigin(fmt.Sprint("s", i), first)
	}
	if len(tracer.origins.byService) != originsKept || tracer.Origin("s9") != nil || tracer.Origin("s10") == nil {
		t.Errorf("%d origins, the 10th is %v, the 11th %v", len(tracer.origins.byService), tracer.Origin("s9"), tracer.Origin("s10"))
	}
	if len(tracer.Fresh()) != freshKept {
		t.Errorf("%d wait to be told", len(tracer.Fresh()))
	}
	_, follows := tracer.Start(ctx, "plan")
	tracer.SetOrigin("s99", follows)
	if got := tracer.Origin("s99").Traceparent(); got != first.Traceparent() {
		t.Errorf("the origin became %s, which follows from it", got)
	}
	_, second := tracer.Serve(t.Context(), http.Header{}, "api")
	tracer.SetOrigin("s99", second)
	if got := tracer.Origin("s99").Traceparent(); got != second.Traceparent() {
		t.Errorf("the origin is %s, want that of the last change", got)
	}
	clock.Time = clock.Add(originLasts)
	if tracer.Origin("s99", "s100") != nil {
		t.Error("an origin lasts")
	}
	tracer.TakeOrigin(Origin{"s1", first.Traceparent()})
	tracer.TakeOrigin(Origin{"s2", "nonsense"})
	if len(tracer.origins.byService) > originsKept || tracer.Origin("s1", "s2").Traceparent() != first.Traceparent() || tracer.Origin("s2") != nil {
		t.Errorf("%d origins, %v", len(tracer.origins.byService), tracer.Origin("s1"))
	}
}

func TestRouteOf(t *testing.T) {
	for path, want := range map[string]string{
		"/v1.51/containers/web.1.x/start": "/containers/{name}/start", "/v1.51/containers/create": "/containers/create", "/v1.51/containers/web.1.x": "/containers/{name}",
		"/v1.51/images/local:5000/a/b/json": "/images/{name}/json", "/info": "/info", "/v1.51/containers/json": "/containers/json", "/": "/",
	} {
		if got := routeOf(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// BenchmarkWork is what a part of a trace costs: without a tracer, with one that nobody asked for a span, and with spans.
func BenchmarkWork(b *testing.B) {
	tracer := New(time.Now)
	request, _ := tracer.Serve(context.Background(), http.Header{}, "api")
	for _, with := range []struct {
		name   string
		tracer *Tracer
		ctx    context.Context
	}{{"nil", nil, context.Background()}, {"background", tracer, context.Background()}, {"request", tracer, request}} {
		b.Run(with.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, span := with.tracer.Start(with.ctx, "work")
				span.SetNumber(Index, 7)
				span.End(nil)
			}
		})
	}
}
