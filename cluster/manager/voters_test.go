package manager

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/manager/peers"
	"skep/store"
)

func TestNextVoterChange(t *testing.T) {
	node := func(id string, wanted, has swarm.NodeRole, addr string) *cluster.Node {
		return &cluster.Node{ID: id, Spec: swarm.NodeSpec{Role: wanted}, Role: has, ManagerAddr: addr}
	}
	voter := func(id, addr string) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr)}
	}
	waiting := func(id, addr string) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr), Suffrage: raft.Nonvoter}
	}
	const m, w = swarm.NodeRoleManager, swarm.NodeRoleWorker
	self := node("a", m, m, "a:1")
	tests := []struct {
		name    string
		nodes   []*cluster.Node
		servers []raft.Server
		// silent are voters that don't answer; behind members that haven't caught up.
		silent, behind string
		// unaware doesn't know of b.
		unaware string
		want    string
		// waits is who waits, and part of the reason.
		waits string
	}{
		{name: "all is well", nodes: []*cluster.Node{self, node("b", w, w, "")}, servers: []raft.Server{voter("a", "a:1")}},
		{name: "a new manager that doesn't listen yet waits", nodes: []*cluster.Node{self, node("b", m, m, "")}, servers: []raft.Server{voter("a", "a:1")}},
		{name: "a new manager that listens has no vote at first", nodes: []*cluster.Node{self, node("b", m, m, "b:1")}, servers: []raft.Server{voter("a", "a:1")}, want: "add b b:1"},
		{name: "it waits for what it lacks", nodes: []*cluster.Node{self, node("b", m, m, "b:1")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, behind: "b", waits: "b: catching up"},
		{name: "it votes when it has caught up", nodes: []*cluster.Node{self, node("b", m, m, "b:1")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, want: "vote b b:1"},
		{name: "it waits for a voter that doesn't know of it", nodes: []*cluster.Node{self, node("b", m, m, "b:1"), node("c", m, m, "c:1")},
			servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1"), voter("c", "c:1")}, silent: "c", unaware: "c", waits: "b: it gets its vote as soon as manager  (c), which votes, knows of it"},
		{name: "that one may be demoted", nodes: []*cluster.Node{self, node("b", m, m, "b:1"), node("c", w, m, "c:1"), node("d", m, m, "d:1")},
			servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1"), voter("c", "c:1"), voter("d", "d:1")}, silent: "c", unaware: "c", want: "remove c", waits: "b: it gets its vote"},
		{name: "one that waits keeps no other waiting", nodes: []*cluster.Node{self, node("b", m, m, "b:1"), node("c", m, w, "")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, behind: "b", want: "promote c", waits: "b: catching up"},
		{name: "a voter that moved", nodes: []*cluster.Node{self, node("b", m, m, "b:2")}, servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, want: "vote b b:2"},
		{name: "one without a vote that moved", nodes: []*cluster.Node{self, node("b", m, m, "b:2")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, want: "add b b:2"},
		{name: "promote: the role comes first", nodes: []*cluster.Node{self, node("b", m, w, "")}, servers: []raft.Server{voter("a", "a:1")}, want: "promote b"},
		{name: "a manager that lost its database", nodes: []*cluster.Node{self, node("b", m, m, "")}, servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, want: "suspend b"},
		{name: "one that waits for its database", nodes: []*cluster.Node{self, node("b", m, m, "")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}},
		{name: "one that has it again", nodes: []*cluster.Node{self, node("b", m, m, "b:1")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, want: "vote b b:1"},
		{name: "one that is demoted meanwhile", nodes: []*cluster.Node{self, node("b", w, m, "")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, behind: "b", want: "remove b"},
		{name: "never the leader, for want of an address", nodes: []*cluster.Node{node("a", m, m, "")}, servers: []raft.Server{voter("a", "a:1")}},
		{name: "demote: the vote goes first", nodes: []*cluster.Node{self, node("b", w, m, "b:1")}, servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, want: "remove b"},
		{name: "demote: then the role", nodes: []*cluster.Node{self, node("b", w, m, "b:1")}, servers: []raft.Server{voter("a", "a:1")}, want: "demote b"},
		{name: "the leader itself is demoted", nodes: []*cluster.Node{node("a", w, m, "a:1"), node("b", m, m, "b:1")}, servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, want: "hand over"},
		{name: "the leader, beside one without a vote", nodes: []*cluster.Node{node("a", w, m, "a:1"), node("b", m, m, "b:1")}, servers: []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, behind: "b", waits: "a: of the 0 voters left 0 would answer"},
		{name: "a voter whom the quorum needs, since another is away", nodes: []*cluster.Node{self, node("b", w, m, "b:1"), node("c", m, m, "c:1")},
			servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1"), voter("c", "c:1")}, silent: "c", waits: "b: of the 2 voters left 1 would answer, and 2 are needed"},
		{name: "the one that is away may go", nodes: []*cluster.Node{self, node("b", m, m, "b:1"), node("c", w, m, "c:1")},
			servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1"), voter("c", "c:1")}, silent: "c", want: "remove c"},
		{name: "a manager that was installed anew at its address waits for the old one's vote to go", nodes: []*cluster.Node{self, node("b", m, m, "c:1"), node("c", w, m, "c:1")},
			servers: []raft.Server{voter("a", "a:1"), voter("c", "c:1")}, silent: "c", want: "remove c", waits: "b: manager c still has its address"},
		{name: "a voter whose node is gone", nodes: []*cluster.Node{self}, servers: []raft.Server{voter("a", "a:1"), voter("x", "x:1")}, want: "remove x"},
		{name: "one whose node is gone and whom the quorum needs", nodes: []*cluster.Node{self, node("b", m, m, "b:1")},
			servers: []raft.Server{voter("a", "a:1"), voter("b", "b:1"), voter("x", "x:1")}, silent: "b", waits: "x: of the 2 voters left 1 would answer"},
		{name: "never itself, before the store has nodes", servers: []raft.Server{voter("a", "a:1")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			memory := store.NewMemory(time.Now)
			err := memory.Update(t.Context(), func(tx *store.Tx) error {
				for _, n := range test.nodes {
					copied := *n
					if err := tx.Put(&copied); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			g := group{servers: test.servers, self: "a", answers: map[string]bool{}, behind: map[string]string{}, unaware: map[string][]string{}}
			if test.unaware != "" {
				g.unaware["b"] = []string{test.unaware}
			}
			for _, server := range test.servers {
				g.answers[string(server.ID)] = string(server.ID) != test.silent
			}
			if test.behind != "" {
				g.behind[test.behind] = "it has 2 of 9 entries"
			}
			got := ""
			change, waits := nextVoterChange(memory.View(), g)
			if change != nil {
				switch {
				case change.Vote != nil:
					got = fmt.Sprintf("vote %s %s", change.Vote.ID, change.Vote.Address)
				case change.Suspend != "":
					got = "suspend " + string(change.Suspend)
				case change.Add != nil:
					got = fmt.Sprintf("add %s %s", change.Add.ID, change.Add.Address)
				case change.HandOver:
					got = "hand over"
				case change.Remove != "":
					got = "remove " + string(change.Remove)
				case change.Promote != "":
					got = "promote " + change.Promote
				case change.Demote != "":
					got = "demote " + change.Demote
				}
			}
			if got != test.want {
				t.Errorf("the next change is %q; want %q", got, test.want)
			}
			who, why, _ := strings.Cut(test.waits, ": ")
			if said := waits[who]; !strings.Contains(said, why) || test.waits == "" && len(waits) > 0 {
				t.Errorf("who waits is %q; want %q", waits, test.waits)
			}
		})
	}
}

// A member without a vote has caught up when it was heard, and near the end of the log, for
// four Beats in a row.
func TestCatching(t *testing.T) {
	const beat = 300 * time.Millisecond
	servers := []raft.Server{{ID: "a", Address: "a:1"}, {ID: "b", Address: "b:1", Suffrage: raft.Nonvoter}}
	for _, test := range []struct {
		name string
		// at is what the leader's log has, and b's, and when b was heard, at a time.
		at   func(at time.Duration) (last, index uint64, heard time.Duration)
		want time.Duration // 0 for never
		why  string
	}{
		{"it has all from the beginning", func(at time.Duration) (uint64, uint64, time.Duration) { return 100, 100, at }, 1200 * time.Millisecond, ""},
		{"it needs five seconds", func(at time.Duration) (uint64, uint64, time.Duration) {
			return 100, min(100, uint64(at.Milliseconds()/50)), at
		}, 6200 * time.Millisecond, ""},
		{"it is slower than what is written", func(at time.Duration) (uint64, uint64, time.Duration) {
			return 100 + uint64(at.Milliseconds()), uint64(at.Milliseconds()), at
		}, 1300 * time.Millisecond, ""},
		{"it is ever further behind", func(at time.Duration) (uint64, uint64, time.Duration) {
			return 1000 + 4*uint64(at.Milliseconds()), uint64(at.Milliseconds()), at
		}, 0, "it has 20000 of 81000 entries"},
		{"it is away now and then", func(at time.Duration) (uint64, uint64, time.Duration) { return 100, 100, at.Truncate(time.Second) }, 0, "it doesn't answer at b:1"},
		{"nobody ever heard it", func(at time.Duration) (uint64, uint64, time.Duration) { return 100, 100, -time.Hour }, 0, "it doesn't answer at b:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, began, got := newCatchUp(beat), time.Now(), time.Duration(0)
			why := ""
			for at := time.Duration(0); at <= 20*time.Second && got == 0; at += 50 * time.Millisecond {
				last, index, heard := test.at(at)
				behind := c.look(began.Add(at), last, servers, map[raft.ServerID]peers.Progress{"b": {Index: index, Heard: began.Add(heard)}})
				if behind["a"] != "" {
					t.Fatalf("a voter is behind: %s", behind["a"])
				}
				if behind["b"] == "" {
					got = at
					break
				}
				if !strings.Contains(why, "answer") {
					why = behind["b"]
				}
			}
			if got != test.want {
				t.Errorf("it has caught up after %v; want %v", got, test.want)
			}
			if got == 0 && why != test.why {
				t.Errorf("it hasn't, since %q; want %q", why, test.why)
			}
		})
	}
}

// A member without a vote is known to a voter that has the entry by which it became one.
func TestCatching_Unaware(t *testing.T) {
	voters := []raft.Server{{ID: "a", Address: "a:1"}, {ID: "b", Address: "b:1"}}
	with := func(id raft.ServerID, suffrage raft.ServerSuffrage) []raft.Server {
		return append(slices.Clone(voters), raft.Server{ID: id, Suffrage: suffrage})
	}
	c := newCatchUp(300 * time.Millisecond)
	for i, look := range []struct {
		servers []raft.Server
		last, b uint64 // the leader's log, and what b is known to have of it
		want    string
	}{
		{voters, 10, 10, ""},
		{with("c", raft.Nonvoter), 12, 10, "b"},
		{with("c", raft.Nonvoter), 90, 11, "b"}, // However much comes after it.
		{with("c", raft.Nonvoter), 90, 12, ""},
		{with("c", raft.Voter), 95, 12, ""},
		{with("c", raft.Nonvoter), 99, 12, ""}, // It lost its database; all know it still.
		{voters, 100, 12, ""},
		{with("c", raft.Nonvoter), 110, 100, "b"}, // A new one.
	} {
		known := map[raft.ServerID]peers.Progress{"b": {Index: look.b}}
		if got := strings.Join(c.unaware("a", look.last, look.servers, known)["c"], " "); got != look.want {
			t.Errorf("look %d: %q may not know of it; want %q", i, got, look.want)
		}
	}
	if got := newCatchUp(time.Second).unaware("a", 100, with("c", raft.Nonvoter), nil)["c"]; len(got) != 1 {
		t.Errorf("to a new leader, which heard nothing yet, %q may not know of it", got)
	}
}

// Raft takes a failed message to know that a manager is away; an election needs less.
func TestCatching_Answers(t *testing.T) {
	now := time.Now()
	got := newCatchUp(300*time.Millisecond).answers(now, map[raft.ServerID]peers.Progress{
		"now": {Heard: now}, "then": {Heard: now.Add(-400 * time.Millisecond)}, "never": {},
	})
	if !got["now"] || got["then"] || got["never"] || got["unknown"] {
		t.Errorf("answers are %v", got)
	}
}
