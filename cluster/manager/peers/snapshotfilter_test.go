package peers

import (
	"testing"

	"github.com/hashicorp/raft"
)

func TestHas(t *testing.T) {
	log := raft.NewInmemStore()
	if err := log.StoreLogs([]*raft.Log{{Index: 11, Term: 3}, {Index: 12, Term: 4}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name              string
		term, index, last uint64
		want              bool
	}{
		{"what is applied already", 5, 10, 3, true},
		{"what is in the log, and not applied yet", 5, 12, 4, true},
		{"an entry of another term is in its place", 5, 11, 4, false},
		{"what isn't there", 5, 13, 4, false},
		{"an old leader's", 4, 10, 3, false},
		{"a new leader's", 6, 10, 3, false},
	} {
		request := &raft.InstallSnapshotRequest{Term: test.term, LastLogIndex: test.index, LastLogTerm: test.last}
		if got := covers(log, request, 5, 10); got != test.want {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}
