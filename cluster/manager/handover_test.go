package manager

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster/manager/peers"
)

func TestSuccessor(t *testing.T) {
	now, beat := time.Unix(1000, 0), 300*time.Millisecond
	servers := []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d", Suffrage: raft.Nonvoter}}
	at := func(index uint64, ago time.Duration) peers.Progress {
		return peers.Progress{Index: index, Heard: now.Add(-ago)}
	}
	for _, test := range []struct {
		name  string
		known map[raft.ServerID]peers.Progress
		want  raft.ServerID
	}{
		{"nobody is known", nil, ""},
		{"both are well", map[raft.ServerID]peers.Progress{"b": at(9, 0), "c": at(9, 0)}, "b"},
		{"one has more", map[raft.ServerID]peers.Progress{"b": at(8, 0), "c": at(9, 0)}, "c"},
		{"who has more is away", map[raft.ServerID]peers.Progress{"b": at(9, time.Second), "c": at(8, 0)}, "c"},
		{"all are away", map[raft.ServerID]peers.Progress{"b": at(9, time.Second), "c": at(8, time.Second)}, ""},
		{"never itself, nor who has no vote", map[raft.ServerID]peers.Progress{"a": at(9, 0), "d": at(9, 0)}, ""},
	} {
		got, err := successor(servers, "a", test.known, now, beat)
		if got.ID != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got.ID, err, test.want)
		}
	}
}
