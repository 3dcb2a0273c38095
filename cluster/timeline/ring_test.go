package timeline

import (
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// What raft did stays when there is much else; and what a ring gives is never more than a manager reads.
func TestRing_IsBounded(t *testing.T) {
	ring := NewRing(strings.Repeat("m", 100), noon)
	ring.Add(Record{Time: noon, Kind: Ready, Term: 7})
	for i := range 3 * MaxRecords {
		at := noon.Add(time.Duration(i) * time.Second)
		ring.Wrote(at, 7, 1, time.Millisecond)
		ring.Add(Record{Time: at, Kind: NodeState, Node: "n", Word: "down"})
	}
	if all := ring.Since(time.Time{}); all[0].Kind != Ready || len(all) != 1+MaxRecords/2 {
		t.Errorf("%d records, the first is %+v", len(all), all[0])
	}
	long := strings.Repeat("é", 100)
	for range 3 * MaxRecords {
		for _, kind := range []Kind{Asked, NodeState, Writes} {
			ring.Add(Record{Time: noon.Add(time.Nanosecond), Kind: kind, Term: 1 << 62, Node: long, Count: 1 << 62, Took: 1 << 62, Word: long, Why: long})
		}
	}
	all := ring.Since(time.Time{})
	data, err := cluster.Encode(Answer{Now: noon, Records: all})
	if err != nil || len(all) != MaxRecords || len(data) > MaxAnswer {
		t.Errorf("%d records are %d bytes (%v)", len(all), len(data), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Seq <= all[i-1].Seq {
			t.Fatalf("record %d has number %d after %d", i, all[i].Seq, all[i-1].Seq)
		}
	}
}

func TestRing_NilTakesNothing(t *testing.T) {
	var ring *Ring
	ring.Add(Record{Time: noon, Kind: Ready})
	ring.Wrote(noon, 7, 1, 0)
	if all := ring.Since(time.Time{}); all != nil {
		t.Errorf("it has %v", all)
	}
}

// Writes of a second are one record, of a term.
func TestRing_Wrote(t *testing.T) {
	ring := NewRing("m", noon)
	for _, w := range []struct {
		ms, term int
		took     time.Duration
	}{{0, 7, 3}, {500, 7, 9}, {999, 7, 4}, {1000, 7, 2}, {1100, 8, 1}, {900, 8, 5}} {
		ring.Wrote(noon.Add(time.Duration(w.ms)*time.Millisecond), uint64(w.term), 2, w.took)
	}
	var got []Record
	for _, r := range ring.Since(noon) {
		got = append(got, Record{Time: r.Time, Term: r.Term, Count: r.Count, Took: r.Took})
	}
	want := []Record{
		{Time: noon, Term: 7, Count: 6, Took: 9},
		{Time: noon.Add(time.Second), Term: 7, Count: 2, Took: 2},
		{Time: noon.Add(1100 * time.Millisecond), Term: 8, Count: 2, Took: 1},
		{Time: noon.Add(900 * time.Millisecond), Term: 8, Count: 2, Took: 5}, // The clock was set back.
	}
	if len(got) != len(want) {
		t.Fatalf("have %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("record %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestCut(t *testing.T) {
	for text, want := range map[string]string{"": "", "short": "short", "twelve bytes": "twelve bytes", "thirteen byte": "thirteen …", "ééééééé": "éééé…", "bad\xff": "bad…"} {
		if got := cut(text, 12); got != want {
			t.Errorf("cut(%q) is %q, want %q", text, got, want)
		}
	}
}
