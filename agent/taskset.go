package agent

import (
	"context"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/trace"
)

// Steps that must be tried again wait from retryFirst to retryLast in between,
// doubling. An event of the container or of the engine cuts the wait short.
const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
)

// errNoRevision is what keeps a task that was assigned before its revision came.
const errNoRevision = "waiting for what the task is to run"

// taskSet is the tasks of the node and all that belongs to them. The goroutine hold
// owns it; nobody else touches it, so there is no lock.
type taskSet struct {
	agent *Agent
	tasks map[string]*taskState
	// revisions are those of the tasks, and those that the present session sent: a
	// manager sends each once per session.
	revisions map[string]*cluster.Revision
	// secrets and configs are what the present session, or the last one, sent for the
	// tasks, by ID; nil stands for one that was removed. They are in memory only: after
	// a restart, what is yet to be prepared waits for a manager.
	secrets map[string]*cluster.Secret
	configs map[string]*cluster.Config
	// newest is the highest log index that anything the agent was told stems from.
	newest uint64
	// full is set once a manager has told the complete set: from then on, unknown
	// containers are strangers.
	full bool
	// unknown are containers of this node that no task is known for, until full.
	unknown map[string]bool

	// sameMachine is set when the machine hasn't started anew since the record was written:
	// only then can fenced tasks have run on.
	sameMachine bool
	// networks are what managers told of networks, and what the node has of them.
	networks    networkSet
	described   bool
	description swarm.NodeDescription
	// engine is what the engine calls itself; "" for one that has no name.
	engine string
	// outbox is the present session's; nil when there is none.
	outbox *outbox
	// watching is set while the driver's events come in; eventsLost when they haven't for
	// some time, and describeFailed when the driver can't describe the machine.
	watching, eventsLost, describeFailed bool
	// lease is until when managers count on this node to run its fenced tasks; expiry
	// ends it.
	lease  time.Time
	expiry *time.Timer
	// changed are closed at news of a task, for log requests that wait.
	changed map[string]chan struct{}

	// touching is set while the record is to be written for what managers told of networks.
	touching bool

	closed bool
	steps  sync.WaitGroup
}

// taskState is one task of the set.
type taskState struct {
	assignment Assignment
	status     cluster.TaskStatus
	// removing means: stop it, remove its container, forget it, report nothing.
	removing bool
	// tidied means: it is to be removed and has ended, and so is its container gone; its
	// record stays for a while, for its addresses.
	tidied bool
	// fenced means: stop it, since the lease was over while it may have run. What was
	// begun to stop isn't taken back.
	fenced bool
	// disowned is the same for a machine that is a copy of the node's.
	disowned bool
	// stepping is set while a goroutine is at it; again asks for another look after
	// that, and cancel calls it off.
	stepping, again bool
	cancel          context.CancelFunc
	// span is from when the task was new to when it runs or has ended; health is the part of it in which it isn't known
	// yet to be of use. They are nil without a trace.
	span, health *trace.Span
	// attached are the places in networks that its container has.
	attached []cluster.Address
	// draining is set while the task is to stop and others may still send it something new.
	draining bool
	// retry is the timer of the next attempt and attempts how many there were.
	retry    *time.Timer
	attempts int
}

// newTaskSet returns the set as it was remembered.
func newTaskSet(a *Agent, remembered *remembered) *taskSet {
	s := &taskSet{
		agent:       a,
		tasks:       make(map[string]*taskState),
		revisions:   make(map[string]*cluster.Revision),
		secrets:     make(map[string]*cluster.Secret),
		configs:     make(map[string]*cluster.Config),
		newest:      remembered.Newest,
		unknown:     make(map[string]bool),
		changed:     make(map[string]chan struct{}),
		described:   remembered.Described,
		description: remembered.Description,
		engine:      remembered.Engine,
		sameMachine: remembered.Machine == a.machine(),
		networks:    newNetworkSet(remembered),
	}
	for _, revision := range remembered.Revisions {
		s.revisions[cluster.RevisionID(revision.ServiceID, revision.Number)] = revision
	}
	for _, known := range remembered.Tasks {
		s.tasks[known.Task.ID] = &taskState{
			assignment: s.assignment(known.Task),
			status:     known.Status,
			removing:   known.Removing,
			attached:   known.Attached,
		}
	}
	return s
}

