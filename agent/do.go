package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/cluster"
)

// The messages of a task's states, as Swarm has them.
const (
	messageAccepted  = "accepted"
	messagePreparing = "preparing"
	messagePrepared  = "prepared"
	messageStarting  = "starting"
	messageStarted   = "started"
	messageFinished  = "finished"
	messageShutdown  = "shutdown"
	// messageAwaited is of a program that doesn't listen yet.
	messageAwaited = "started, waiting until it listens at a published port"
	// messageUnhealthy marks a container that is to be stopped for its health.
	messageUnhealthy = cluster.MessageUnhealthy
)

// errUnhealthy ends a task whose health check failed for good, in the words that Docker has and
// tools look for.
const errUnhealthy = "dockerexec: unhealthy container"

// errFenced ends a fenced task on a node that managers may have given up.
const errFenced = "fence: the node's lease with the managers is over"

// errDisowned ends a task on a machine that is a copy of its node's.
const errDisowned = "this machine is a copy of the node's, which runs elsewhere"

// Next says what to do after a step.
type Next uint8

// Wait: nothing until the container or the assignment changes. Again: the next
// step is due. Retry: the same step is due again after a pause. Listen: it is due again when the
// program listens, or was waited for.
const (
	Wait Next = iota
	Again
	Retry
	Listen
)

// Do takes a task one step further: it makes at most one call to the driver and
// returns the status after it. It holds no state and starts nothing, so any step
// may be repeated after a crash: the driver takes over what is there.
//
// Errors before Starting reject the task, errors from there on fail it; the
// engine being away and calls that were cut off leave it where it is, with the
// reason. A task that must stop never ends before its container has.
func Do(ctx context.Context, driver Driver, a Assignment, status cluster.TaskStatus, now func() time.Time) (cluster.TaskStatus, Next) {
	if status.State.Terminal() {
		return status, Wait
	}
	if a.Task.Desired >= cluster.StateShutdown || a.Task.Status.State.Terminal() {
		if a.Draining {
			// Another look follows when it is over. One that has ended needs no moment more.
			if container, err := driver.Inspect(ctx, a.Task.ID); err == nil && container.Phase == Running {
				return status, Wait
			}
		}
		return stop(ctx, driver, a, status, now)
	}
	if a.Disowned {
		status, next := stop(ctx, driver, a, status, now)
		if status.State == cluster.StateShutdown {
			status.Err = errDisowned
		}
		return status, next
	}
	if a.Fenced {
		status, next := stop(ctx, driver, a, status, now)
		if status.State == cluster.StateShutdown {
			status.Err = errFenced
		}
		return status, next
	}
	if status.State > a.Task.Desired {
		return status, Wait
	}
	switch status.State {
	case cluster.StatePreparing:
		if a.Lack != "" {
			status.Err = a.Lack
			return status, Wait // Another look follows when the networks have changed.
		}
		container, err := driver.Prepare(ctx, a)
		if err != nil {
			return fail(ctx, status, err, now)
		}
		status.ContainerID = container.ID
		return reach(status, cluster.StateReady, messagePrepared, now), Again
	case cluster.StateStarting:
		if status.Message == messageUnhealthy {
			return stopUnhealthy(ctx, driver, a, status, now)
		}
		container, err := driver.Start(ctx, a.Task.ID)
		if err != nil {
			return fail(ctx, status, err, now)
		}
		return statusFromContainer(status, container, len(a.Await) > 0, now)
	case cluster.StateRunning:
		if status.Message == messageUnhealthy {
			return stopUnhealthy(ctx, driver, a, status, now)
		}
		container, err := driver.Inspect(ctx, a.Task.ID)
		if err != nil {
			return fail(ctx, status, err, now)
		}
		return statusFromContainer(status, container, false, now)
	}
	if status.State >= a.Task.Desired {
		return status, Wait
	}
	switch {
	case status.State < cluster.StateAccepted:
		return reach(status, cluster.StateAccepted, messageAccepted, now), Again
	case status.State < cluster.StatePreparing:
		return reach(status, cluster.StatePreparing, messagePreparing, now), Again
	case a.Held:
		return status, Wait
	default: // Ready
		return reach(status, cluster.StateStarting, messageStarting, now), Again
	}
}

