package dispatch

import (
	"slices"
	"time"

	"skep/cluster"
	"skep/store"
)

// staleAfter is after what silence the sessions of a manager don't count any more.
const staleAfter = 5 * relayEvery

// staleRelay is after what silence they don't although the manager answers otherwise: a
// relay that takes its time is news that wait for the log.
const staleRelay = relayLimit + relayCalm

// liveness is what the leader remembers of managers, sessions and gossip: since
// when each signal is what it is. It belongs to the collector.
type liveness struct {
	started time.Time
	// stale is staleAfter, or Config.HeardFor.
	stale    time.Duration
	managers map[string]*managerRecord
	nodes    map[string]*signal
}

// managerRecord is what a manager said last.
type managerRecord struct {
	at time.Time
	// alive is when the manager was last heard of, in whatever way.
	alive    time.Time
	epoch    string
	number   uint64
	sessions []string
	// engineAway are those of sessions whose engine is away.
	engineAway []string
	// unseen are the nodes that the manager's own gossip suspects or doesn't see.
	unseen []string
	// runs are those of the agents of sessions.
	runs []string
	// warnings are what they warn of.
	warnings []cluster.Warning
}

// signal is what is remembered of a node.
type signal struct {
	lost time.Time // Zero while there is a session.
	left bool
	// halting is set beside left when the node's machine stops.
	halting     bool
	gossip      gossipState
	gossipSince time.Time
	// engineLost is since when a node with a session has no engine; zero while it has.
	engineLost time.Time
	// runs are the node's, and when each was heard of. copySeen is when a copy of the node
	// was last turned away, and copyAddr where.
	runs     map[string]span
	copySeen time.Time
	copyAddr string
}

func newLiveness(now time.Time) *liveness {
	return &liveness{started: now, stale: staleAfter, managers: make(map[string]*managerRecord), nodes: make(map[string]*signal)}
}

// noteRelay takes in what a relay says about sessions, unless a later one of the same
// manager overtook it. It tells whether decideNodeStates should have a look.
func (l *liveness) noteRelay(r cluster.Relay, now time.Time) bool {
	old := l.managers[r.Manager]
	if old != nil && old.epoch == r.Epoch && old.number > r.Number {
		return false
	}
	same := old != nil && old.epoch == r.Epoch && now.Sub(old.alive) < l.stale && slices.Equal(old.sessions, r.Sessions) && slices.Equal(old.engineAway, r.EngineAway) && slices.Equal(old.unseen, r.Unseen)
	l.managers[r.Manager] = &managerRecord{at: now, alive: now, epoch: r.Epoch, number: r.Number, sessions: r.Sessions, engineAway: r.EngineAway, unseen: r.Unseen}
	same = same && slices.Equal(old.runs, r.Runs) && slices.Equal(old.warnings, r.Warnings) && len(r.Copies) == 0
	l.managers[r.Manager].runs, l.managers[r.Manager].warnings = r.Runs, r.Warnings
	for _, copy := range r.Copies {
		sig := l.signal(copy.NodeID, now)
		sig.copySeen, sig.copyAddr = now, copy.Addr
	}
	for _, nodeID := range r.Left {
		// Whoever is in a session, here or with another manager, has come back already;
		// observe sees to that.
		sig := l.signal(nodeID, now)
		sig.left, sig.halting = true, slices.Contains(r.Halting, nodeID)
	}
	return !same || len(r.Left) > 0
}

// heardAgain notes that a manager was there when its relay was acknowledged,
// which may be long after it came.
func (l *liveness) heardAgain(manager string, now time.Time) {
	if h := l.managers[manager]; h != nil {
		h.at, h.alive = now, now
	}
}

// noteContacts notes which managers were heard of otherwise since their last relays.
func (l *liveness) noteContacts(heard func(managerID string) time.Time, limit time.Duration) {
	l.stale = limit
	for id, h := range l.managers {
		if at := heard(id); at.After(h.alive) && at.Sub(h.at) < staleRelay {
			h.alive = at
		}
	}
}

