package liveness

import (
	"time"

	"skep/cluster"
)

const (
	// settleLeast and settleMost are how long a new leader waits before it misses a
	// session: the first if all managers that gossip sees have relayed theirs, the second
	// at most.
	settleLeast = 2 * RelayEvery
	settleMost  = 2 * time.Second
	// Confirm is how long a session must be gone before gossip's word that the node is
	// gone too is acted upon: long enough to be with another manager.
	Confirm = 300 * time.Millisecond
	// missAfter is how long a session must be gone until gossip probes the node at once:
	// a new leader knows of most sessions by then.
	missAfter = 100 * time.Millisecond
	// maxMissing is how many it probes: it takes few at once, and the rest are found by its
	// regular probes, which such trouble makes frequent.
	maxMissing = 16
	// DisconnectAfter is when a node without a session gets no new tasks.
	DisconnectAfter = 2 * time.Second
	// Grace is when a node without a session loses its tasks although gossip sees it, or
	// although its agent stopped in order.
	Grace = 10 * time.Second
	// massFailureWait is the grace when too many vanish at once.
	massFailureWait = 15 * time.Second
	// massFailureLeast is from how many lost nodes on the guard engages, if they are also
	// more than a third of all.
	massFailureLeast = 3
	// engineGrace is when a node whose engine is away loses its tasks: longer than an
	// engine takes to start again.
	engineGrace = 30 * time.Second
)

// Why a node isn't ready. The texts are stable, so that a state that lasts is
// written once.
const (
	MessageStopped     = "the agent stopped in order; its tasks are replaced if it is not back within 10s"
	MessageNoShow      = "the agent has no session with any manager yet"
	MessageSeen        = "no session with any manager, though gossip sees the node"
	MessageBlind       = "no session with any manager, and gossip can't tell"
	MessageSuspect     = "no session with any manager, and gossip can't reach the node"
	MessageDead        = "no session with any manager, and gossip lost the node"
	MessageHalted      = "the machine was stopped in order"
	MessageStayedAway  = "the agent stopped and did not come back"
	MessageEngine      = "the node's engine doesn't answer; its tasks are replaced if that lasts for 30s"
	MessageNoEngine    = cluster.MessageNoEngine
	MessageMassFailure = cluster.MessageMassFailure
)

// Change is the state that a node should have.
type Change struct {
	NodeID  string
	State   cluster.NodeState
	Message string
	// Came is set when the node has its first session.
	Came bool
}

// corroborated tells whether a majority of the managers, and one besides the leader,
// miss a node by their own gossip. None of them has a session of it either, so what
// separates it from all of them isn't a fault of the leader. When they have all just
// started they have never seen it: it may be starting, too.
func (in *Input) corroborated(o *Observation) bool {
	return !in.Cold && o.MissedBy > 1 && 2*o.MissedBy > in.Managers
}

// Settling tells whether there may be sessions that this new leader hasn't been told of.
func (in *Input) Settling() bool { return in.Unheard > 0 && in.Now.Sub(in.Started) < settleMost }

// look is a decision under way: it notes when something would be decided differently.
type look struct {
	*Input
	wake time.Time
}

// passed tells whether a time has come, and has Decide called again when it will.
func (l *look) passed(at time.Time) bool {
	if !at.After(l.Now) {
		return true
	}
	if l.wake.IsZero() || at.Before(l.wake) {
		l.wake = at
	}
	return false
}

// Decide says which nodes change their state, and when to look again if nothing happens
// until then; the zero time means never. It is pure.
func Decide(in Input) (changes []Change, wake time.Time) {
	l := &look{Input: &in}
	settled := l.passed(in.Started.Add(settleLeast)) && (in.Unheard == 0 || l.passed(in.Started.Add(settleMost)))
	guard := massFailure(&in)
	for i := range in.Nodes {
		o := &in.Nodes[i]
		want := Change{NodeID: o.NodeID, State: o.Status.State, Message: o.Status.Message, Came: o.Awaited && o.session()}
		switch {
		case o.session() && o.EngineLost.IsZero():
			want.State, want.Message = cluster.NodeReady, o.Warning
			if o.Copy.Run != "" {
				want.Message = copyMessage(o.Copy, o.Status.Addr)
			}
		case o.session() && (l.passed(o.EngineLost.Add(engineGrace)) || o.Status.State == cluster.NodeDown):
			want.State, want.Message = cluster.NodeDown, MessageNoEngine
		case o.session():
			want.State, want.Message = cluster.NodeDisconnected, MessageEngine
		case o.Status.State == cluster.NodeDown:
		case o.Stopped && o.Halting:
			want.State, want.Message = cluster.NodeDown, MessageHalted
		case o.Stopped && l.passed(o.Lost.Add(Grace)):
			want.State, want.Message = cluster.NodeDown, MessageStayedAway
		case o.Stopped:
			want.State, want.Message = cluster.NodeUnknown, MessageStopped
		case settled:
			l.withoutSession(o, guard && !in.corroborated(o), &want)
		}
		if want.State != o.Status.State || want.Message != o.Status.Message || want.Came {
			changes = append(changes, want)
		}
	}
	return changes, l.wake
}

