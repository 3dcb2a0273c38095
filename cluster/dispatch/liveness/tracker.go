package liveness

import (
	"slices"
	"time"

	"skep/cluster"
)

// How often managers relay is what the times below are made of, so it is said here.
const (
	// RelayEvery is how often a manager relays that has no news, when nothing else tells
	// the leader that it is there.
	RelayEvery = 200 * time.Millisecond
	// RelaySlowly is how often when the leader has other contact with it.
	RelaySlowly = time.Second
	// RelayTimeout is how long the leader may take to commit and acknowledge a relay.
	RelayTimeout = 5 * time.Second
)

// StaleAfter is after what silence the sessions of a manager don't count any more.
const StaleAfter = 5 * RelayEvery

// staleRelay is after what silence they don't although there is other contact with the
// manager: a relay that takes its time is news that wait for the log.
const staleRelay = RelayTimeout + RelaySlowly

// Tracker remembers since when each signal is what it is: what managers relayed, and
// what gossip says of each node. One goroutine owns it.
type Tracker struct {
	started time.Time
	// stale is StaleAfter, or what Contacts was told.
	stale    time.Duration
	managers map[string]*manager
	nodes    map[string]*node
}

// manager is what a manager relayed last.
type manager struct {
	// relayed is when it last relayed, or was last answered; contact is when the leader
	// last had contact with it in any way.
	relayed, contact time.Time
	relay            cluster.Relay
}

// node is what is remembered of a node.
type node struct {
	Signals
	// runs are the node's, and when each was relayed. copySeen is when a copy of the node
	// was last refused, and copyAddr where.
	runs     map[string]span
	copySeen time.Time
	copyAddr string
}

// Signals are what speaks for or against a node, and since when.
type Signals struct {
	// Lost is since when no manager has a live session of the node, as far as this leader
	// knows; zero while one has.
	Lost time.Time
	// Stopped is set when the agent's last message was that it stops, or its node left gossip
	// without a session, and Halting beside it when the agent said that its machine stops, too.
	Stopped, Halting bool
	// Gossip is what the leader's own gossip says, and GossipSince since when.
	Gossip      Gossip
	GossipSince time.Time
	// EngineLost is since when a node with a session has no engine; zero while it has.
	EngineLost time.Time
}

// Gossip is what gossip says of a node.
type Gossip uint8

// What gossip can say.
const (
	GossipNone Gossip = iota // There is no gossip to ask.
	GossipAlive
	GossipSuspect
	GossipDead
	GossipLeft // It said that it goes.
)

// GossipOf is what gossip says of a node; nil members are no gossip.
func GossipOf(nodeID string, members map[string]cluster.Member) Gossip {
	if members == nil {
		return GossipNone
	}
	switch member, seen := members[nodeID]; {
	case !seen:
		return GossipDead
	case member.Left:
		return GossipLeft
	case member.Suspect:
		return GossipSuspect
	default:
		return GossipAlive
	}
}

// NewTracker makes the tracker of a leader that begins now.
func NewTracker(now time.Time) *Tracker {
	return &Tracker{started: now, stale: StaleAfter, managers: make(map[string]*manager), nodes: make(map[string]*node)}
}

// Relay takes in what a relay says about sessions and gossip, unless a later one of the
// same manager overtook it. It tells whether Decide may have something new to say.
func (t *Tracker) Relay(r cluster.Relay, now time.Time) bool {
	old := t.managers[r.Manager]
	if old != nil && old.relay.Epoch == r.Epoch && old.relay.Number > r.Number {
		return false
	}
	same := old != nil && old.relay.Epoch == r.Epoch && now.Sub(old.contact) < t.stale && sameSignals(old.relay, r) && len(r.Copies)+len(r.Stopped) == 0
	r.Nodes, r.Reports = nil, nil // They may be large, and are the batch's.
	t.managers[r.Manager] = &manager{relayed: now, contact: now, relay: r}
	for _, copy := range r.Copies {
		n := t.node(copy.NodeID, now)
		n.copySeen, n.copyAddr = now, copy.Addr
	}
	for _, nodeID := range r.Stopped {
		// One that is in a session, here or with another manager, has come back already;
		// Observe sees to that.
		n := t.node(nodeID, now)
		n.Stopped, n.Halting = true, slices.Contains(r.Halting, nodeID)
	}
	return !same
}

// sameSignals tells whether two relays of a manager say the same of sessions and gossip.
func sameSignals(a, b cluster.Relay) bool {
	return slices.Equal(a.Sessions, b.Sessions) && slices.Equal(a.EngineAway, b.EngineAway) && slices.Equal(a.Unseen, b.Unseen) &&
		slices.Equal(a.Runs, b.Runs) && slices.Equal(a.Warnings, b.Warnings)
}

// Acknowledged notes that a manager was there when its relay was acknowledged, which may
// be long after it came.
func (t *Tracker) Acknowledged(managerID string, now time.Time) {
	if m := t.managers[managerID]; m != nil {
		m.relayed, m.contact = now, now
	}
}

// Contacts notes when the leader last had contact with managers in other ways, and for
// how long contact keeps their sessions.
func (t *Tracker) Contacts(last func(managerID string) time.Time, limit time.Duration) {
	t.stale = limit
	for id, m := range t.managers {
		if at := last(id); at.After(m.contact) && at.Sub(m.relayed) < staleRelay {
			m.contact = at
		}
	}
}

