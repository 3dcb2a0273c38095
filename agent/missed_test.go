package agent

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"skep/cluster"
)

// TestMissed takes a node through what gossip can say of it, a step each 100 ms.
func TestMissed(t *testing.T) {
	const suspectAfter = 150 * time.Millisecond
	list := func(members ...cluster.Member) []cluster.Member {
		return append(members, cluster.Member{NodeID: "other"})
	}
	well, suspect := cluster.Member{NodeID: "n"}, cluster.Member{NodeID: "n", Suspect: true}
	left := cluster.Member{NodeID: "n", Left: true}
	for _, c := range []struct {
		name  string
		steps [][]cluster.Member
		// away is after which steps nothing is led to the node, and knocked after which it is asked whether it lives.
		away, knocked []int
		// next is when there is to be another look after the last step.
		next time.Duration
	}{
		{"well", [][]cluster.Member{list(well), list(well)}, nil, nil, 0},
		{"gone", [][]cluster.Member{list(well), list(), list()}, []int{1, 2}, []int{1, 2}, 0},
		{"suspected a moment ago", [][]cluster.Member{list(well), list(suspect), list(suspect)}, nil, []int{1, 2}, 50 * time.Millisecond},
		{"suspected for long", [][]cluster.Member{list(well), list(suspect), list(suspect), list(suspect)}, []int{3}, []int{1, 2, 3}, 0},
		{"it objects", [][]cluster.Member{list(well), list(suspect), list(well), list(suspect), list(suspect)}, nil, []int{1, 3, 4}, 50 * time.Millisecond},
		{"it is back", [][]cluster.Member{list(well), list(), list(well)}, []int{1}, []int{1}, 0},
		{"it left in order", [][]cluster.Member{list(well), list(left), list()}, nil, []int{1, 2}, 0},
		{"it left, and is back, and is dead", [][]cluster.Member{list(well), list(left), list(), list(well), list()}, []int{4}, []int{1, 2, 4}, 0},
		{"gossip never saw it, and it left", [][]cluster.Member{list(), list(left), list()}, nil, nil, 0},
		{"gossip never saw it", [][]cluster.Member{list(), list(suspect), list(suspect), list(suspect), list()}, nil, nil, 0},
		{"seen but once", [][]cluster.Member{list(), list(well), list()}, []int{2}, []int{2}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m missed
			var got, knocked []int
			var next time.Duration
			nodes := []cluster.NetworkNode{{ID: "n", Index: 1}, {ID: "other", Index: 2}}
			for i, members := range c.steps {
				var away map[string]bool
				m, away, next = m.observe(members, nodes, suspectAfter, time.Unix(0, 0).Add(time.Duration(i)*100*time.Millisecond))
				if away["n"] {
					got = append(got, i)
				}
				if m["n"].gone() {
					knocked = append(knocked, i)
				}
				if away["other"] {
					t.Error("the other one is missed")
				}
			}
			if !slices.Equal(got, c.away) || next != c.next {
				t.Errorf("away after %v, next look in %v; want %v and %v", got, next, c.away, c.next)
			}
			if !slices.Equal(knocked, c.knocked) {
				t.Errorf("asked after %v, want %v", knocked, c.knocked)
			}
		})
	}
}

// TestMissed_IsBounded has members come and go that are no nodes: nothing is kept of them.
func TestMissed_IsBounded(t *testing.T) {
	var m missed
	for i := range 100 {
		m, _, _ = m.observe([]cluster.Member{{NodeID: fmt.Sprint(i)}}, []cluster.NetworkNode{{ID: "0", Index: 1}}, time.Second, time.Unix(int64(i), 0))
	}
	if kept := slices.Sorted(maps.Keys(m)); !slices.Equal(kept, []string{"0", "99"}) {
		t.Errorf("kept %v", kept)
	}
}
