package dispatch

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/cluster"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// seen makes an observation of a ready node; times are seconds before now.
func seen(change func(*observation)) observation {
	n := observation{nodeID: "n", session: true, gossip: rumourAlive, gossipSince: ago(3600)}
	n.status = cluster.NodeStatus{State: cluster.NodeReady, Since: ago(3600)}
	change(&n)
	return n
}

func ago(seconds float64) time.Time { return noon.Add(-time.Duration(seconds * float64(time.Second))) }

// missing makes an observation of a ready node whose session ended some seconds ago.
func missing(lost float64, r gossipState, turned float64) observation {
	return seen(func(n *observation) {
		n.session, n.lost, n.gossip, n.gossipSince = false, ago(lost), r, ago(turned)
	})
}

func with(n observation, state cluster.NodeState, message string) observation {
	n.status.State, n.status.Message = state, message
	return n
}

// engineless makes an observation of a node whose engine has been away for some seconds.
func engineless(away float64, state cluster.NodeState, message string) observation {
	return with(seen(func(n *observation) { n.engineLost = ago(away) }), state, message)
}

func TestJudge(t *testing.T) {
	unchanged := cluster.NodeState(99)
	for _, c := range []struct {
		name    string
		node    observation
		started float64 // Seconds ago; 0 means long.
		unheard int
		others  []observation
		// managers is how many there are; 0 means one, whose word alone counts for nothing.
		managers int
		cold     bool
		want     cluster.NodeState
		message  string
		wake     time.Duration // From now; 0 means never.
	}{
		{name: "a session keeps it ready", node: seen(func(*observation) {}), want: unchanged},
		{name: "a session makes it ready", node: with(seen(func(*observation) {}), cluster.NodeDown, messageLost), want: cluster.NodeReady},
		{name: "a session makes a new node ready", node: with(seen(func(*observation) {}), cluster.NodeUnknown, ""), want: cluster.NodeReady},
		{name: "a session counts at once with a new leader", node: with(seen(func(*observation) {}), cluster.NodeUnknown, ""), started: 0.001, unheard: 2, want: cluster.NodeReady, wake: settleLeast - time.Millisecond},
		{name: "gossip alone doesn't matter", node: seen(func(n *observation) { n.gossip, n.gossipSince = gossipGone, ago(60) }), want: unchanged},
		{name: "no engine: disconnected", node: engineless(0, cluster.NodeReady, ""), want: cluster.NodeDisconnected, message: messageEngine, wake: engineGrace},
		{name: "no engine is written once", node: engineless(29, cluster.NodeDisconnected, messageEngine), want: unchanged, wake: time.Second},
		{name: "no engine: down in the end", node: engineless(30, cluster.NodeDisconnected, messageEngine), want: cluster.NodeDown, message: messageNoEngine},
		{name: "down for want of an engine stays down with a new leader", node: engineless(0, cluster.NodeDown, messageNoEngine), want: unchanged, wake: engineGrace},
		{name: "the engine is back", node: with(seen(func(*observation) {}), cluster.NodeDown, messageNoEngine), want: cluster.NodeReady},

		{name: "down when both signals are gone", node: missing(1, gossipGone, 0), want: cluster.NodeDown, message: messageLost},
		{name: "down when the session goes last", node: missing(0.3, gossipGone, 2), want: cluster.NodeDown, message: messageLost},
		{name: "a moment to find another manager", node: missing(0.1, gossipGone, 0.1), want: unchanged, wake: 200 * time.Millisecond},
		{name: "a short suspicion is not enough", node: missing(1, gossipSuspect, 1), want: unchanged, wake: time.Second},
		{name: "suspected, then disconnected", node: missing(2, gossipSuspect, 1), want: cluster.NodeDisconnected, message: messageFading, wake: 2 * time.Second},
		{name: "suspected for long is gone", node: missing(1, gossipSuspect, 3), want: cluster.NodeDown, message: messageFading},
		{name: "gossip sees it: nothing at first", node: missing(1, rumourAlive, 60), want: unchanged, wake: time.Second},
		{name: "gossip sees it: disconnected", node: missing(2, rumourAlive, 60), want: cluster.NodeDisconnected, message: messageSeen, wake: 8 * time.Second},
		{name: "disconnected is written once", node: with(missing(5, rumourAlive, 60), cluster.NodeDisconnected, messageSeen), want: unchanged, wake: 5 * time.Second},
		{name: "gossip sees it: down in the end", node: with(missing(10, rumourAlive, 60), cluster.NodeDisconnected, messageSeen), want: cluster.NodeDown, message: messageSeen},
		{name: "no gossip at all", node: missing(10, gossipNothing, 60), want: cluster.NodeDown, message: messageBlind},
		{name: "gossip that was always blind is no witness", node: missing(3, gossipGone, 3600), want: cluster.NodeDisconnected, message: messageBlind, wake: 7 * time.Second},
		{name: "down stays down", node: with(missing(3600, gossipGone, 3600), cluster.NodeDown, messageLost), want: unchanged},
		{name: "down stays down, for whatever reason", node: with(missing(3600, rumourAlive, 3600), cluster.NodeDown, messageLost), want: unchanged},

		{name: "stopped in order", node: seen(func(n *observation) { n.session, n.left, n.lost = false, true, noon }), want: cluster.NodeUnknown, message: messageStopped, wake: grace},
		{name: "stopped in order, and gossip lost it", node: with(seen(func(n *observation) {
			n.session, n.left, n.lost, n.gossip, n.gossipSince = false, true, ago(9), gossipGone, ago(9)
		}), cluster.NodeUnknown, messageStopped), want: unchanged, wake: time.Second},
		{name: "stopped in order and never came back", node: with(seen(func(n *observation) {
			n.session, n.left, n.lost, n.gossip, n.gossipSince = false, true, ago(10), gossipGone, ago(9)
		}), cluster.NodeUnknown, messageStopped), want: cluster.NodeDown, message: messageAway},
		{name: "stopped under the leader before", node: with(missing(3, gossipGone, 3), cluster.NodeUnknown, messageStopped), started: 3, want: unchanged, wake: 7 * time.Second},
		{name: "stopped under the leader before, and never came back", node: with(missing(10, gossipGone, 10), cluster.NodeUnknown, messageStopped), started: 10, want: cluster.NodeDown, message: messageAway},
		{name: "its machine stopped in order", node: seen(func(n *observation) { n.session, n.left, n.halting, n.lost = false, true, true, noon }), want: cluster.NodeDown, message: messageHalted},
		{name: "a goodbye counts at once with a new leader", node: seen(func(n *observation) { n.session, n.left, n.lost = false, true, noon }), started: 0.001, unheard: 1, want: cluster.NodeUnknown, message: messageStopped, wake: settleLeast - time.Millisecond},
		{name: "joined a moment ago", node: with(missing(0, gossipGone, 0), cluster.NodeUnknown, ""), want: unchanged, wake: disconnectAfter},
		{name: "joined and didn't come yet", node: with(missing(2, gossipGone, 2), cluster.NodeUnknown, ""), want: cluster.NodeUnknown, message: messageNoShow, wake: 8 * time.Second},
		{name: "joined and never came", node: with(missing(10, gossipGone, 10), cluster.NodeUnknown, messageNoShow), want: cluster.NodeDown, message: messageLost},

		{name: "a new leader misses nobody at first", node: missing(0.3, gossipGone, 0.3), started: 0.3, want: unchanged, wake: 100 * time.Millisecond},
		{name: "a new leader that heard all managers", node: missing(0.4, gossipGone, 0.4), started: 0.4, want: cluster.NodeDown, message: messageLost},
		{name: "a new leader that waits for a manager", node: missing(0.4, gossipGone, 0.4), started: 0.4, unheard: 1, want: unchanged, wake: 1600 * time.Millisecond},
		{name: "a new leader that waited long enough", node: missing(2, gossipGone, 2), started: 2, unheard: 1, want: cluster.NodeDown, message: messageLost},

		{name: "two at once are just two", node: missing(1, gossipGone, 0), others: []observation{missing(1, gossipGone, 0)}, want: cluster.NodeDown, message: messageLost},
		{name: "too many at once: the brake", node: missing(1, gossipGone, 0), others: []observation{missing(1, gossipGone, 0), missing(1, rumourAlive, 60), seen(func(*observation) {})},
			want: cluster.NodeDisconnected, message: messageBrake, wake: time.Second},
		{name: "the brake holds for long", node: with(missing(14, gossipGone, 13), cluster.NodeDisconnected, messageBrake), others: []observation{missing(14, gossipGone, 13), missing(14, gossipGone, 13)},
			want: unchanged, wake: time.Second},
		{name: "the brake ends", node: with(missing(15, gossipGone, 14), cluster.NodeDisconnected, messageBrake), others: []observation{missing(15, gossipGone, 14), missing(15, gossipGone, 14)},
			want: cluster.NodeDown, message: messageLost},
		{name: "the brake isn't for what most managers miss", node: missed(2), others: []observation{missed(2), missed(2), seen(func(*observation) {})}, managers: 3,
			want: cluster.NodeDown, message: messageLost},
		{name: "when all have just started, they can't tell", node: missed(2), others: []observation{missed(2), missed(2), seen(func(*observation) {})}, managers: 3, cold: true,
			want: cluster.NodeDisconnected, message: messageBrake, wake: 14 * time.Second},
		{name: "the leader and one of four others are too few", node: missed(2), others: []observation{missed(2), missed(2), seen(func(*observation) {})}, managers: 5,
			want: cluster.NodeDisconnected, message: messageBrake, wake: 14 * time.Second},
		{name: "the leader alone is too few", node: missed(1), others: []observation{missed(1), missed(1), seen(func(*observation) {})}, managers: 1,
			want: cluster.NodeDisconnected, message: messageBrake, wake: 14 * time.Second},
		{name: "most managers miss others, not this one", node: missed(1), others: []observation{missed(2), missed(2), seen(func(*observation) {})}, managers: 3,
			want: cluster.NodeDisconnected, message: messageBrake, wake: 14 * time.Second},
		{name: "three of ten are not too many", node: missing(1, gossipGone, 0), others: append(ready(7), missing(1, gossipGone, 0), missing(1, gossipGone, 0)),
			want: cluster.NodeDown, message: messageLost, wake: 0},
		{name: "those that gossip just lost count before their sessions end", node: missing(1, gossipGone, 0), others: append(ready(3), fading(1), fading(1)),
			want: cluster.NodeDisconnected, message: messageBrake, wake: 14 * time.Second},
		{name: "those that gossip never saw don't", node: missing(1, gossipGone, 0), others: append(ready(3), fading(60), fading(60)),
			want: cluster.NodeDown, message: messageLost},
		{name: "those that just went down count", node: missing(1, gossipGone, 0), others: append(ready(3), down(5), down(5)),
			want: cluster.NodeDisconnected, message: messageBrake, wake: 14 * time.Second},
		{name: "those that went down before don't", node: missing(1, gossipGone, 0), others: append(ready(3), down(60), down(60)),
			want: cluster.NodeDown, message: messageLost},
		{name: "those that stopped in order don't", node: missing(1, gossipGone, 0), others: append(ready(3), stopped(), stopped()),
			want: cluster.NodeDown, message: messageLost, wake: 9 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.started == 0 {
				c.started = 3600
			}
			for i := range c.others {
				c.others[i].nodeID = fmt.Sprint("other", i)
			}
			verdicts, wake := decideNodeStates(livenessInput{now: noon, started: ago(c.started), unheard: c.unheard, suspectLong: 3 * time.Second, managers: max(1, c.managers), cold: c.cold, nodes: append([]observation{c.node}, c.others...)})
			got := stateChange{nodeID: "n", state: unchanged}
			for _, v := range verdicts {
				if v.nodeID == "n" {
					got = v
				}
			}
			if want := (stateChange{nodeID: "n", state: c.want, message: c.message}); got != want {
				t.Errorf("verdict %+v, want %+v", got, want)
			}
			switch {
			case wake.IsZero() && c.wake != 0, !wake.IsZero() && wake.Sub(noon) != c.wake:
				t.Errorf("wake in %v, want %v", wake.Sub(noon), c.wake)
			}
		})
	}
}

