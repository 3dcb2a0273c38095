package timeline

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func ms(n float64) time.Time { return noon.Add(time.Duration(n * float64(time.Millisecond))) }

// Three managers did one thing after the other, a millisecond apart. Whatever their clocks show, they stand
// in that order; an offset that the exchange explains moves nothing.
func TestMerge_ClocksDiffer(t *testing.T) {
	answer := func(id string, clock time.Duration, trip float64, did ...float64) Answer {
		a := Answer{NodeID: id, Name: "name of " + id, Asked: ms(100), Came: ms(100 + trip), Now: ms(100 + trip/2).Add(clock)}
		for i, at := range did {
			a.Records = append(a.Records, Record{Seq: uint64(i), Time: ms(at).Add(clock), Kind: Role})
		}
		return a
	}
	lanes, records := Merge([]Answer{
		answer("c", -time.Hour, 2, 3, 6), answer("a", 0, 0, 1, 4), answer("b", 90*time.Second, 4, 2, 5), answer("d", 900*time.Microsecond, 2, 7),
		{NodeID: "e", Name: "x", Missing: "no answer within 1s"},
	})
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%s %v", r.Manager, r.Time.Sub(noon)))
	}
	if want := []string{"a 1ms", "b 2ms", "c 3ms", "a 4ms", "b 5ms", "c 6ms", "d 7.9ms"}; !reflect.DeepEqual(got, want) {
		t.Errorf("have %v, want %v", got, want)
	}
	want := []Lane{
		{NodeID: "a", Name: "name of a"},
		{NodeID: "b", Name: "name of b", Offset: 90 * time.Second, RoundTrip: 4 * time.Millisecond},
		{NodeID: "c", Name: "name of c", Offset: -time.Hour, RoundTrip: 2 * time.Millisecond},
		{NodeID: "d", Name: "name of d", RoundTrip: 2 * time.Millisecond},
		{NodeID: "e", Name: "x", Missing: "no answer within 1s"},
	}
	if !reflect.DeepEqual(lanes, want) {
		t.Errorf("have %+v, want %+v", lanes, want)
	}
}

// What a manager says is bounded, and counts as its own, whoever it says it is of.
func TestMerge_BelievesNoNames(t *testing.T) {
	long := string(make([]byte, 1000))
	_, records := Merge([]Answer{{NodeID: "a", Records: []Record{{Manager: "b", Node: long, Why: long}}}})
	if r := records[0]; r.Manager != "a" || len(r.Node) > maxID || len(r.Why) > maxWhy {
		t.Errorf("have %+v", r)
	}
}
