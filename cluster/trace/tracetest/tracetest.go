// Package tracetest is a collector of traces over OTLP/gRPC, for tests of what sends them.
package tracetest

import (
	"context"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector keeps what it is sent.
type Collector struct {
	collector.UnimplementedTraceServiceServer
	// URL is where it listens.
	URL string
	// hang, when it isn't nil, is what an export waits for.
	hang chan struct{}

	mu    sync.Mutex // guards the fields below
	spans []*otlp.ResourceSpans
}

// Start starts a Collector, which ends with the test. One that hangs takes what it is sent, and doesn't answer.
func Start(t testing.TB, hangs bool) *Collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{URL: "http://" + listener.Addr().String()}
	if hangs {
		c.hang = make(chan struct{})
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // Stop ends it.
	}()
	t.Cleanup(func() {
		if c.hang != nil {
			close(c.hang)
		}
		server.Stop()
		<-served
	})
	return c
}

// Export is OTLP's.
func (c *Collector) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	c.spans = append(c.spans, request.ResourceSpans...)
	c.mu.Unlock()
	if c.hang != nil {
		<-c.hang
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// Spans are those that have come, by name, with what they say of their process.
func (c *Collector) Spans() (byName map[string][]*otlp.Span, processes string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byName = map[string][]*otlp.Span{}
	for _, of := range c.spans {
		processes += of.Resource.String()
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				byName[span.Name] = append(byName[span.Name], span)
			}
		}
	}
	return byName, processes
}