// missed makes an observation of a node that was just lost, as so many managers say.
func missed(witnesses int) observation {
	n := missing(1, gossipGone, 0)
	n.witnesses = witnesses
	return n
}

func ready(count int) []observation {
	var nodes []observation
	for range count {
		nodes = append(nodes, seen(func(*observation) {}))
	}
	return nodes
}

func fading(turned float64) observation {
	return seen(func(n *observation) { n.gossip, n.gossipSince = gossipGone, ago(turned) })
}

func down(since float64) observation {
	n := with(missing(since+1, gossipGone, since), cluster.NodeDown, messageLost)
	n.status.Since = ago(since)
	return n
}

func stopped() observation {
	n := with(missing(1, gossipGone, 1), cluster.NodeUnknown, messageStopped)
	n.left = true
	return n
}

// Once its verdicts are written, judge has nothing more to say at the same time,
// never wakes in the past, and puts no node with a session down.
func TestJudge_PropertySettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		second := func(name string) time.Time { return ago(float64(rapid.IntRange(0, 200).Draw(t, name)) / 10) }
		s := livenessInput{now: noon, started: second("started"), unheard: rapid.IntRange(0, 1).Draw(t, "unheard"), suspectLong: time.Second, managers: rapid.IntRange(1, 5).Draw(t, "managers")}
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			n := observation{
				nodeID:      fmt.Sprint(i),
				session:     rapid.Bool().Draw(t, "session"),
				left:        rapid.Bool().Draw(t, "left"),
				halting:     rapid.Bool().Draw(t, "halting"),
				lost:        second("lost"),
				gossip:      gossipState(rapid.IntRange(0, 3).Draw(t, "rumour")),
				gossipSince: second("turned"),

				witnesses: rapid.IntRange(0, s.managers).Draw(t, "witnesses"),
			}
			n.status.State = cluster.NodeState(rapid.IntRange(0, 3).Draw(t, "state"))
			n.status.Since = second("since")
			if n.session {
				n.left, n.lost = false, time.Time{}
			}
			s.nodes = append(s.nodes, n)
		}
		brake := massFailure(s)
		verdicts, wake := decideNodeStates(s)
		if !wake.IsZero() && !wake.After(noon) {
			t.Fatalf("wakes at %v", wake)
		}
		for _, v := range verdicts {
			for i := range s.nodes {
				n := &s.nodes[i]
				if n.nodeID != v.nodeID {
					continue
				}
				if n.session && v.state != cluster.NodeReady {
					t.Fatalf("%+v with a session", v)
				}
				if v.state == cluster.NodeDown && brake && !s.corroborated(*n) && !n.left && noon.Sub(n.lost) < massFailureWait && n.status.State != cluster.NodeDown {
					t.Fatalf("%+v in spite of the brake", v)
				}
				if n.status.State != v.state {
					n.status.Since = noon
				}
				n.status.State, n.status.Message = v.state, v.message
			}
		}
		if again, _ := decideNodeStates(s); len(again) > 0 && brake == massFailure(s) {
			t.Fatalf("changes its mind: %+v, then %+v", verdicts, again)
		}
	})
}

// A node has come with its first session, whether its engine answers or not.
func TestJudge_ANodeThatComes(t *testing.T) {
	for _, n := range []observation{
		{nodeID: "n", session: true},
		{nodeID: "n", session: true, engineLost: noon.Add(-time.Minute)},
		{nodeID: "n", session: true, engineLost: noon.Add(-time.Minute), status: cluster.NodeStatus{State: cluster.NodeDown, Message: messageNoEngine}},
		{nodeID: "n", lost: noon.Add(-time.Hour)},
	} {
		n.awaited = true
		verdicts, _ := decideNodeStates(livenessInput{now: noon, started: noon.Add(-time.Hour), nodes: []observation{n}})
		if came := len(verdicts) == 1 && verdicts[0].came; came != n.session {
			t.Errorf("%+v: %+v", n, verdicts)
		}
	}
}