// begin looks at all remembered tasks.
func (s *taskSet) begin() {
	s.networksNews()
	first := s.agent.cfg.Now()
	if s.sameMachine {
		first = first.Add(firstLease)
	}
	s.renew(first)
	for taskID := range s.tasks {
		s.schedule(taskID)
	}
}

// close stops all work: no step begins any more.
func (s *taskSet) close() {
	s.closed = true
	s.expiry.Stop()
	for _, t := range s.tasks {
		t.endTrace(errNotRun)
		if t.retry != nil {
			t.retry.Stop()
		}
		if t.cancel != nil {
			t.cancel()
		}
	}
}

// assignment puts together what is needed to run task.
func (s *taskSet) assignment(task *cluster.Task) Assignment {
	return Assignment{
		Task:     task,
		Revision: s.revisions[cluster.RevisionID(task.ServiceID, task.Revision)],
		Hostname: s.description.Hostname,
	}
}

// schedule has a task looked at: now, or as soon as the step that is under way ends.
func (s *taskSet) schedule(taskID string) {
	t := s.tasks[taskID]
	if t == nil || s.closed {
		return
	}
	if t.stepping {
		t.again = true
		return
	}
	tidies := t.over() && !t.removing && !t.tidied
	if t.status.State.Terminal() && !t.removing && !tidies {
		return
	}
	if t.retry != nil {
		t.retry.Stop()
		t.retry = nil
	}
	if t.assignment.Revision == nil && !t.removing && !over(t.assignment.Task) {
		if status := t.status; status.Err == "" {
			status.Err = errNoRevision
			s.setStatus(t, status)
		}
		return // learn pokes again
	}
	t.assignment.Hostname = s.description.Hostname
	ctx, cancel := context.WithCancel(trace.With(context.Background(), t.stepsBelow()))
	t.stepping, t.again, t.cancel = true, false, cancel
	s.fence(t)
	assignment, status, removing := t.assignment, t.status, t.removing
	if status.State < cluster.StateReady && !removing {
		s.attachSecrets(&assignment) // and nothing else of the task, so that what is dropped is gone
	}
	if !removing {
		s.attachNetworks(t, &assignment)
		assignment.Draining = t.draining && !t.fenced && !t.disowned
	}
	s.steps.Go(func() {
		defer cancel()
		switch {
		case removing:
			s.agent.clear(ctx, assignment, status)
		case tidies:
			s.agent.tidy(ctx, taskID)
		default:
			s.agent.step(ctx, assignment, status)
		}
	})
}

// over tells whether the task has ended and is to be removed: nobody can ask for its log any more.
func (t *taskState) over() bool {
	return t.status.State.Terminal() && t.assignment.Task.Desired >= cluster.StateRemove
}

// interrupt has a task looked at, and calls off the step that is under way.
func (s *taskSet) interrupt(taskID string) {
	if t := s.tasks[taskID]; t != nil && t.stepping {
		t.cancel()
	}
	s.schedule(taskID)
}

// stepped takes in the result of a step. Last says that its goroutine ends.
func (s *taskSet) stepped(taskID string, status cluster.TaskStatus, next Next, last bool) {
	t := s.tasks[taskID]
	if t == nil {
		return
	}
	if status.State > t.status.State {
		t.attempts = 0
	}
	if status != t.status {
		s.setStatus(t, status)
	}
	t.traceHealth(s.agent.cfg.Trace, next)
	if !last {
		return
	}
	t.stepping, t.cancel = false, nil
	switch {
	case t.again || next == Again || t.over():
		s.schedule(taskID)
	case next == Retry:
		s.retryLater(t)
	default:
		t.attempts = 0
	}
}

// setStatus takes in a new status of a task and passes it on.
func (s *taskSet) setStatus(t *taskState, status cluster.TaskStatus) {
	task := t.assignment.Task
	if status.State != t.status.State {
		s.agent.log.Debug("task changed", "task", task.ID, "service", task.ServiceID,
			"state", status.State.String(), "error", status.Err)
	}
	networks := len(task.Addresses) > 0 && (status.State != t.status.State || status.Message != t.status.Message)
	traceparent, before := t.span.Traceparent(), t.status.State
	t.status = status
	if status.State != before {
		t.traceState()
	}
	if networks {
		s.agent.networksChanged()
	}
	if s.outbox != nil && !t.removing {
		s.outbox.report(cluster.Report{TaskID: task.ID, Status: status, Traceparent: traceparent})
	}
	s.wake(task.ID)
	s.agent.touch()
}

