package agent

import (
	"context"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
)

// Figures are how an agent is at a moment.
type Figures struct {
	// Session tells whether it has one, Engine whether its engine answers.
	Session, Engine bool
	// Tasks are the node's, by state.
	Tasks map[cluster.State]int
	// Fenced tells whether any of them needs a lease, and Lease how long the node's lasts.
	Fenced bool
	Lease  time.Duration
}

// Figures asks until ctx ends; ok is false when the agent doesn't run by then.
func (a *Agent) Figures(ctx context.Context) (f Figures, ok bool) {
	answer := make(chan Figures, 1)
	select {
	case a.calls <- func(s *taskSet) { answer <- s.figures() }:
		return <-answer, true
	case <-a.stopped:
	case <-ctx.Done():
	}
	return Figures{}, false
}

func (s *taskSet) figures() Figures {
	f := Figures{Session: s.outbox != nil, Engine: !s.engineAway(), Tasks: map[cluster.State]int{}, Fenced: s.anyFenced()}
	for _, t := range s.tasks {
		f.Tasks[t.status.State]++
	}
	f.Lease = max(s.lease.Sub(s.agent.cfg.Now()), 0)
	return f
}

// timedDriver is a Driver whose calls are measured.
type timedDriver struct {
	Driver
	metrics telemetry.Agent
	trace   *trace.Tracer
	now     func() time.Time
}

// timed is the driver itself where nothing is measured.
func timed(driver Driver, metrics telemetry.Agent, tracer *trace.Tracer, now func() time.Time) Driver {
	if !metrics.Calls.Any() && tracer == nil {
		return driver
	}
	return &timedDriver{driver, metrics, tracer, now}
}

// called counts a call that began then. One that was called off is no error, nor is the news that a
// container is gone; an image that isn't there is one.
func (d *timedDriver) called(ctx context.Context, call string, began time.Time, err error) {
	d.metrics.Calls.Of(call).Took(d.now().Sub(began))
	if err != nil && ctx.Err() == nil && (call == "create" || !isNotFound(err)) {
		d.metrics.Errors.Add(1, call)
	}
}

func (d *timedDriver) List(ctx context.Context, nodeID string) (list []Container, err error) {
	defer func(began time.Time) { d.called(ctx, "list", began, err) }(d.now())
	return d.Driver.List(ctx, nodeID)
}

func (d *timedDriver) Prepare(ctx context.Context, assignment Assignment) (c Container, err error) {
	ctx, span := d.trace.Start(ctx, "agent.prepare")
	defer func(began time.Time) { d.called(ctx, "create", began, err); span.End(err) }(d.now())
	return d.Driver.Prepare(ctx, assignment)
}

func (d *timedDriver) Start(ctx context.Context, taskID string) (c Container, err error) {
	ctx, span := d.trace.Start(ctx, "agent.start")
	defer func(began time.Time) { d.called(ctx, "start", began, err); span.End(err) }(d.now())
	return d.Driver.Start(ctx, taskID)
}

func (d *timedDriver) Inspect(ctx context.Context, taskID string) (c Container, err error) {
	defer func(began time.Time) { d.called(ctx, "inspect", began, err) }(d.now())
	return d.Driver.Inspect(ctx, taskID)
}

func (d *timedDriver) Stop(ctx context.Context, taskID string, grace time.Duration) (c Container, err error) {
	defer func(began time.Time) { d.called(ctx, "stop", began, err) }(d.now())
	return d.Driver.Stop(ctx, taskID, grace)
}

func (d *timedDriver) Remove(ctx context.Context, taskID string) (err error) {
	defer func(began time.Time) { d.called(ctx, "remove", began, err) }(d.now())
	return d.Driver.Remove(ctx, taskID)
}