// nonZeroExit is Docker's word for a task whose program failed.
func nonZeroExit(code int) string { return fmt.Sprintf("task: non-zero exit (%d)", code) }

// reach gives the status of a new state.
func reach(status cluster.TaskStatus, state cluster.State, message string, now func() time.Time) cluster.TaskStatus {
	status.State, status.Message, status.Err = state, message, ""
	status.Since = cluster.At(now())
	if state.Terminal() {
		status.Ports = ""
	}
	return status
}

// statusFromContainer says what a started container means for its task. With await, one without a health check is
// waited for until it listens.
func statusFromContainer(status cluster.TaskStatus, c Container, await bool, now func() time.Time) (cluster.TaskStatus, Next) {
	if c.ID != "" {
		status.ContainerID = c.ID
	}
	if c.PID != 0 {
		status.PID = int32(c.PID)
	}
	if c.Phase == Running {
		status.Ports = c.Ports
	}
	switch {
	case c.Phase == Exited && c.ExitCode != 0:
		status.ExitCode = int32(c.ExitCode)
		return end(status, nonZeroExit(c.ExitCode), now), Wait
	case c.Phase == Exited && status.State < cluster.StateRunning:
		// It did run: its start is worth a state of its own.
		return reach(status, cluster.StateRunning, messageStarted, now), Again
	case c.Phase == Exited:
		return reach(status, cluster.StateComplete, messageFinished, now), Wait
	case c.Phase == Created:
		return status, Retry
	case c.Health == HealthBad:
		status.Message, status.Err = messageUnhealthy, ""
		return status, Again
	case status.State < cluster.StateRunning && c.Health == HealthNone && await:
		status.Message, status.Err = messageAwaited, ""
		return status, Listen
	case status.State < cluster.StateRunning && c.Health != HealthStarting:
		return reach(status, cluster.StateRunning, messageStarted, now), Wait
	}
	status.Err = "" // whatever kept us from looking is over
	return status, Wait
}

// end gives the status of a task that came to a bad end in its present state.
func end(status cluster.TaskStatus, reason string, now func() time.Time) cluster.TaskStatus {
	state := cluster.StateFailed
	if status.State < cluster.StateStarting {
		state = cluster.StateRejected
	}
	status = reach(status, state, status.Message, now) // the message still says how far it came
	status.Err = reason
	return status
}

// fail takes in an error of the driver.
func fail(ctx context.Context, status cluster.TaskStatus, err error, now func() time.Time) (cluster.TaskStatus, Next) {
	if ctx.Err() != nil {
		return status, Retry // we were called off; the error says nothing of the task
	}
	if errors.Is(err, cluster.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		status.Err = err.Error()
		return status, Retry
	}
	return end(status, err.Error(), now), Wait
}

// stop ends a task on request. Nothing but an answer that the container has
// ended, or isn't there, lets the task end.
func stop(ctx context.Context, driver Driver, a Assignment, status cluster.TaskStatus, now func() time.Time) (cluster.TaskStatus, Next) {
	container, err := driver.Stop(ctx, a.Task.ID, a.Grace())
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		if ctx.Err() == nil {
			status.Err = err.Error()
		}
		return status, Retry
	}
	if managers := a.Task.Status; managers.State.Terminal() {
		// The managers hold the task for dead, and observed states never go back.
		if managers.ContainerID == "" {
			managers.ContainerID = status.ContainerID
		}
		return managers, Wait
	}
	if container.Phase == Exited {
		status.ExitCode = int32(container.ExitCode)
	}
	return reach(status, cluster.StateShutdown, messageShutdown, now), Wait
}

// stopUnhealthy ends a task whose health check failed.
func stopUnhealthy(ctx context.Context, driver Driver, a Assignment, status cluster.TaskStatus, now func() time.Time) (cluster.TaskStatus, Next) {
	container, err := driver.Stop(ctx, a.Task.ID, a.Grace())
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		if ctx.Err() == nil {
			status.Err = err.Error()
		}
		return status, Retry
	}
	if container.Phase == Exited {
		status.ExitCode = int32(container.ExitCode)
	}
	status.Message = messageStarted
	reason := errUnhealthy
	if status.ExitCode != 0 {
		reason = nonZeroExit(int(status.ExitCode)) + ": " + errUnhealthy
	}
	return end(status, reason, now), Wait
}
