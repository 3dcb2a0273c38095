package agent

import (
	"time"

	"skep/cluster"
)

// firstLease is how long an agent that starts may take to get a lease before it
// stops the fenced tasks that it finds: a restart of the daemon shouldn't. It is
// well within what managers wait on top of a lease.
const firstLease = 2 * time.Second

// A fenced task may run on this node only while the node has a lease, which is
// counted by this node's clock from when it asked for it. Managers grant it only
// while they count on the node, so after they gave it up no lease is ever longer
// than cluster.FenceLease.

// leased tells whether the node has a lease.
func (s *taskSet) leased() bool { return s.agent.cfg.Now().Before(s.lease) }

// anyFenced tells whether some task needs a lease.
func (s *taskSet) anyFenced() bool {
	for _, t := range s.tasks {
		if t.needsLease() {
			return true
		}
	}
	return false
}

func (t *taskState) needsLease() bool {
	return t.assignment.Revision.Fenced() && !t.removing && !t.status.State.Terminal() && !over(t.assignment.Task)
}

// renew takes in a lease. Tasks that had to wait for one can go on.
func (s *taskSet) renew(until time.Time) {
	if s.closed || !until.After(s.lease) {
		return
	}
	before := s.leased()
	s.lease = until
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.expiry = time.AfterFunc(until.Sub(s.agent.cfg.Now()), func() {
		s.agent.post(func(s *taskSet) { s.expire() })
	})
	if before || !s.leased() {
		return
	}
	for taskID, t := range s.tasks {
		if t.needsLease() {
			s.schedule(taskID)
		}
	}
}

// expire has fenced tasks looked at when the lease is over; what is under way is
// called off.
func (s *taskSet) expire() {
	if s.leased() {
		return
	}
	for taskID, t := range s.tasks {
		if t.needsLease() && !t.fenced {
			s.agent.log.Warn("a fenced task may not run here any more", "task", taskID, "state", t.status.State.String())
			s.interrupt(taskID)
		}
	}
}

// disown stops all tasks: managers say that this machine is a copy of the node's, where
// they run. What comes later, when it isn't any more, are other tasks.
func (s *taskSet) disown() {
	for taskID, t := range s.tasks {
		if !t.removing && !t.disowned && !t.status.State.Terminal() {
			t.disowned = true
			s.agent.networksChanged()
			s.agent.log.Warn("a task may not run on a copy of its node's machine", "task", taskID, "state", t.status.State.String())
			s.interrupt(taskID)
		}
	}
}

// fence decides before each step whether a task may run, or start.
func (s *taskSet) fence(t *taskState) {
	if t.disowned {
		t.assignment.Disowned = true
		return
	}
	if !t.needsLease() {
		return
	}
	t.assignment.Held = !s.leased()
	t.fenced = t.fenced || t.assignment.Held && t.status.State >= cluster.StateStarting
	if t.assignment.Fenced != t.fenced {
		t.assignment.Fenced = t.fenced
		s.agent.networksChanged()
	}
}
