package dispatch

import (
	"time"

	"skep/cluster"
)

const (
	// settleLeast and settleMost are how long a new leader waits before it misses a
	// session: the first if all managers that gossip sees have told of theirs, the
	// second at most.
	settleLeast = 2 * relayEvery
	settleMost  = 2 * time.Second
	// confirm is how long a session must be gone before gossip's word that the node is
	// gone too is acted upon: long enough to be with another manager.
	confirm = 300 * time.Millisecond
	// missAfter is how long a session must be gone until gossip looks after the node at once:
	// a new leader has heard of most sessions by then.
	missAfter = 100 * time.Millisecond
	// maxSought is how many it looks after: it takes few at once, and the rest are found by
	// its probes, which such trouble makes frequent.
	maxSought = 16
	// disconnectAfter is when a node without a session gets no new tasks.
	disconnectAfter = 2 * time.Second
	// grace is when a node without a session loses its tasks although gossip sees it, or
	// although its agent stopped in order.
	grace = 10 * time.Second
	// massFailureWait is the grace when too many vanish at once.
	massFailureWait = 15 * time.Second
	// massFailureLeast is how many nodes are always allowed to vanish at once, plus one.
	massFailureLeast = 3
	// engineGrace is when a node whose engine is away loses its tasks: longer than an
	// engine takes to start again.
	engineGrace = 30 * time.Second
)

// Why a node isn't ready. The texts are stable, so that a state that lasts is
// written once.
const (
	messageStopped  = "the agent stopped in order; its tasks are replaced if it is not back within 10s"
	messageNoShow   = "the agent has no session with any manager yet"
	messageSeen     = "no session with any manager, though gossip sees the node"
	messageBlind    = "no session with any manager, and gossip can't tell"
	messageFading   = "no session with any manager, and gossip can't reach the node"
	messageLost     = "no session with any manager, and gossip lost the node"
	messageHalted   = "the machine was stopped in order"
	messageAway     = "the agent stopped and did not come back"
	messageEngine   = "the node's engine doesn't answer; its tasks are replaced if that lasts for 30s"
	messageNoEngine = cluster.MessageNoEngine
	messageBrake    = "no session with any manager; more than a third of the nodes vanished at once, so its tasks are left alone for 15s"
)

// gossipState is what gossip says of a node.
type gossipState uint8

const (
	gossipNothing gossipState = iota // There is no gossip to ask.
	rumourAlive
	gossipSuspect
	gossipGone
)

// observation is what the leader knows of one node.
type observation struct {
	nodeID string
	status cluster.NodeStatus
	// session is set when some manager has a live session of the node; lost is since
	// when none has, as far as this leader knows.
	session bool
	lost    time.Time
	// left is set when the agent's last word was that it stops.
	left bool
	// halting is set beside left when its machine stops.
	halting bool
	// gossip is gossip's, and gossipSince is since when.
	gossip      gossipState
	gossipSince time.Time
	// engineLost is since when a node with a session has no engine; zero while it has.
	engineLost time.Time
	// witnesses is how many managers say now that their own gossip misses the node.
	witnesses int
	// awaited is set when the node has never had a session.
	awaited bool
	// copy is what the node's record says of a machine with its identity.
	copy cluster.NodeCopy
	// warning is what the node's agent warns of.
	warning string
}

// livenessInput is all that decideNodeStates goes by.
type livenessInput struct {
	now time.Time
	// started is when this leader began; unheard is how many managers that may be
	// alive haven't told it of their sessions yet.
	started time.Time
	unheard int
	// suspectLong is Config.SuspectLong.
	suspectLong time.Duration
	// managers is how many there are, here or not.
	managers int
	// cold is set for a while after all managers had been off.
	cold  bool
	nodes []observation
}

// corroborated tells whether a majority of the managers, and one besides the leader,
// miss a node by their own gossip. None of them has a session of it either, so what
// separates it from all of them isn't a fault of the leader. When they have all just
// started they have never seen it: it may be starting, too.
func (s *livenessInput) corroborated(n observation) bool {
	return !s.cold && n.witnesses > 1 && 2*n.witnesses > s.managers
}

// stateChange is the state that a node should have.
type stateChange struct {
	nodeID  string
	state   cluster.NodeState
	message string
	// came is set when the node has its first session.
	came bool
}