func (l *liveness) signal(nodeID string, now time.Time) *signal {
	s := l.nodes[nodeID]
	if s == nil {
		s = &signal{lost: now, gossipSince: now}
		if now.Sub(l.started) < settleMost {
			s.lost, s.gossipSince = l.started, l.started
		}
		l.nodes[nodeID] = s
	}
	return s
}

// observe brings the memory up to now and gives the scene for decideNodeStates. Where tells
// which manager has the session of each node. Stale is when the sessions of
// some manager will stop counting unless it is heard of. Members is nil when
// there is no gossip.
func (l *liveness) observe(view store.View, members map[string]cluster.Member, now time.Time) (s livenessInput, where map[string]string, stale time.Time) {
	where = make(map[string]string)
	witnesses := make(map[string]int)
	for id, h := range l.managers {
		end := h.alive.Add(l.stale)
		if !end.After(now) {
			if view.Node(id) == nil {
				delete(l.managers, id)
			}
			continue
		}
		if stale.IsZero() || end.Before(stale) {
			stale = end
		}
		for _, nodeID := range h.sessions {
			// While a node moves, two managers may have it: the one heard of last knows best.
			if other := l.managers[where[nodeID]]; other == nil || other.at.Before(h.at) {
				where[nodeID] = id
			}
		}
		if node := view.Node(id); node != nil && node.ManagerAddr != "" {
			for _, nodeID := range h.unseen {
				witnesses[nodeID]++
			}
		}
	}
	warnings := map[string]string{}
	for id, h := range l.managers {
		l.noteRuns(h)
		for _, w := range h.warnings {
			if where[w.NodeID] == id {
				warnings[w.NodeID] = w.Text
			}
		}
	}
	s = livenessInput{now: now, started: l.started, cold: view.Cluster() != nil && now.Before(view.Cluster().ColdStart.Add(massFailureWait)), nodes: make([]observation, 0, view.NodeCount())}
	for node := range view.Nodes() {
		sig := l.signal(node.ID, now)
		if said := gossipStateOf(node.ID, members); said != sig.gossip {
			if sig.gossip != gossipNothing || members == nil {
				sig.gossipSince = now // Not the first look, which has no before.
			}
			sig.gossip = said
		}
		manager, session := where[node.ID]
		switch engineAway := session && slices.Contains(l.managers[manager].engineAway, node.ID); {
		case !engineAway:
			sig.engineLost = time.Time{}
		case sig.engineLost.IsZero():
			sig.engineLost = now
		}
		switch {
		case session:
			sig.lost, sig.left, sig.halting = time.Time{}, false, false
		case sig.lost.IsZero():
			sig.lost = now
		}
		if node.ManagerAddr != "" {
			s.managers++
		}
		if node.ManagerAddr != "" && l.managers[node.ID] == nil && (sig.gossip == rumourAlive || sig.gossip == gossipNothing) {
			s.unheard++
		}
		s.nodes = append(s.nodes, observation{
			nodeID: node.ID, status: node.Status, session: session,
			lost: sig.lost, left: sig.left, halting: sig.halting, gossip: sig.gossip, gossipSince: sig.gossipSince, engineLost: sig.engineLost,
			witnesses: witnesses[node.ID], awaited: node.Awaited, copy: node.Copy, warning: warnings[node.ID],
		})
	}
	if len(l.nodes) > len(s.nodes) {
		for nodeID := range l.nodes {
			if view.Node(nodeID) == nil {
				delete(l.nodes, nodeID)
			}
		}
	}
	return s, where, stale
}

func gossipStateOf(nodeID string, members map[string]cluster.Member) gossipState {
	if members == nil {
		return gossipNothing
	}
	switch member, seen := members[nodeID]; {
	case !seen:
		return gossipGone
	case member.Suspect:
		return gossipSuspect
	default:
		return rumourAlive
	}
}
