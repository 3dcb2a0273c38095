package campaign

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

func TestVoters(t *testing.T) {
	servers := []raft.Server{{ID: "c"}, {ID: "a"}, {ID: "b"}, {ID: "d", Suffrage: raft.Nonvoter}}
	for _, test := range []struct {
		self, lost string
		others     []raft.ServerID
		votes      bool
	}{
		{"a", "b", []raft.ServerID{"c"}, true}, {"c", "b", []raft.ServerID{"a"}, true},
		{"d", "a", []raft.ServerID{"c", "b"}, false}, {"x", "a", []raft.ServerID{"c", "b"}, false}, {"a", "a", []raft.ServerID{"c", "b"}, false},
	} {
		others, votes := voters(servers, test.self, test.lost)
		var ids []raft.ServerID
		for _, other := range others {
			ids = append(ids, other.ID)
		}
		if !slices.Equal(ids, test.others) || votes != test.votes {
			t.Errorf("besides %s and %s there are %v, and %s votes: %v", test.self, test.lost, ids, test.self, votes)
		}
	}
}

func TestDecide(t *testing.T) {
	const beat = 300 * time.Millisecond
	account := func(id string, last uint64) cluster.ManagerHealth {
		return cluster.ManagerHealth{NodeID: id, Term: 7, LastIndex: last, LastContact: 20 * time.Millisecond}
	}
	quiet := func(id string, last uint64) cluster.ManagerHealth {
		silent := account(id, last)
		silent.LastContact = 200 * time.Millisecond
		return silent
	}
	refused := func(id string, last uint64) cluster.ManagerHealth {
		refused := account(id, last)
		refused.Refused = true
		return refused
	}
	silent := quiet("c", 40)
	silent.LastContact = beat
	refuses, hears := refused("c", 40), account("d", 41)
	newer := cluster.ManagerHealth{NodeID: "e", Term: 8, LastContact: 400 * time.Millisecond}
	leads := cluster.ManagerHealth{NodeID: "e", Term: 7, Leader: true}
	away := cluster.ManagerHealth{}
	const never = 0
	type list = []cluster.ManagerHealth
	for _, test := range []struct {
		name   string
		own    cluster.ManagerHealth
		others list
		// turn is for how long the leader must have been missed; never is at no time.
		turn  time.Duration
		never bool
	}{
		{"two managers: there is nobody to ask", silent, nil, never, true},
		{"two managers, refused", refuses, nil, never, true},
		{"three, the other agrees", silent, list{quiet("d", 40)}, 0, false},
		{"three, the other hears the leader", silent, list{hears}, never, true},
		{"three, the other is away", silent, list{away}, never, true},
		{"three, the other is refused, too", refuses, list{refused("d", 40)}, 0, false},
		{"three, this one alone is refused", refuses, list{hears}, never, true},
		{"three, refused, and the other is away", refuses, list{away}, never, true},
		{"three, one is refused, the other hears nothing", refuses, list{quiet("d", 40)}, 0, false},
		{"three, one hears nothing, the other is refused", silent, list{refused("d", 40)}, 0, false},
		{"five, two agree", silent, list{quiet("d", 40), quiet("e", 40), hears}, 0, false},
		{"five, one agrees", silent, list{quiet("d", 40), hears, away}, never, true},
		{"five, two are refused, too", refuses, list{refused("d", 40), away, refused("e", 40)}, 0, false},
		{"five, one is refused, too", refuses, list{refused("d", 40), hears, away}, never, true},
		{"one knows a newer term", silent, list{quiet("d", 40), quiet("f", 40), newer}, never, true},
		{"one leads", silent, list{quiet("d", 40), quiet("f", 40), leads}, never, true},
		{"refused, and one leads", refuses, list{refused("d", 40), refused("f", 40), leads}, never, true},
		{"another comes first by its ID", silent, list{quiet("a", 40)}, 210 * time.Millisecond, false},
		{"another comes first by its log", silent, list{quiet("d", 41)}, 210 * time.Millisecond, false},
		{"this one comes first by its log", silent, list{quiet("a", 39)}, 0, false},
		{"refused, another comes first by its ID", refuses, list{refused("a", 40)}, 60 * time.Millisecond, false},
		{"refused, another comes first by its log", refuses, list{refused("d", 41)}, 60 * time.Millisecond, false},
		{"refused, this one comes first by its log, and the other by its ID", refuses, list{refused("a", 39)}, 20 * time.Millisecond, false},
		{"refused, this one comes first by both", refuses, list{refused("d", 39)}, 0, false},
		{"refused, two come first", refuses, list{refused("a", 40), refused("b", 40), refused("d", 40)}, 120 * time.Millisecond, false},
		{"who hears the leader comes first of nobody", refuses, list{account("a", 40), refused("d", 40), refused("e", 40)}, 0, false},
	} {
		for _, known := range []time.Duration{0, 19, 20, 59, 60, 119, 120, 209, 210, 1000} {
			known *= time.Millisecond
			want := !test.never && known >= test.turn
			stand, again := decide(test.own, test.others, known, beat)
			if stand != want {
				t.Errorf("%s, after %v: %v; want %v", test.name, known, stand, want)
			}
			if !stand && (again <= 0 || again > beat/8 || !test.never && known+again > test.turn) {
				t.Errorf("%s, after %v: it looks again after %v", test.name, known, again)
			}
		}
	}
}
