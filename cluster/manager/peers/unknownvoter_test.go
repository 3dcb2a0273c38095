package peers

import (
	"testing"

	"github.com/hashicorp/raft"
)

func TestNewcomer(t *testing.T) {
	p := poll{servers: []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "n", Suffrage: raft.Nonvoter}}, lastIndex: 10, lastTerm: 3}
	for _, test := range []struct {
		name        string
		p           poll
		id          string
		index, term uint64
		want        bool
	}{
		{"a voter is raft's to judge", p, "b", 12, 3, false},
		{"a member, with a longer log", p, "n", 11, 3, true},
		{"a member, with a later term", p, "n", 5, 4, true},
		{"a member, with the same log", p, "n", 10, 3, false},
		{"a member, with a shorter log", p, "n", 9, 3, false},
		{"a member, with an earlier term", p, "n", 99, 2, false},
		{"somebody with a longer log, whose vote may have been taken", p, "x", 11, 3, true},
		{"a manager that knows nobody yet votes for anybody by raft itself", poll{}, "x", 11, 3, false},
	} {
		if got := test.p.newcomer(test.id, test.index, test.term); got != test.want {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}

func TestPreVote(t *testing.T) {
	request := &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("n"), Addr: []byte("n:1")}, Term: 4}
	for _, test := range []struct {
		name   string
		term   uint64
		leader string
		want   bool
		told   uint64
	}{
		{"there is no leader", 3, "", true, 4},
		{"there is one", 3, "b:1", false, 4},
		{"it is the leader", 3, "n:1", true, 4},
		{"the term is over", 5, "", false, 5},
	} {
		if got := preVote(request, test.term, test.leader); got.Granted != test.want || got.Term != test.told {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
