package trace

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"skep/cluster"
)

// FromEnvironment makes the Tracer of a process from OpenTelemetry's own variables, and nil when they ask for
// none, as when no endpoint is set. What can't be as they ask is refused. Those that aren't looked at here
// (headers, certificates, timeouts, sizes of queues) the SDK reads by itself.
func FromEnvironment(env func(string) string, version string, now func() time.Time, log *slog.Logger) (*Tracer, error) {
	otlp := func(name string) string {
		return cmp.Or(env("OTEL_EXPORTER_OTLP_TRACES_"+name), env("OTEL_EXPORTER_OTLP_"+name))
	}
	endpoint, exporter := otlp("ENDPOINT"), env("OTEL_TRACES_EXPORTER")
	if endpoint == "" || strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || exporter == "none" {
		return nil, nil
	}
	if exporter != "" && exporter != "otlp" {
		return nil, cluster.Errorf(cluster.ErrInvalid, "trace: OTEL_TRACES_EXPORTER is %q: use otlp, or none", exporter)
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, cluster.Errorf(cluster.ErrInvalid, "trace: the endpoint for OTLP isn't a URL: write OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:PORT, or https")
	}
	sampler, err := samplerOf(env("OTEL_TRACES_SAMPLER"), env("OTEL_TRACES_SAMPLER_ARG"))
	if err != nil {
		return nil, err
	}
	ctx := context.Background() // Nothing is connected to yet.
	var sends sdk.SpanExporter
	switch protocol := otlp("PROTOCOL"); protocol {
	case "grpc":
		sends, err = otlptracegrpc.New(ctx)
	case "http/protobuf", "":
		sends, err = otlptracehttp.New(ctx)
	default:
		return nil, cluster.Errorf(cluster.ErrInvalid, "trace: OTEL_EXPORTER_OTLP_PROTOCOL is %q: use grpc, or http/protobuf", protocol)
	}
	if err != nil {
		return nil, cluster.Errorf(cluster.ErrInvalid, "trace: make the exporter: %v", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "skep"), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		return nil, cluster.Errorf(cluster.ErrInvalid, "trace: OTEL_RESOURCE_ATTRIBUTES: %v", err)
	}
	log.Info("trace requests", "endpoint", u.Redacted())
	telling := &telling{sends, u.Redacted(), cluster.Complaint{Log: log, Now: now}}
	return New(now, sdk.WithBatcher(telling), sdk.WithSampler(sampler), sdk.WithResource(about)), nil
}

// samplerOf is the sampler of a name and argument, in the specification's words.
func samplerOf(name, arg string) (sdk.Sampler, error) {
	kind, parents := strings.CutPrefix(cmp.Or(name, "parentbased_always_on"), "parentbased_")
	var s sdk.Sampler
	switch kind {
	case "always_on":
		s = sdk.AlwaysSample()
	case "always_off":
		s = sdk.NeverSample()
	case "traceidratio":
		ratio, err := strconv.ParseFloat(cmp.Or(arg, "1"), 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) {
			return nil, cluster.Errorf(cluster.ErrInvalid, "trace: OTEL_TRACES_SAMPLER_ARG is %q: it must be from 0 to 1", arg)
		}
		s = sdk.TraceIDRatioBased(ratio)
	default:
		return nil, cluster.Errorf(cluster.ErrInvalid, "trace: OTEL_TRACES_SAMPLER is %q: use always_on, always_off or traceidratio, or one of them after parentbased_", name)
	}
	if parents {
		s = sdk.ParentBased(s)
	}
	return s, nil
}

// telling is an exporter that says in the log that it can't send, and when it can again. Nobody else does anything
// about an error.
type telling struct {
	sdk.SpanExporter
	endpoint string
	failing  cluster.Complaint
}

// ExportSpans is called by one goroutine at a time.
func (e *telling) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.failing.About(err, "traces can't be sent, and are lost", "traces are sent again", "endpoint", e.endpoint)
	return nil
}
