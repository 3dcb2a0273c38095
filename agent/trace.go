package agent

import (
	"context"
	"errors"

	"skep/cluster"
	"skep/cluster/trace"
)

// errNotRun is all that a span says of a task that didn't come to run.
var errNotRun = errors.New("the task doesn't run")

// startTrace begins the span of a new task where managers say what it belongs to.
func (t *taskState) startTrace(tracer *trace.Tracer, traceparent string) {
	_, t.span = tracer.Start(trace.With(context.Background(), trace.At(traceparent)), "agent.task")
	t.span.Set(trace.Task, t.assignment.Task.ID)
	t.span.Set(trace.Service, t.assignment.Task.ServiceID)
}

// traceState takes in that the state is another one.
func (t *taskState) traceState() {
	state := t.status.State
	t.span.Event(state.String())
	switch {
	case state == cluster.StateRunning, state == cluster.StateComplete:
		t.endTrace(nil)
	case state > cluster.StateRunning:
		t.endTrace(errNotRun)
	}
}

// traceHealth takes in what follows a step: a container that was started and is waited for.
func (t *taskState) traceHealth(tracer *trace.Tracer, next Next) {
	waits := t.status.State == cluster.StateStarting && (next == Wait || t.status.Message == messageAwaited)
	if waits && t.health == nil {
		_, t.health = tracer.Start(trace.With(context.Background(), t.span), "agent.health")
	}
}

// stepsBelow is what a step's calls to the driver belong to. While health is waited for, they only look again.
func (t *taskState) stepsBelow() *trace.Span {
	if t.health != nil {
		return nil
	}
	return t.span
}

func (t *taskState) endTrace(err error) {
	if t.span == nil {
		return
	}
	t.health.End(err)
	t.span.Set(trace.State, t.status.State.String())
	t.span.End(err)
	t.span, t.health = nil, nil
}