// decideNodeStates decides which nodes change their state, and when to look again if
// nothing happens until then; the zero time means never. It is pure.
func decideNodeStates(s livenessInput) (verdicts []stateChange, wake time.Time) {
	later := func(t time.Time) {
		if t.After(s.now) && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	passed := func(t time.Time) bool {
		later(t)
		return !t.After(s.now)
	}
	settled := passed(s.started.Add(settleLeast)) && (s.unheard == 0 || passed(s.started.Add(settleMost)))
	brake := massFailure(s)
	for _, n := range s.nodes {
		want := stateChange{nodeID: n.nodeID, state: n.status.State, message: n.status.Message, came: n.awaited && n.session}
		switch {
		case n.session && n.engineLost.IsZero():
			want.state, want.message = cluster.NodeReady, n.warning
			if n.copy.Run != "" {
				want.message = messageCopy(n.copy, n.status.Addr)
			}
		case n.session && (passed(n.engineLost.Add(engineGrace)) || n.status.State == cluster.NodeDown):
			want.state, want.message = cluster.NodeDown, messageNoEngine
		case n.session:
			want.state, want.message = cluster.NodeDisconnected, messageEngine
		case n.status.State == cluster.NodeDown:
		case n.left && n.halting:
			want.state, want.message = cluster.NodeDown, messageHalted
		case n.left:
			want.state, want.message = cluster.NodeUnknown, messageStopped
			if passed(n.lost.Add(grace)) {
				want.state, want.message = cluster.NodeDown, messageAway
			}
		case !settled:
		default:
			decideWithoutSession(n, s.suspectLong, brake && !s.corroborated(n), passed, &want)
		}
		if want.state != n.status.State || want.message != n.status.Message || want.came {
			verdicts = append(verdicts, want)
		}
	}
	return verdicts, wake
}

// decideWithoutSession decides on a node without a session that didn't say goodbye.
func decideWithoutSession(n observation, suspectLong time.Duration, brake bool, passed func(time.Time) bool, want *stateChange) {
	deadline, message := n.lost.Add(grace), messageSeen
	switch {
	case n.gossip == gossipNothing, n.gossip == gossipGone && n.gossipSince.Add(grace).Before(n.lost):
		// Gossip was blind to this node while it was well, so it is no witness now.
		message = messageBlind
	case n.gossip == gossipSuspect:
		message = messageFading
		if sooner := latest(n.lost.Add(confirm), n.gossipSince.Add(suspectLong)); sooner.Before(deadline) {
			deadline = sooner
		}
	case n.gossip == gossipGone:
		message = messageLost
		if sooner := latest(n.lost.Add(confirm), n.gossipSince); sooner.Before(deadline) {
			deadline = sooner
		}
	}
	if n.status.State == cluster.NodeUnknown {
		// It joined and hasn't come yet, or it said to an earlier leader that it stops.
		deadline = n.lost.Add(grace)
		if n.status.Message == messageStopped {
			message = messageAway
		}
	}
	switch {
	case !passed(deadline):
		switch {
		case !passed(n.lost.Add(disconnectAfter)):
		case n.status.State != cluster.NodeUnknown:
			want.state, want.message = cluster.NodeDisconnected, message
		case want.message == "":
			want.message = messageNoShow
		}
	case brake && !passed(n.lost.Add(massFailureWait)):
		want.state, want.message = cluster.NodeDisconnected, messageBrake
	default:
		want.state, want.message = cluster.NodeDown, message
	}
}

// sought lists nodes that gossip should look after at once, maxSought at most, and when
// there may be more: nothing else tells soon what became of those whose sessions a leader
// had that is gone itself. It is pure.
func sought(s livenessInput) (nodeIDs []string, wake time.Time) {
	for _, n := range s.nodes {
		if n.session || n.left || n.status.State != cluster.NodeReady {
			continue
		}
		if at := n.lost.Add(missAfter); !at.After(s.now) {
			if len(nodeIDs) < maxSought {
				nodeIDs = append(nodeIDs, n.nodeID)
			}
		} else if wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	return nodeIDs, wake
}

// massFailure tells whether so many nodes are vanishing at once that the fault is
// more likely with the leader's network. Nodes that gossip just lost count
// before their sessions end, so that the first of many isn't judged alone.
func massFailure(s livenessInput) bool {
	all, gone := 0, 0
	for _, n := range s.nodes {
		since := s.now.Sub(n.status.Since)
		justDown := n.status.State == cluster.NodeDown && n.status.Message != messageAway && n.status.Message != messageHalted && since >= 0 && since < massFailureWait
		switch {
		case n.left && !n.session, n.status.State == cluster.NodeUnknown && !n.session:
			continue
		case justDown && !n.session:
			gone++
		case n.status.State == cluster.NodeDown && !n.session:
			continue
		case !n.session:
			gone++
		case (n.gossip == gossipGone || n.gossip == gossipSuspect) && s.now.Sub(n.gossipSince) < massFailureWait:
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
