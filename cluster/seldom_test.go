package cluster

import (
	"fmt"
	"testing"
	"time"
)

func TestSeldom(t *testing.T) {
	var s Seldom
	now := time.Unix(1_000_000, 0)
	lines, counted := 0, 0
	cause := func(peer string, times int) (said int) {
		for range times {
			unsaid, due := s.Due(now, peer)
			if due {
				said++
				counted += unsaid + 1
			}
		}
		lines += said
		return said
	}
	if said := cause("loud", 1000); said != seldomEach {
		t.Errorf("%d lines of one peer", said)
	}
	if cause("other", 1) != 1 {
		t.Error("one peer keeps another out of the log")
	}
	for i := range 10_000 {
		cause(fmt.Sprint(i), 10)
	}
	if lines != seldomAll || len(s.said) > seldomAll {
		t.Errorf("%d lines, %d peers in memory", lines, len(s.said))
	}
	for _, step := range []time.Duration{seldomSpan, -time.Hour} { // clocks are set back, too
		now = now.Add(step)
		if cause("loud", 10) != seldomEach {
			t.Errorf("after %v nothing more is said", step)
		}
	}
	now = now.Add(seldomSpan)
	cause("loud", 1)
	if want := 1000 + 1 + 100_000 + 10 + 10 + 1; counted != want {
		t.Errorf("%d are accounted for, not %d", counted, want)
	}
}
