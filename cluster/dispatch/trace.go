package dispatch

import (
	"context"
	"net/http"
	"sync"
	"time"

	"skep/cluster"
	"skep/cluster/trace"
)

const (
	// originTimeout is how long another manager may take to be told an origin, and maxSharing how many
	// of these messages may be under way.
	originTimeout = time.Second
	maxSharing    = 64
	maxOriginBody = 1 << 10
)

// shareOrigins tells the other managers the origins that this one notes, which leads then, until ctx ends. Nobody is
// waited for, nor told twice.
func (d *Dispatcher) shareOrigins(ctx context.Context) error {
	var sharing sync.WaitGroup
	defer sharing.Wait()
	places := make(chan struct{}, maxSharing)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case origin := <-d.config.Trace.Fresh():
			d.mu.Lock()
			managers := d.managers
			d.mu.Unlock()
			for _, peer := range managers {
				if peer.NodeID == d.config.NodeID || len(places) == cap(places) {
					continue
				}
				places <- struct{}{}
				sharing.Go(func() {
					defer func() { <-places }()
					ctx, cancel := context.WithTimeout(ctx, originTimeout)
					defer cancel()
					if err := d.post(ctx, peer, "/v1/origin", cluster.Traces{origin.ServiceID: origin.Traceparent}, nil); err != nil {
						d.config.Log.Debug("a manager's part of a trace will be missing", "node", peer.NodeID, "err", err)
					}
				})
			}
		}
	}
}

func (d *Dispatcher) serveOrigin(w http.ResponseWriter, r *http.Request) {
	var traces cluster.Traces
	if !readBody(w, r, maxOriginBody, &traces) {
		return
	}
	for serviceID, traceparent := range traces {
		d.config.Trace.TakeOrigin(trace.Origin{ServiceID: serviceID, Traceparent: traceparent})
	}
	w.WriteHeader(http.StatusNoContent)
}

// traceTasks begins the span of a message with new tasks of services that have an origin, and puts it in.
func (s *session) traceTasks(a *cluster.Assignments) *trace.Span {
	tracer := s.d.config.Trace
	if tracer == nil || a == nil {
		return nil
	}
	origins, all, tasks := map[string]*trace.Span{}, []*trace.Span(nil), 0
	for _, task := range a.Tasks {
		if task.Status.State > cluster.StateAssigned {
			continue
		}
		of, known := origins[task.ServiceID]
		if !known {
			of = tracer.Origin(task.ServiceID)
			origins[task.ServiceID] = of
			all = append(all, of)
		}
		if of != nil {
			tasks++
		}
	}
	_, span := tracer.Start(trace.With(s.ctx, trace.Join(all)), "dispatch.send")
	if span == nil {
		return nil
	}
	span.Set(trace.Peer, s.nodeID)
	span.SetNumber(trace.Tasks, tasks)
	span.SetNumber(trace.SessionAge, int(s.d.config.Now().Sub(s.opened).Milliseconds()))
	a.Traces = cluster.Traces{}
	for serviceID, of := range origins {
		if traceparent := span.TraceparentFor(of); traceparent != "" {
			a.Traces[serviceID] = traceparent
		}
	}
	return span
}

// checkTrace is what an agent says of a trace, if that is the one that its task belongs to.
func (s *session) checkTrace(traceparent string, task *cluster.Task) string {
	tracer := s.d.config.Trace
	if traceparent == "" || tracer == nil || task == nil {
		return ""
	}
	return trace.At(traceparent).TraceparentFor(tracer.Origin(task.ServiceID))
}

// spanOf is where what is done with reports belongs.
func (d *Dispatcher) spanOf(reports []cluster.NodeReport) *trace.Span {
	if d.config.Trace == nil {
		return nil
	}
	var all []*trace.Span
	for _, r := range reports {
		all = append(all, trace.At(r.Report.Traceparent))
	}
	return trace.Join(all)
}

// traceRelay begins the span of a relay, and puts it into the reports.
func (d *Dispatcher) traceRelay(ctx context.Context, relay *cluster.Relay) *trace.Span {
	_, span := d.config.Trace.Start(trace.With(ctx, d.spanOf(relay.Reports)), "relay.leader")
	if span == nil {
		return nil
	}
	for i, r := range relay.Reports {
		relay.Reports[i].Report.Traceparent = span.TraceparentFor(trace.At(r.Report.Traceparent))
	}
	return span
}
