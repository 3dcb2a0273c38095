package trace

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// What spans say. Each also has the node it was made on, once that has an ID.
const (
	Node        = "skep.node.id"
	Peer        = "skep.peer.id" // the node at the other end
	Service     = "skep.service.id"
	ServiceName = "skep.service.name"
	Task        = "skep.task.id"
	State       = "skep.task.state"
	Index       = "skep.index"
	Result      = "skep.result"
	Forwarded   = "skep.forwarded"
	Route       = "http.route"
	Status      = "http.response.status_code"
	Services    = "skep.services" // how many, as the next ones
	Tasks       = "skep.tasks"
	Intents     = "skep.intents"
	Updates     = "skep.updates"
	SessionAge  = "skep.session.age_ms"
)

// maxTraces is in how many traces the same work is a span.
const maxTraces = 32

// closeLimit is how long Close waits for the collector.
const closeLimit = 2 * time.Second

// w3c is the form that contexts have on the wire.
var w3c propagation.TraceContext

// Tracer makes a node's spans; nil makes none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   otel.Tracer
	node     atomic.Pointer[string]
	origins  origins
}

// New makes a Tracer whose spans go where the options say. now is the clock that origins age by.
func New(now func() time.Time, options ...sdk.TracerProviderOption) *Tracer {
	provider := sdk.NewTracerProvider(options...)
	return &Tracer{provider: provider, tracer: provider.Tracer("skep"), origins: newOrigins(now)}
}

// Close sends what there is to send, and ends.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // Who didn't take it in time has been told of in the log.
}

// SetNode says which node this is.
func (t *Tracer) SetNode(id string) {
	if t != nil {
		of := id
		t.node.Store(&of)
	}
}

// Span is a piece of work, once in each trace that it is for, or only the place where more is to be hung
// in; nil is one that nobody wants.
type Span struct{ in []otel.Span }

type key struct{}

// With is a context whose spans are below s.
func With(ctx context.Context, s *Span) context.Context {
	if s == nil {
		return ctx
	}
	return context.WithValue(otel.ContextWithSpan(ctx, s.in[0]), key{}, s)
}

// Of is the span that ctx is below.
func Of(ctx context.Context) *Span {
	s, _ := ctx.Value(key{}).(*Span)
	return s
}

// Join is several as one, with one of each trace.
func Join(all []*Span) *Span {
	if len(all) == 0 {
		return nil
	}
	var joined Span
	for _, s := range all {
		for _, span := range s.spans() {
			if len(joined.in) < maxTraces && joined.of(span.SpanContext()) == nil {
				joined.in = append(joined.in, span)
			}
		}
	}
	if len(joined.in) == 0 {
		return nil
	}
	return &joined
}

// At is the place that a traceparent of a message means; nil for "", and for what isn't one.
func At(traceparent string) *Span {
	if traceparent == "" {
		return nil
	}
	ctx := w3c.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
	return place(otel.SpanContextFromContext(ctx))
}

func place(at otel.SpanContext) *Span {
	if !at.IsSampled() || !at.IsValid() {
		return nil
	}
	return &Span{[]otel.Span{otel.SpanFromContext(otel.ContextWithRemoteSpanContext(context.Background(), at))}}
}

// Start begins work below that of ctx, if there is any.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.start(ctx, name, otel.SpanKindInternal)
}

func (t *Tracer) start(ctx context.Context, name string, kind otel.SpanKind) (context.Context, *Span) {
	above := Of(ctx).spans()
	if len(above) == 0 {
		return ctx, nil
	}
	s := &Span{make([]otel.Span, 0, len(above))}
	for i, span := range above {
		var links []otel.Link
		for j, other := range above {
			if i != j {
				links = append(links, otel.Link{SpanContext: other.SpanContext()})
			}
		}
		_, below := t.tracer.Start(otel.ContextWithSpan(ctx, span), name, otel.WithSpanKind(kind), otel.WithLinks(links...))
		s.in = append(s.in, below)
	}
	t.mark(s)
	return With(ctx, s), s
}

func (t *Tracer) mark(s *Span) {
	if id := t.node.Load(); id != nil {
		s.Set(Node, *id)
	}
}

// Serve begins the work of a request that came in: below what its header says, or a new trace.
func (t *Tracer) Serve(ctx context.Context, header http.Header, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	ctx, span := t.tracer.Start(w3c.Extract(ctx, propagation.HeaderCarrier(header)), name, otel.WithSpanKind(otel.SpanKindServer))
	if !span.IsRecording() {
		return ctx, nil // So that Call passes on that nobody wants it.
	}
	s := &Span{[]otel.Span{span}}
	t.mark(s)
	return With(ctx, s), s
}

// Call begins a request to somebody else, and says so in its header.
func (t *Tracer) Call(ctx context.Context, header http.Header, name string) *Span {
	if t == nil {
		return nil
	}
	ctx, s := t.start(ctx, name, otel.SpanKindClient)
	w3c.Inject(ctx, propagation.HeaderCarrier(header))
	return s
}

// EngineOptions have a client of the engine make spans below that of a request's context, and tell the engine.
func EngineOptions() []otelhttp.Option {
	return []otelhttp.Option{
		otelhttp.WithPropagators(w3c),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "engine " + r.Method + " " + routeOf(r.URL.Path) }),
	}
}

// routeOf is a path of the engine's without version and names, of which there is no end.
func routeOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if strings.HasPrefix(parts[0], "v1.") {
		parts = parts[1:]
	}
	switch n := len(parts); {
	case n > 2:
		parts = []string{parts[0], "{name}", parts[n-1]}
	case n == 2 && parts[1] != "create" && parts[1] != "json":
		parts[1] = "{name}"
	}
	return "/" + strings.Join(parts, "/")
}

func (s *Span) spans() []otel.Span {
	if s == nil {
		return nil
	}
	return s.in
}

// of is the one in the same trace as another; nil when there is none.
func (s *Span) of(other otel.SpanContext) otel.Span {
	i := slices.IndexFunc(s.spans(), func(span otel.Span) bool { return span.SpanContext().TraceID() == other.TraceID() })
	if i < 0 {
		return nil
	}
	return s.in[i]
}

// Traceparent is s for a message; "" for nil.
func (s *Span) Traceparent() string { return s.TraceparentFor(s) }

// TraceparentFor is s, in the trace that other is in first, for a message; "" when it isn't in that.
func (s *Span) TraceparentFor(other *Span) string {
	if s == nil || other == nil {
		return ""
	}
	span := s.of(other.in[0].SpanContext())
	if span == nil {
		return ""
	}
	header := propagation.MapCarrier{}
	w3c.Inject(otel.ContextWithSpan(context.Background(), span), header)
	return header["traceparent"]
}

// Set says something of the work: of the values only those that the package doc lists.
func (s *Span) Set(name, value string) {
	for _, span := range s.spans() {
		span.SetAttributes(attribute.String(name, value))
	}
}

// SetNumber is Set for numbers.
func (s *Span) SetNumber(name string, value int) {
	for _, span := range s.spans() {
		span.SetAttributes(attribute.Int(name, value))
	}
}

// Event says that something has happened.
func (s *Span) Event(name string) {
	for _, span := range s.spans() {
		span.AddEvent(name)
	}
}

// End ends the work, which failed if err isn't nil. One that is never ended is never told.
func (s *Span) End(err error) {
	for _, span := range s.spans() {
		if err != nil {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