// withoutSession decides on a node without a session whose agent didn't say that it stops.
func (l *look) withoutSession(o *Observation, guard bool, want *Change) {
	deadline, message := o.Lost.Add(Grace), MessageSeen
	sooner := func(gossip time.Time) {
		if at := latest(o.Lost.Add(Confirm), gossip); at.Before(deadline) {
			deadline = at
		}
	}
	switch {
	case o.Gossip == GossipNone, o.Gossip == GossipDead && o.GossipSince.Add(Grace).Before(o.Lost):
		// Gossip had lost this node long before its session ended, so its view says nothing
		// about this loss.
		message = MessageBlind
	case o.Gossip == GossipSuspect:
		message = MessageSuspect
		sooner(o.GossipSince.Add(l.SuspectAfter))
	case o.Gossip == GossipDead:
		message = MessageDead
		sooner(o.GossipSince)
	}
	if o.Status.State == cluster.NodeUnknown {
		// It joined and hasn't come yet, or it said to an earlier leader that it stops.
		deadline = o.Lost.Add(Grace)
		if o.Status.Message == MessageStopped {
			message = MessageStayedAway
		}
	}
	switch {
	case !l.passed(deadline):
		switch {
		case !l.passed(o.Lost.Add(DisconnectAfter)):
		case o.Status.State != cluster.NodeUnknown:
			want.State, want.Message = cluster.NodeDisconnected, message
		case want.Message == "":
			want.Message = MessageNoShow
		}
	case guard && !l.passed(o.Lost.Add(massFailureWait)):
		want.State, want.Message = cluster.NodeDisconnected, MessageMassFailure
	default:
		want.State, want.Message = cluster.NodeDown, message
	}
}

// Missing lists ready nodes without a session that gossip should probe at once, maxMissing
// at most, and when there may be more. A manager whose connection with an agent breaks has
// its gossip look there, but nobody does so for the sessions of a leader that is gone. It
// is pure.
func Missing(in Input) (nodeIDs []string, wake time.Time) {
	l := &look{Input: &in}
	for i := range in.Nodes {
		o := &in.Nodes[i]
		if o.session() || o.Stopped || o.Status.State != cluster.NodeReady {
			continue
		}
		if l.passed(o.Lost.Add(missAfter)) && len(nodeIDs) < maxMissing {
			nodeIDs = append(nodeIDs, o.NodeID)
		}
	}
	return nodeIDs, l.wake
}

// massFailure tells whether so many nodes are vanishing at once that the fault is
// more likely with the leader's network. Nodes that gossip just lost count
// before their sessions end, so that the first of many isn't decided on alone.
func massFailure(in *Input) bool {
	all, gone := 0, 0
	for i := range in.Nodes {
		o := &in.Nodes[i]
		down := o.Status.State == cluster.NodeDown && !o.session()
		since := in.Now.Sub(o.Status.Since)
		justDown := down && o.Status.Message != MessageStayedAway && o.Status.Message != MessageHalted && since >= 0 && since < massFailureWait
		switch {
		case o.Stopped && !o.session(), o.Status.State == cluster.NodeUnknown && !o.session():
			continue
		case justDown:
			gone++
		case down:
			continue
		case !o.session():
			gone++
		case (o.Gossip == GossipDead || o.Gossip == GossipSuspect) && in.Now.Sub(o.GossipSince) < massFailureWait:
			gone++
		}
		all++
	}
	return gone >= massFailureLeast && 3*gone > all
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
