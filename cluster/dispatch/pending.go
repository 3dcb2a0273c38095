package dispatch

import (
	"time"

	"skep/cluster"
	"skep/store"
)

// pending is which objects a session's writer must read again: a dirty set, without their
// values. A nil one, of a node without a session, ignores what is added.
type pending struct {
	// full stands for all tasks and revisions.
	full      bool
	tasks     map[string]struct{}
	revisions map[revisionKey]struct{}
	// defaultsToo is for all revisions that are in use, since what completes them changed.
	defaultsToo bool
	// peersToo is for managers, gossip keys and the node's role.
	peersToo bool
	// networksToo is for the networks that the node hears of.
	networksToo bool
	// touch has an empty message sent, with the index that this replica has reached.
	touch bool
}

func (m *pending) task(id string) {
	if m == nil || m.full {
		return
	}
	if m.tasks == nil {
		m.tasks = make(map[string]struct{})
	}
	m.tasks[id] = struct{}{}
	m.limit()
}

func (m *pending) revision(key revisionKey) {
	if m == nil || m.full {
		return
	}
	if m.revisions == nil {
		m.revisions = make(map[revisionKey]struct{})
	}
	m.revisions[key] = struct{}{}
	m.limit()
}

func (m *pending) peers() {
	if m != nil {
		m.peersToo = true
	}
}

func (m *pending) networks() {
	if m != nil {
		m.networksToo = true
	}
}

func (m *pending) defaults() {
	if m != nil {
		m.defaultsToo = true
	}
}

func (m *pending) all() {
	if m != nil {
		m.full, m.tasks, m.revisions = true, nil, nil
	}
}

// limit keeps what waits for a slow agent bounded.
func (m *pending) limit() {
	if len(m.tasks)+len(m.revisions) > maxMarks {
		m.all()
	}
}

// join adds other to m.
func (m *pending) join(other *pending) {
	m.peersToo = m.peersToo || other.peersToo
	m.networksToo = m.networksToo || other.networksToo
	m.touch = m.touch || other.touch
	m.defaultsToo = m.defaultsToo || other.defaultsToo
	switch {
	case other.full:
		m.all()
	case m.full:
	case len(m.tasks)+len(m.revisions) == 0:
		m.tasks, m.revisions = other.tasks, other.revisions
	default:
		for id := range other.tasks {
			m.task(id)
		}
		for key := range other.revisions {
			m.revision(key)
		}
	}
}

// mark adds marks that were made up to view.
func (s *session) mark(view store.View, m *pending) {
	s.mu.Lock()
	if view.Index() > s.due.view.Index() {
		s.due.view, s.due.ahead = view, false
	}
	s.due.marks.join(m)
	if s.d.config.Metrics.Assign.Any() && s.due.since.IsZero() && len(m.tasks) > 0 {
		s.due.since = s.d.config.Now()
	}
	s.mu.Unlock()
	s.wakeWriter()
}

func (s *session) wakeWriter() { cluster.Notify(s.wake) }

// refuse ends the session, after sending the reason if the agent reads it. A nil session
// is a node without one.
func (s *session) refuse(r refusal) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.due.refused = &r
	s.mu.Unlock()
	s.wakeWriter()
	time.AfterFunc(refuseLimit, func() { s.cancel(cluster.ErrDenied) })
}

// grant sends the agent the lease that it asked for with this stamp. A nil
// session is a node that has gone elsewhere.
func (s *session) grant(lease int64) {
	if s == nil || lease == 0 {
		return
	}
	s.mu.Lock()
	s.due.lease = lease
	s.mu.Unlock()
	s.wakeWriter()
}

// take hands the writer all that is due.
func (s *session) take() outgoing {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.due
	s.due = outgoing{view: taken.view, ahead: taken.ahead}
	return taken
}
