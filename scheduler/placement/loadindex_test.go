package placement

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestOrder compares the load index with a list that is sorted, for more nodes than a
// word, or a word of words, has bits.
func TestOrder(t *testing.T) {
	const size = 5000
	random := rand.New(rand.NewPCG(1, 2))
	o, among := loadIndex{size: size}, newBitset(size)
	tasks, in := make(map[int32]int), make(map[int32]bool)
	for round := range 20 {
		for range 3000 {
			i := int32(random.IntN(size))
			if n, listed := tasks[i]; listed {
				o.remove(i, n)
				delete(tasks, i)
			}
			if random.IntN(4) > 0 {
				tasks[i] = random.IntN(6)
				o.add(i, tasks[i])
			}
			j := int32(random.IntN(size))
			if in[j] = random.IntN(30) == 0; in[j] {
				among.set(j)
			} else {
				among.clear(j)
			}
		}
		var want, got []int32
		for i := range tasks {
			if in[i] {
				want = append(want, i)
			}
		}
		slices.SortFunc(want, func(a, b int32) int { return cmp.Or(cmp.Compare(tasks[a], tasks[b]), cmp.Compare(a, b)) })
		o.scan(among, func(i int32) bool { got = append(got, i); return true })
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %d nodes in the load index, want %d", round, len(got), len(want))
		}
		got = nil
		o.scan(among, func(i int32) bool { got = append(got, i); return len(got) < 3 })
		if !slices.Equal(got, want[:3]) {
			t.Fatalf("the first three are %v, want %v", got, want[:3])
		}
	}
}

// TestPlace_EvensOutAtEachLevel checks that branches beside each other differ by one
// task at most, whatever was there before.
func TestPlace_EvensOutAtEachLevel(t *testing.T) {
	l := New()
	labels := make(map[string]map[string]string)
	for i := range 300 {
		n := testNode(fmt.Sprintf("n%03d", i), 10)
		n.Spec.Labels = map[string]string{"zone": fmt.Sprint(i * i % 7), "rack": fmt.Sprint(i % 11)}
		labels[n.ID] = n.Spec.Labels
		l.ChangeNode(nil, n)
	}
	r := testRevision("web", 0)
	r.Spec.Placement = &swarm.Placement{Preferences: []swarm.PlacementPreference{
		{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}, {Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.rack"}},
	}}
	q := l.Require(r, Surroundings{})
	zones, racks := make(map[string]int), make(map[string]map[string]int)
	for _, l := range labels { // each branch, also without tasks
		if zones[l["zone"]] = 0; racks[l["zone"]] == nil {
			racks[l["zone"]] = make(map[string]int)
		}
		racks[l["zone"]][l["rack"]] = 0
	}
	even := func(counts map[string]int) bool {
		least, most := 1<<30, 0
		for _, n := range counts {
			least, most = min(least, n), max(most, n)
		}
		return most-least <= 1
	}
	for round, count := range []int{1, 2, 40, 3, 500, 1} {
		for _, c := range l.Place(&q, count, now) {
			at := labels[c.NodeID]
			zones[at["zone"]]++
			racks[at["zone"]][at["rack"]]++
		}
		if !even(zones) {
			t.Fatalf("round %d: zones have %v", round, zones)
		}
		for zone := range racks {
			if !even(racks[zone]) {
				t.Fatalf("round %d: racks of zone %s have %v", round, zone, racks[zone])
			}
		}
	}
}

// TestRequire_MorePlacementsThanAreKept checks that a placement that comes again knows what
// changed meanwhile.
func TestRequire_MorePlacementsThanAreKept(t *testing.T) {
	l := New()
	nodes := make([]*cluster.Node, 3)
	for i := range nodes {
		nodes[i] = testNode(fmt.Sprint("n", i), 10)
		l.ChangeNode(nil, nodes[i])
	}
	for round := range 3 * maxEligible {
		key := fmt.Sprint(round % (maxEligible + 7))
		for i, n := range nodes {
			next := *n
			next.Spec.Labels = map[string]string{"key": "none"}
			if i == round%3 {
				next.Spec.Labels["key"] = key
			}
			l.ChangeNode(n, &next)
			nodes[i] = &next
		}
		r := testRevision("web", 0)
		r.Spec.Placement = &swarm.Placement{Constraints: []string{"node.labels.key==" + key}}
		if got, want := place(l, r, 1), fmt.Sprint("n", round%3); got != want {
			t.Fatalf("round %d: placed on %q, want %s", round, got, want)
		}
		l.Settle()
		if len(l.eligible) > maxEligible {
			t.Fatalf("there are %d sets of eligible nodes", len(l.eligible))
		}
	}
}