func (t *Tracker) node(nodeID string, now time.Time) *node {
	n := t.nodes[nodeID]
	if n == nil {
		n = &node{Signals: Signals{Lost: now, GossipSince: now}}
		if now.Sub(t.started) < settleMost {
			n.Lost, n.GossipSince = t.started, t.started
		}
		t.nodes[nodeID] = n
	}
	return n
}

// Cluster is what the database and gossip say.
type Cluster struct {
	// Nodes are the records of all nodes.
	Nodes []*cluster.Node
	// ColdStart is when managers began after all of them had been off; zero if never.
	ColdStart time.Time
	// Members is the leader's own gossip, by node ID; nil when there is none.
	Members map[string]cluster.Member
	// SuspectAfter is how long gossip may suspect a node before that is as good as dead.
	SuspectAfter time.Duration
}

// Input is all that Decide goes by.
type Input struct {
	Now time.Time
	// Started is when this leader began.
	Started time.Time
	// Managers is how many there are, here or not; Unheard is how many of them may be alive
	// and haven't relayed yet.
	Managers, Unheard int
	// Cold is set for a while after all managers had been off.
	Cold         bool
	SuspectAfter time.Duration
	Nodes        []Observation
	// Sessions tells which manager has the session of each node that has one.
	Sessions map[string]string
	// StaleAt is when the sessions of some manager stop counting unless it relays or is in
	// contact; zero when no manager has relayed.
	StaleAt time.Time
}

// Observation is what the leader knows of one node.
type Observation struct {
	NodeID string
	Status cluster.NodeStatus
	// Awaited is set when the node has never had a session.
	Awaited bool
	// Copy is what the node's record says of a machine with its identity.
	Copy cluster.NodeCopy
	Signals
	// MissedBy is how many managers say now that their own gossip suspects or lost the node.
	MissedBy int
	// Warning is what the node's agent warns of.
	Warning string
}

// session tells whether some manager has a live session of the node.
func (o *Observation) session() bool { return o.Lost.IsZero() }

// Observe brings the signals up to now and joins them with the records.
func (t *Tracker) Observe(c Cluster, now time.Time) Input {
	in := Input{
		Now: now, Started: t.started, SuspectAfter: c.SuspectAfter, Cold: now.Before(c.ColdStart.Add(massFailureWait)),
		Nodes: make([]Observation, 0, len(c.Nodes)), Sessions: make(map[string]string, len(c.Nodes)),
	}
	records := make(map[string]bool) // of nodes that relayed: whether each is a manager
	for _, record := range c.Nodes {
		if record.ManagerAddr != "" {
			in.Managers++
		}
		if t.managers[record.ID] != nil {
			records[record.ID] = record.ManagerAddr != ""
		}
	}
	missedBy := make(map[string]int)
	engineAway := make(map[string]bool)
	for id, m := range t.managers {
		isManager, there := records[id]
		end := m.contact.Add(t.stale)
		if !end.After(now) {
			if !there {
				delete(t.managers, id)
			}
			continue
		}
		if in.StaleAt.IsZero() || end.Before(in.StaleAt) {
			in.StaleAt = end
		}
		for _, nodeID := range m.relay.Sessions {
			// While a node moves, two managers may have it: the last one that relayed knows best.
			if other := t.managers[in.Sessions[nodeID]]; other == nil || other.relayed.Before(m.relayed) {
				in.Sessions[nodeID] = id
			}
		}
		if isManager {
			for _, nodeID := range m.relay.Unseen {
				missedBy[nodeID]++
			}
		}
	}
	warnings := make(map[string]string)
	for id, m := range t.managers {
		t.noteRuns(m)
		for _, w := range m.relay.Warnings {
			if in.Sessions[w.NodeID] == id {
				warnings[w.NodeID] = w.Text
			}
		}
		for _, nodeID := range m.relay.EngineAway {
			if in.Sessions[nodeID] == id {
				engineAway[nodeID] = true
			}
		}
	}
	for _, record := range c.Nodes {
		n := t.node(record.ID, now)
		if said := GossipOf(record.ID, c.Members); said != n.Gossip {
			if n.Gossip != GossipNone || c.Members == nil {
				n.GossipSince = now // Not the first look, which has no before.
			}
			n.Gossip = said
		}
		switch away := engineAway[record.ID]; {
		case !away:
			n.EngineLost = time.Time{}
		case n.EngineLost.IsZero():
			n.EngineLost = now
		}
		switch _, session := in.Sessions[record.ID]; {
		case session:
			n.Lost, n.Stopped, n.Halting = time.Time{}, false, false
		case n.Lost.IsZero():
			n.Lost = now
		}
		// An agent that has no session can't say that it stops, but its node leaves gossip.
		if n.Gossip == GossipLeft && !n.Lost.IsZero() {
			n.Stopped = true
		}
		if record.ManagerAddr != "" && t.managers[record.ID] == nil && (n.Gossip == GossipAlive || n.Gossip == GossipNone) {
			in.Unheard++
		}
		in.Nodes = append(in.Nodes, Observation{
			NodeID: record.ID, Status: record.Status, Awaited: record.Awaited, Copy: record.Copy,
			Signals: n.Signals, MissedBy: missedBy[record.ID], Warning: warnings[record.ID],
		})
	}
	t.forget(c.Nodes)
	return in
}

// forget drops what is remembered of nodes that have no record.
func (t *Tracker) forget(records []*cluster.Node) {
	if len(t.nodes) <= len(records) {
		return
	}
	there := make(map[string]bool, len(records))
	for _, record := range records {
		there[record.ID] = true
	}
	for nodeID := range t.nodes {
		if !there[nodeID] {
			delete(t.nodes, nodeID)
		}
	}
}
