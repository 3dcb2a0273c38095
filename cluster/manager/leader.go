package manager

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/timeline"
)

// leader is who leads as far as this manager knows.
type leader struct {
	peer cluster.Peer
	// term is the term in which this manager leads and has begun a leader's work; 0
	// when it doesn't.
	term uint64
	// trouble says why this manager doesn't do a leader's work although raft says leader.
	trouble string
	// levelReason is why the level isn't raised though all nodes can.
	levelReason string
}

// leaderPatience is how long there may be no leader before that is said.
const leaderPatience = 5 * time.Second

// nameLimit is how long it may take until a leader's name is known: a manager that was just
// started has no database yet.
const nameLimit = 5 * time.Second

// nameOf is a node's host name, as far as this manager knows.
func (m *Manager) nameOf(nodeID string) string {
	if node := m.store.View().Node(nodeID); node != nil {
		return node.Description.Hostname
	}
	return ""
}

// watch keeps m.leader true to raft's state. Observations only wake it: it reads
// raft's state again each time. What raft becomes is counted in raft's own goroutine, when it
// asks whether that is to be observed: before it asks for votes.
func (m *Manager) watch(ctx context.Context) error {
	observations := make(chan raft.Observation, 64)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		switch data := o.Data.(type) {
		case raft.RaftState:
			m.elections.became(data, m.raft.CurrentTerm(), m.cfg.Now())
			return true
		case raft.LeaderObservation, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	m.raft.RegisterObserver(observer)
	defer m.raft.DeregisterObserver(observer)
	leaderless := cluster.Complaint{Log: m.log, Patience: leaderPatience, Now: m.cfg.Now}
	said, unnamed := "", time.Time{}
	for {
		addr, id, term := m.leaderInTerm()
		m.elections.leads(string(id), term, m.cfg.NodeID, m.cfg.Now())
		m.transport.Forget()
		m.setLeader(cluster.Peer{NodeID: string(id), Addr: m.transport.Addr(string(id), string(addr))})
		var missing error
		if id == "" {
			missing = cluster.ErrNoLeader
		}
		leaderless.About(missing, "there is no leader: nothing can be changed, what runs runs on", "there is a leader again", "node", m.cfg.NodeID)
		switch leader, name, now := string(id), m.nameOf(string(id)), m.cfg.Now(); {
		case leader == "" || leader == said || leader == m.cfg.NodeID: // Lead says the last.
			said, unnamed = cmp.Or(leader, said), time.Time{}
		case name == "" && unnamed.IsZero():
			unnamed = now
		case name != "" || now.Sub(unnamed) >= nameLimit:
			said, unnamed = leader, time.Time{}
			m.log.Info("another manager leads", "name", name, "node", leader, "addr", string(addr))
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case o := <-observations:
			m.timeline.Add(m.reachable.observe(o, m.cfg.Now()))
			m.mu.Lock()
			m.noticeLocked()
			m.mu.Unlock()
			if failed, is := o.Data.(raft.FailedHeartbeatObservation); is {
				m.cfg.Doubt(string(failed.PeerID))
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// leaderInTerm is who leads as far as raft knows, and in which term. Raft sets one after the other.
func (m *Manager) leaderInTerm() (addr raft.ServerAddress, id raft.ServerID, term uint64) {
	for {
		term = m.raft.CurrentTerm()
		if addr, id = m.raft.LeaderWithID(); m.raft.CurrentTerm() == term {
			return addr, id, term
		}
	}
}

func (m *Manager) setLeader(peer cluster.Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if peer.NodeID != "" && peer.NodeID != m.cfg.NodeID {
		m.warm = true
	}
	if m.leader.peer != peer {
		m.leader.peer = peer
		m.announceLocked()
	}
}

func (m *Manager) setEstablished(term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if term != 0 {
		m.leader.trouble = ""
	}
	if m.leader.term != term {
		m.leader.term = term
		m.announceLocked()
	}
}

// setTrouble tells whether the reason is another one than before.
func (m *Manager) setTrouble(reason string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := m.leader.trouble != reason
	m.leader.trouble = reason
	return fresh
}

// Trouble says why this manager does no leader's work although raft says that it
// leads; empty when all is well.
func (m *Manager) Trouble() string {
	if m.leadsTerm() == 0 {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader.trouble
}

func (m *Manager) announceLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
	m.noticeLocked()
}

func (m *Manager) noticeLocked() {
	close(m.noticed)
	m.noticed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change of what LeaderID or
// Reachable says.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.noticed
}

// LeaderChanged returns a channel that is closed at the next change of what
// Leader says.
func (m *Manager) LeaderChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// leads tells who leads now. A manager that was elected but hasn't begun a
// leader's work counts as nobody.
func (m *Manager) leads() (peer cluster.Peer, self, ok bool, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	self = m.leader.term != 0
	if self {
		return cluster.Peer{NodeID: m.cfg.NodeID, Addr: m.cfg.Addr}, true, true, m.changed
	}
	other := m.leader.peer.NodeID != "" && m.leader.peer.NodeID != m.cfg.NodeID
	return m.leader.peer, false, other, m.changed
}

func (m *Manager) dispatchLeader() (cluster.Peer, bool, bool) {
	peer, self, ok, _ := m.leads()
	return peer, self, ok
}

// Leader tells who leads, and whether it is this manager; it waits for a leader
// until ctx ends, then fails with ErrNoLeader.
func (m *Manager) Leader(ctx context.Context) (peer cluster.Peer, self bool, err error) {
	for {
		peer, self, ok, changed := m.leads()
		if ok {
			return peer, self, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return cluster.Peer{}, false, fmt.Errorf("find the leader: %w", cluster.ErrNoLeader)
		}
	}
}

// LeaderID is the leader's node ID; empty when there is none.
func (m *Manager) LeaderID() string {
	peer, _, ok, _ := m.leads()
	if !ok {
		return ""
	}
	return peer.NodeID
}

// reachability is which managers don't answer the leader's heartbeats, and when they answered last.
type reachability struct {
	mu     sync.Mutex // guards failed
	failed map[string]time.Time
}

func newReachability() *reachability { return &reachability{failed: map[string]time.Time{}} }

func (r *reachability) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.failed)
}

// observe takes in what raft tells, and gives what is new in it, if anything is.
func (r *reachability) observe(o raft.Observation, now time.Time) timeline.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	record := timeline.Record{Time: now}
	switch data := o.Data.(type) {
	case raft.FailedHeartbeatObservation:
		if _, known := r.failed[string(data.PeerID)]; known {
			break
		}
		r.failed[string(data.PeerID)] = now
		if silence := time.Since(data.LastContact); !data.LastContact.IsZero() {
			r.failed[string(data.PeerID)], record.Took = now.Add(-silence), silence
		}
		record.Kind, record.Node = timeline.Lost, string(data.PeerID)
	case raft.ResumedHeartbeatObservation:
		heard, known := r.failed[string(data.PeerID)]
		if !known {
			break
		}
		delete(r.failed, string(data.PeerID))
		record.Kind, record.Node, record.Took = timeline.Found, string(data.PeerID), now.Sub(heard)
	}
	return record
}

func (r *reachability) fails(nodeID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, failed := r.failed[nodeID]
	return failed
}

// Reachable tells of each voter whether it answers the leader.
func (m *Manager) Reachable() map[string]bool {
	reachable := map[string]bool{}
	for _, server := range m.servers() {
		if server.Suffrage != raft.Voter {
			continue
		}
		reachable[string(server.ID)] = !m.reachable.fails(string(server.ID))
	}
	return reachable
}

// CanLose tells whether the managers keep a quorum of reachable voters without
// the given one.
func (m *Manager) CanLose(nodeID string) error {
	reachable := m.Reachable()
	if _, votes := reachable[nodeID]; !votes {
		return nil
	}
	delete(reachable, nodeID)
	answer := 0
	for _, ok := range reachable {
		if ok {
			answer++
		}
	}
	if need := len(reachable)/2 + 1; answer < need {
		return cluster.Errorf(cluster.ErrPrecondition, "lose manager %s: it would result in a loss of quorum: of the %d managers left %d answer, %d are needed", nodeID, len(reachable), answer, need)
	}
	return nil
}