// retryLater has the same step tried again after a pause.
func (s *taskSet) retryLater(t *taskState) {
	if s.closed {
		return
	}
	delay := min(retryFirst<<min(t.attempts, 10), retryLast)
	t.attempts++
	taskID := t.assignment.Task.ID
	t.retry = time.AfterFunc(s.agent.jitter(delay), func() {
		s.agent.post(func(s *taskSet) { s.schedule(taskID) })
	})
}

// cleared takes in the end of an attempt to remove a task's container.
func (s *taskSet) cleared(taskID string, err error) {
	t := s.tasks[taskID]
	if t == nil {
		return
	}
	t.stepping, t.cancel = false, nil
	if !s.removed(t, err) {
		return
	}
	delete(s.tasks, taskID)
	s.agent.networksChanged()
	s.wake(taskID)
	s.agent.touch()
}

// tidied takes in the end of an attempt to remove the container of a task whose record stays.
func (s *taskSet) tidied(taskID string, err error) {
	t := s.tasks[taskID]
	if t == nil {
		return
	}
	t.stepping, t.cancel = false, nil
	if t.again {
		s.schedule(taskID) // The record is gone by now, mostly.
		return
	}
	if s.removed(t, err) {
		t.tidied, t.attempts = true, 0
		s.wake(taskID)
	}
}

// removed tells whether a container is gone; else that is tried again.
func (s *taskSet) removed(t *taskState, err error) bool {
	if err == nil {
		return true
	}
	if !s.closed {
		s.agent.log.Warn("removing a container will be tried again", "task", t.assignment.Task.ID, "error", err)
	}
	s.retryLater(t)
	return false
}

// step takes one task through its steps until there is nothing to do, or it is
// called off. Only statuses that precede a driver call, and final ones, are reported.
func (a *Agent) step(ctx context.Context, assignment Assignment, status cluster.TaskStatus) {
	taskID := assignment.Task.ID
	next, reported := Again, status
	unconnected := a.reconnect(ctx, assignment)
	for next == Again && ctx.Err() == nil {
		if callsDriver(status) && status != reported {
			reported = status
			passed := status
			a.post(func(s *taskSet) { s.stepped(taskID, passed, Again, false) })
		}
		before := status
		status, next = Do(ctx, a.driver, assignment, status, a.cfg.Now)
		if before.State < cluster.StateReady && status.State == cluster.StateReady {
			a.post(func(s *taskSet) { s.attached(taskID, assignment.Task.Addresses) })
		}
		if next == Listen {
			shown := status
			a.post(func(s *taskSet) { s.stepped(taskID, shown, Again, false) })
			reported, next = shown, Retry
			if a.awaitListening(ctx, int(status.PID), assignment.Await) {
				assignment.Await, next = nil, Again
			}
		}
	}
	if unconnected != "" && !status.State.Terminal() {
		status.Err, next = unconnected, Retry
	}
	a.post(func(s *taskSet) { s.stepped(taskID, status, next, true) })
}

// callsDriver tells whether the next step in this state calls the driver.
func callsDriver(status cluster.TaskStatus) bool {
	switch status.State {
	case cluster.StatePreparing, cluster.StateStarting, cluster.StateRunning:
		return true
	}
	return false
}

// tidy removes the container of a task that has ended, before its record is gone.
func (a *Agent) tidy(ctx context.Context, taskID string) {
	err := a.driver.Remove(ctx, taskID)
	a.post(func(s *taskSet) { s.tidied(taskID, err) })
}

// clear stops and removes the container of a task that is no more.
func (a *Agent) clear(ctx context.Context, assignment Assignment, status cluster.TaskStatus) {
	taskID := assignment.Task.ID
	err := error(nil)
	if !status.State.Terminal() {
		_, err = a.driver.Stop(ctx, taskID, assignment.Grace())
	}
	if err == nil || isNotFound(err) {
		err = a.driver.Remove(ctx, taskID)
	}
	a.post(func(s *taskSet) { s.cleared(taskID, err) })
}
