package liveness

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/cluster"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// seen makes an observation of a ready node; times are seconds before now.
func seen(change func(*Observation)) Observation {
	n := Observation{NodeID: "n", Signals: Signals{Gossip: GossipAlive, GossipSince: ago(3600)}}
	n.Status = cluster.NodeStatus{State: cluster.NodeReady, Since: ago(3600)}
	change(&n)
	return n
}

func ago(seconds float64) time.Time { return noon.Add(-time.Duration(seconds * float64(time.Second))) }

// missing makes an observation of a ready node whose session ended some seconds ago.
func missing(lost float64, r Gossip, turned float64) Observation {
	return seen(func(n *Observation) {
		n.Lost, n.Gossip, n.GossipSince = ago(lost), r, ago(turned)
	})
}

func with(n Observation, state cluster.NodeState, message string) Observation {
	n.Status.State, n.Status.Message = state, message
	return n
}

// engineless makes an observation of a node whose engine has been away for some seconds.
func engineless(away float64, state cluster.NodeState, message string) Observation {
	return with(seen(func(n *Observation) { n.EngineLost = ago(away) }), state, message)
}

func TestDecide(t *testing.T) {
	unchanged := cluster.NodeState(99)
	for _, c := range []struct {
		name    string
		node    Observation
		started float64 // Seconds ago; 0 means long.
		unheard int
		others  []Observation
		// managers is how many there are; 0 means one, whose word alone counts for nothing.
		managers int
		cold     bool
		want     cluster.NodeState
		message  string
		wake     time.Duration // From now; 0 means never.
	}{
		{name: "a session keeps it ready", node: seen(func(*Observation) {}), want: unchanged},
		{name: "a session makes it ready", node: with(seen(func(*Observation) {}), cluster.NodeDown, MessageDead), want: cluster.NodeReady},
		{name: "a session makes a new node ready", node: with(seen(func(*Observation) {}), cluster.NodeUnknown, ""), want: cluster.NodeReady},
		{name: "a session counts at once with a new leader", node: with(seen(func(*Observation) {}), cluster.NodeUnknown, ""), started: 0.001, unheard: 2, want: cluster.NodeReady, wake: settleLeast - time.Millisecond},
		{name: "gossip alone doesn't matter", node: seen(func(n *Observation) { n.Gossip, n.GossipSince = GossipDead, ago(60) }), want: unchanged},
		{name: "no engine: disconnected", node: engineless(0, cluster.NodeReady, ""), want: cluster.NodeDisconnected, message: MessageEngine, wake: engineGrace},
		{name: "no engine is written once", node: engineless(29, cluster.NodeDisconnected, MessageEngine), want: unchanged, wake: time.Second},
		{name: "no engine: down in the end", node: engineless(30, cluster.NodeDisconnected, MessageEngine), want: cluster.NodeDown, message: MessageNoEngine},
		{name: "down for want of an engine stays down with a new leader", node: engineless(0, cluster.NodeDown, MessageNoEngine), want: unchanged, wake: engineGrace},
		{name: "the engine is back", node: with(seen(func(*Observation) {}), cluster.NodeDown, MessageNoEngine), want: cluster.NodeReady},

		{name: "down when both signals are gone", node: missing(1, GossipDead, 0), want: cluster.NodeDown, message: MessageDead},
		{name: "down when the session goes last", node: missing(0.3, GossipDead, 2), want: cluster.NodeDown, message: MessageDead},
		{name: "a moment to find another manager", node: missing(0.1, GossipDead, 0.1), want: unchanged, wake: 200 * time.Millisecond},
		{name: "a short suspicion is not enough", node: missing(1, GossipSuspect, 1), want: unchanged, wake: time.Second},
		{name: "suspected, then disconnected", node: missing(2, GossipSuspect, 1), want: cluster.NodeDisconnected, message: MessageSuspect, wake: 2 * time.Second},
		{name: "suspected for long is gone", node: missing(1, GossipSuspect, 3), want: cluster.NodeDown, message: MessageSuspect},
		{name: "gossip sees it: nothing at first", node: missing(1, GossipAlive, 60), want: unchanged, wake: time.Second},
		{name: "gossip sees it: disconnected", node: missing(2, GossipAlive, 60), want: cluster.NodeDisconnected, message: MessageSeen, wake: 8 * time.Second},
		{name: "disconnected is written once", node: with(missing(5, GossipAlive, 60), cluster.NodeDisconnected, MessageSeen), want: unchanged, wake: 5 * time.Second},
		{name: "gossip sees it: down in the end", node: with(missing(10, GossipAlive, 60), cluster.NodeDisconnected, MessageSeen), want: cluster.NodeDown, message: MessageSeen},
		{name: "no gossip at all", node: missing(10, GossipNone, 60), want: cluster.NodeDown, message: MessageBlind},
		{name: "gossip that was always blind is no witness", node: missing(3, GossipDead, 3600), want: cluster.NodeDisconnected, message: MessageBlind, wake: 7 * time.Second},
		{name: "down stays down", node: with(missing(3600, GossipDead, 3600), cluster.NodeDown, MessageDead), want: unchanged},
		{name: "down stays down, for whatever reason", node: with(missing(3600, GossipAlive, 3600), cluster.NodeDown, MessageDead), want: unchanged},

		{name: "stopped in order", node: seen(func(n *Observation) { n.Stopped, n.Lost = true, noon }), want: cluster.NodeUnknown, message: MessageStopped, wake: Grace},
		{name: "stopped in order, and gossip lost it", node: with(seen(func(n *Observation) {
			n.Stopped, n.Lost, n.Gossip, n.GossipSince = true, ago(9), GossipDead, ago(9)
		}), cluster.NodeUnknown, MessageStopped), want: unchanged, wake: time.Second},
		{name: "stopped in order and never came back", node: with(seen(func(n *Observation) {
			n.Stopped, n.Lost, n.Gossip, n.GossipSince = true, ago(10), GossipDead, ago(9)
		}), cluster.NodeUnknown, MessageStopped), want: cluster.NodeDown, message: MessageStayedAway},
		{name: "stopped under the leader before", node: with(missing(3, GossipDead, 3), cluster.NodeUnknown, MessageStopped), started: 3, want: unchanged, wake: 7 * time.Second},
		{name: "stopped under the leader before, and never came back", node: with(missing(10, GossipDead, 10), cluster.NodeUnknown, MessageStopped), started: 10, want: cluster.NodeDown, message: MessageStayedAway},
		{name: "its machine stopped in order", node: seen(func(n *Observation) { n.Stopped, n.Halting, n.Lost = true, true, noon }), want: cluster.NodeDown, message: MessageHalted},
		{name: "a goodbye counts at once with a new leader", node: seen(func(n *Observation) { n.Stopped, n.Lost = true, noon }), started: 0.001, unheard: 1, want: cluster.NodeUnknown, message: MessageStopped, wake: settleLeast - time.Millisecond},
		{name: "joined a moment ago", node: with(missing(0, GossipDead, 0), cluster.NodeUnknown, ""), want: unchanged, wake: DisconnectAfter},
		{name: "joined and didn't come yet", node: with(missing(2, GossipDead, 2), cluster.NodeUnknown, ""), want: cluster.NodeUnknown, message: MessageNoShow, wake: 8 * time.Second},
		{name: "joined and never came", node: with(missing(10, GossipDead, 10), cluster.NodeUnknown, MessageNoShow), want: cluster.NodeDown, message: MessageDead},

		{name: "a new leader misses nobody at first", node: missing(0.3, GossipDead, 0.3), started: 0.3, want: unchanged, wake: 100 * time.Millisecond},
		{name: "a new leader that heard all managers", node: missing(0.4, GossipDead, 0.4), started: 0.4, want: cluster.NodeDown, message: MessageDead},
		{name: "a new leader that waits for a manager", node: missing(0.4, GossipDead, 0.4), started: 0.4, unheard: 1, want: unchanged, wake: 1600 * time.Millisecond},
		{name: "a new leader that waited long enough", node: missing(2, GossipDead, 2), started: 2, unheard: 1, want: cluster.NodeDown, message: MessageDead},

		{name: "two at once are just two", node: missing(1, GossipDead, 0), others: []Observation{missing(1, GossipDead, 0)}, want: cluster.NodeDown, message: MessageDead},
		{name: "too many at once: the guard", node: missing(1, GossipDead, 0), others: []Observation{missing(1, GossipDead, 0), missing(1, GossipAlive, 60), seen(func(*Observation) {})},
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: time.Second},
		{name: "the guard holds for long", node: with(missing(14, GossipDead, 13), cluster.NodeDisconnected, MessageMassFailure), others: []Observation{missing(14, GossipDead, 13), missing(14, GossipDead, 13)},
			want: unchanged, wake: time.Second},
		{name: "the guard ends", node: with(missing(15, GossipDead, 14), cluster.NodeDisconnected, MessageMassFailure), others: []Observation{missing(15, GossipDead, 14), missing(15, GossipDead, 14)},
			want: cluster.NodeDown, message: MessageDead},
		{name: "the guard isn't for what most managers miss", node: missed(2), others: []Observation{missed(2), missed(2), seen(func(*Observation) {})}, managers: 3,
			want: cluster.NodeDown, message: MessageDead},
		{name: "when all have just started, they can't tell", node: missed(2), others: []Observation{missed(2), missed(2), seen(func(*Observation) {})}, managers: 3, cold: true,
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: 14 * time.Second},
		{name: "the leader and one of four others are too few", node: missed(2), others: []Observation{missed(2), missed(2), seen(func(*Observation) {})}, managers: 5,
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: 14 * time.Second},
		{name: "the leader alone is too few", node: missed(1), others: []Observation{missed(1), missed(1), seen(func(*Observation) {})}, managers: 1,
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: 14 * time.Second},
		{name: "most managers miss others, not this one", node: missed(1), others: []Observation{missed(2), missed(2), seen(func(*Observation) {})}, managers: 3,
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: 14 * time.Second},
		{name: "three of ten are not too many", node: missing(1, GossipDead, 0), others: append(ready(7), missing(1, GossipDead, 0), missing(1, GossipDead, 0)),
			want: cluster.NodeDown, message: MessageDead, wake: 0},
		{name: "those that gossip just lost count before their sessions end", node: missing(1, GossipDead, 0), others: append(ready(3), fading(1), fading(1)),
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: 14 * time.Second},
		{name: "those that gossip never saw don't", node: missing(1, GossipDead, 0), others: append(ready(3), fading(60), fading(60)),
			want: cluster.NodeDown, message: MessageDead},
		{name: "those that just went down count", node: missing(1, GossipDead, 0), others: append(ready(3), down(5), down(5)),
			want: cluster.NodeDisconnected, message: MessageMassFailure, wake: 14 * time.Second},
		{name: "those that went down before don't", node: missing(1, GossipDead, 0), others: append(ready(3), down(60), down(60)),
			want: cluster.NodeDown, message: MessageDead},
		{name: "those that stopped in order don't", node: missing(1, GossipDead, 0), others: append(ready(3), stopped(), stopped()),
			want: cluster.NodeDown, message: MessageDead, wake: 9 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.started == 0 {
				c.started = 3600
			}
			for i := range c.others {
				c.others[i].NodeID = fmt.Sprint("other", i)
			}
			changes, wake := Decide(Input{Now: noon, Started: ago(c.started), Unheard: c.unheard, SuspectAfter: 3 * time.Second, Managers: max(1, c.managers), Cold: c.cold, Nodes: append([]Observation{c.node}, c.others...)})
			got := Change{NodeID: "n", State: unchanged}
			for _, v := range changes {
				if v.NodeID == "n" {
					got = v
				}
			}
			if want := (Change{NodeID: "n", State: c.want, Message: c.message}); got != want {
				t.Errorf("change %+v, want %+v", got, want)
			}
			switch {
			case wake.IsZero() && c.wake != 0, !wake.IsZero() && wake.Sub(noon) != c.wake:
				t.Errorf("wake in %v, want %v", wake.Sub(noon), c.wake)
			}
		})
	}
}

