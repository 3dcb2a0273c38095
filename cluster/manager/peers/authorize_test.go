package peers

import (
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestAuthorize(t *testing.T) {
	members := func(id string) bool { return strings.Contains("abc", id) }
	following := raftView{members: members, self: "a", leader: "b", heard: true, term: 7}
	silent, leading, alone := following, following, raftView{members: members, self: "a"}
	silent.heard = false
	leading.leader = "a"
	named := func(id string) raft.RPCHeader { return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id)} }
	configuration := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a:1"}}})
	configured := func(data []byte) any {
		return &raft.AppendEntriesRequest{RPCHeader: named("b"), Term: 7, Entries: []*raft.Log{{Type: raft.LogCommand}, {Type: raft.LogConfiguration, Data: data}}}
	}
	entries := func(id string, term uint64) any {
		return &raft.AppendEntriesRequest{RPCHeader: named(id), Term: term}
	}
	snapshot := func(id string, term uint64) any {
		return &raft.InstallSnapshotRequest{RPCHeader: named(id), Term: term, Configuration: configuration}
	}
	vote := func(id string, term uint64) any {
		return &raft.RequestVoteRequest{RPCHeader: named(id), Term: term, LeadershipTransfer: true}
	}
	preVote := func(id string, term uint64) any {
		return &raft.RequestPreVoteRequest{RPCHeader: named(id), Term: term}
	}
	standNow := func(id string) any { return &raft.TimeoutNowRequest{RPCHeader: named(id)} }
	const absurd = 7 + maxLeap + 1
	for _, test := range []struct {
		name    string
		from    string
		request any
		h       raftView
		refused string
	}{
		{"the leader", "b", entries("b", 7), following, ""},
		{"the leader, in another's name", "b", entries("c", 7), following, "speaks in the name of"},
		{"a member in the leader's name", "c", entries("b", 7), following, "speaks in the name of"},
		{"nobody's name", "b", entries("", 7), following, "speaks in the name of"},
		{"who was removed", "x", entries("x", 7), following, "no manager of this cluster"},
		{"who was removed, asking for a vote", "x", vote("x", 8), silent, "no manager of this cluster"},
		{"who was removed, asking whether", "x", preVote("x", 8), silent, "no manager of this cluster"},
		{"who was removed, with a snapshot", "x", snapshot("x", 8), silent, "no manager of this cluster"},
		{"who was removed, handing over", "x", standNow("x"), silent, "no manager of this cluster"},
		{"another leader, while this one is heard", "c", entries("c", 8), following, "node b leads"},
		{"its snapshot", "c", snapshot("c", 8), following, "node b leads"},
		{"another leader, told to a leader", "c", entries("c", 8), leading, "node a leads"},
		{"another leader, after silence", "c", entries("c", 8), silent, ""},
		{"another leader's snapshot, after silence", "c", snapshot("c", 8), silent, ""},
		{"an absurd term", "c", entries("c", absurd), silent, "absurd"},
		{"an absurd term of the leader", "b", entries("b", absurd), following, "absurd"},
		{"an absurd term with a snapshot", "c", snapshot("c", absurd), silent, "absurd"},
		{"an absurd term with a vote", "c", vote("c", 1<<64-1), following, "absurd"},
		{"an absurd term before a vote", "c", preVote("c", 1<<64-1), following, "absurd"},
		{"the largest leap", "c", vote("c", absurd-1), following, ""},
		{"any term, to who has none", "b", entries("b", 1<<40), alone, ""},
		{"a vote", "c", vote("c", 8), following, ""}, // It is raft's to grant.
		{"a hand-over by the leader", "b", standNow("b"), following, ""},
		{"a hand-over to oneself", "a", standNow("a"), following, ""},
		{"a hand-over by another", "c", standNow("c"), following, "doesn't lead"},
		{"a hand-over, told to a leader", "c", standNow("c"), leading, "doesn't lead"},
		{"a configuration", "b", configured(configuration), following, ""},
		{"one that raft can't read", "b", configured([]byte("what?")), following, "no configuration"},
		{"an empty one", "b", configured(nil), following, "no configuration"},
		{"a snapshot without one", "b", &raft.InstallSnapshotRequest{RPCHeader: named("b"), Term: 7}, following, "configuration is none"},
		{"something else", "b", "hello", following, "unknown request"},
	} {
		err := authorize(test.from, test.request, test.h)
		if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v; want %q", test.name, err, test.refused)
		}
	}
	if checkLeap("b", 7, absurd) == nil || checkLeap("b", 7, 8) != nil || checkLeap("b", 8, 7) != nil {
		t.Error("answers may leap, or may not be newer")
	}
}
