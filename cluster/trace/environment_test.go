package trace

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"skep/cluster"
	collectors "skep/cluster/trace/tracetest"
)

// logged collects all that is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// from makes a Tracer from variables, which the SDK reads itself, too.
func from(t *testing.T, log *logged, variables ...string) (*Tracer, error) {
	t.Helper()
	env := map[string]string{}
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
		t.Setenv(name, value)
	}
	tracer, err := FromEnvironment(func(name string) string { return env[name] }, "1.2.3", time.Now, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(tracer.Close)
	return tracer, err
}

const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"

func TestFromEnvironment_Off(t *testing.T) {
	for _, off := range [][]string{{}, {endpoint, "OTEL_SDK_DISABLED=TRUE"}, {endpoint, "OTEL_TRACES_EXPORTER=none"}, {"OTEL_TRACES_SAMPLER=nonsense"}} {
		if tracer, err := from(t, new(logged), off...); tracer != nil || err != nil {
			t.Errorf("%v: %v, %v", off, tracer, err)
		}
	}
}

func TestFromEnvironment_RefusesWhatItHasNot(t *testing.T) {
	for variable, want := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/json":           "use grpc, or http/protobuf",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=udp":          "use grpc, or http/protobuf",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector:17": "OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:PORT",
		"OTEL_TRACES_EXPORTER=zipkin":                     "use otlp, or none",
		"OTEL_TRACES_SAMPLER=sometimes":                   "use always_on, always_off or traceidratio",
		"OTEL_RESOURCE_ATTRIBUTES=nonsense":               "OTEL_RESOURCE_ATTRIBUTES",
		"OTEL_TRACES_SAMPLER_ARG=1.5":                     "from 0 to 1",
		"OTEL_TRACES_SAMPLER_ARG=NaN":                     "from 0 to 1",
	} {
		t.Run(variable, func(t *testing.T) {
			variables := []string{endpoint, variable}
			if strings.Contains(variable, "_ARG") {
				variables = append(variables, "OTEL_TRACES_SAMPLER=parentbased_traceidratio")
			}
			tracer, err := from(t, new(logged), variables...)
			if tracer != nil || !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// A parent's word counts before the sampler's own, where that is asked for.
func TestSamplerOf(t *testing.T) {
	parent := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	for _, s := range []struct {
		name, arg   string
		root, below bool
	}{
		{"", "", true, true}, {"always_off", "", false, false}, {"parentbased_always_off", "", false, true},
		{"parentbased_traceidratio", "0", false, true}, {"traceidratio", "0", false, false}, {"traceidratio", "", true, true}, {"always_on", "", true, true},
	} {
		sampler, err := samplerOf(s.name, s.arg)
		if err != nil {
			t.Fatal(err)
		}
		tracer, _, _ := recording(t, sdk.WithSampler(sampler))
		_, root := tracer.Serve(t.Context(), http.Header{}, "api")
		_, below := tracer.Serve(t.Context(), parent, "api")
		if (root != nil) != s.root || (below != nil) != s.below {
			t.Errorf("%+v: %v, %v", s, root != nil, below != nil)
		}
	}
}

// A collector that is away, or hangs, holds up nobody: not while spans come that it would take, nor at the end.
func TestClose_ACollectorThatDoesntAnswer(t *testing.T) {
	// What the SDK does about errors is to write to standard error, without end.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Errorf("the SDK was told %v", err) }))
	over := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(web.Close)
	t.Cleanup(func() { close(over) })
	const away = "http://127.0.0.1:1"
	for protocol, urls := range map[string][]string{"grpc": {away, collectors.Start(t, true).URL}, "http/protobuf": {away, web.URL}} {
		for _, url := range urls {
			t.Run(protocol+" away "+fmt.Sprint(url == away), func(t *testing.T) {
				log := new(logged)
				tracer, err := from(t, log, "OTEL_EXPORTER_OTLP_ENDPOINT="+url, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
					"OTEL_EXPORTER_OTLP_TIMEOUT=1000", "OTEL_BSP_EXPORT_TIMEOUT=1000", "OTEL_BSP_SCHEDULE_DELAY=20")
				if err != nil {
					t.Fatal(err)
				}
				began, longest := time.Now(), time.Duration(0)
				for time.Since(began) < 1500*time.Millisecond {
					one := time.Now()
					for range 100 {
						ctx, request := tracer.Serve(t.Context(), http.Header{}, "api")
						work(ctx, tracer, nil)
						request.End(nil)
					}
					longest = max(longest, time.Since(one))
					time.Sleep(5 * time.Millisecond)
				}
				if longest > 700*time.Millisecond {
					t.Errorf("300 spans took %v", longest)
				}
				began = time.Now()
				tracer.Close()
				if took := time.Since(began); took > 2500*time.Millisecond {
					t.Errorf("the end took %v", took)
				}
				if text := log.String(); strings.Count(text, "traces can't be sent") != 1 {
					t.Errorf("want one line that says so:\n%s", text)
				}
			})
		}
	}
}

// What comes is sent, as the environment says.
func TestFromEnvironment_Sends(t *testing.T) {
	c, log := collectors.Start(t, false), new(logged)
	tracer, err := from(t, log, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_SERVICE_NAME=hive", "OTEL_RESOURCE_ATTRIBUTES=stand=7")
	if err != nil {
		t.Fatal(err)
	}
	ctx, request := tracer.Serve(t.Context(), http.Header{}, "api")
	work(ctx, tracer, nil)
	request.End(nil)
	tracer.Close()
	spans, processes := c.Spans()
	if len(spans["work"]) != 1 || len(spans["api"]) != 1 || !strings.Contains(processes, "hive") || !strings.Contains(processes, "1.2.3") || !strings.Contains(processes, "stand") || strings.Contains(log.String(), "WARN") {
		t.Errorf("%v\n%s\n%s", spans, processes, log)
	}
}