// missed makes an observation of a node that was just lost, as so many managers say.
func missed(witnesses int) Observation {
	n := missing(1, GossipDead, 0)
	n.MissedBy = witnesses
	return n
}

func ready(count int) []Observation {
	var nodes []Observation
	for range count {
		nodes = append(nodes, seen(func(*Observation) {}))
	}
	return nodes
}

func fading(turned float64) Observation {
	return seen(func(n *Observation) { n.Gossip, n.GossipSince = GossipDead, ago(turned) })
}

func down(since float64) Observation {
	n := with(missing(since+1, GossipDead, since), cluster.NodeDown, MessageDead)
	n.Status.Since = ago(since)
	return n
}

func stopped() Observation {
	n := with(missing(1, GossipDead, 1), cluster.NodeUnknown, MessageStopped)
	n.Stopped = true
	return n
}

// Once its changes are written, Decide has nothing more to say at the same time,
// never wakes in the past, and puts no node with a session down.
func TestDecide_PropertySettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		second := func(name string) time.Time { return ago(float64(rapid.IntRange(0, 200).Draw(t, name)) / 10) }
		s := Input{Now: noon, Started: second("started"), Unheard: rapid.IntRange(0, 1).Draw(t, "unheard"), SuspectAfter: time.Second, Managers: rapid.IntRange(1, 5).Draw(t, "managers")}
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			session := rapid.Bool().Draw(t, "session")
			n := Observation{
				NodeID: fmt.Sprint(i),
				Signals: Signals{
					Stopped:     rapid.Bool().Draw(t, "left"),
					Halting:     rapid.Bool().Draw(t, "halting"),
					Lost:        second("lost"),
					Gossip:      Gossip(rapid.IntRange(0, 3).Draw(t, "gossip")),
					GossipSince: second("gossip since"),
				},
				MissedBy: rapid.IntRange(0, s.Managers).Draw(t, "missed by"),
			}
			n.Status.State = cluster.NodeState(rapid.IntRange(0, 3).Draw(t, "state"))
			n.Status.Since = second("since")
			if session {
				n.Stopped, n.Lost = false, time.Time{}
			}
			s.Nodes = append(s.Nodes, n)
		}
		guard := massFailure(&s)
		changes, wake := Decide(s)
		if !wake.IsZero() && !wake.After(noon) {
			t.Fatalf("wakes at %v", wake)
		}
		for _, v := range changes {
			for i := range s.Nodes {
				n := &s.Nodes[i]
				if n.NodeID != v.NodeID {
					continue
				}
				if n.session() && v.State != cluster.NodeReady {
					t.Fatalf("%+v with a session", v)
				}
				if v.State == cluster.NodeDown && guard && !s.corroborated(n) && !n.Stopped && noon.Sub(n.Lost) < massFailureWait && n.Status.State != cluster.NodeDown {
					t.Fatalf("%+v in spite of the guard", v)
				}
				if n.Status.State != v.State {
					n.Status.Since = noon
				}
				n.Status.State, n.Status.Message = v.State, v.Message
			}
		}
		if again, _ := Decide(s); len(again) > 0 && guard == massFailure(&s) {
			t.Fatalf("changes its mind: %+v, then %+v", changes, again)
		}
	})
}

// A node has come with its first session, whether its engine answers or not.
func TestDecide_ANodeThatComes(t *testing.T) {
	for _, n := range []Observation{
		{},
		{Signals: Signals{EngineLost: ago(60)}},
		{Signals: Signals{EngineLost: ago(60)}, Status: cluster.NodeStatus{State: cluster.NodeDown, Message: MessageNoEngine}},
		{Signals: Signals{Lost: ago(3600)}},
	} {
		n.Awaited = true
		changes, _ := Decide(Input{Now: noon, Started: noon.Add(-time.Hour), Nodes: []Observation{n}})
		if came := len(changes) == 1 && changes[0].Came; came != n.session() {
			t.Errorf("%+v: %+v", n, changes)
		}
	}
}
