package scheduler

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/cluster"
)

// TestBackoff_Delay checks for all policies and limits: the first delay is the
// policy's, each one is longer than the one before until the limit is near, and
// none is over the limit or below the policy's.
func TestBackoff_Delay(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		policy := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(r, "policy"))
		least := max(policy, time.Second)
		b := backoff{limit: time.Duration(rapid.Int64Range(int64(least), int64(cluster.MaxRestartDelay)).Draw(r, "limit"))}
		before := time.Duration(0)
		for ends := 1; ends <= b.ends(policy)+2; ends++ {
			d := b.delay(policy, ends, rapid.StringN(1, 25, -1).Draw(r, "task"))
			switch {
			case ends == 1 && d != least:
				r.Fatalf("the first delay is %s, not %s", d, least)
			case d < least || d > b.limit:
				r.Fatalf("delay %s after %d ends", d, ends)
			case ends < b.ends(policy) && d <= before:
				r.Fatalf("delay %s after %d ends, and %s before", d, ends, before)
			case ends >= b.ends(policy) && d < b.limit-b.limit/4:
				r.Fatalf("delay %s after %d ends, which is far from the limit of %s", d, ends, b.limit)
			}
			before = d
		}
		if n := b.ends(policy); n > 18 {
			r.Fatalf("%d ends are kept", n)
		}
	})
}

// TestBackoff_SpreadsWhatFailedTogether: the same task always waits the same,
// and a hundred of them don't.
func TestBackoff_SpreadsWhatFailedTogether(t *testing.T) {
	b := backoff{limit: time.Hour}
	different := map[time.Duration]bool{}
	for i := range 100 {
		id := fmt.Sprintf("task%d", i)
		d := b.delay(time.Second, 9, id)
		if b.delay(time.Second, 9, id) != d {
			t.Fatalf("%s waits now this long, now that", id)
		}
		different[d] = true
	}
	if len(different) < 50 {
		t.Errorf("%d delays for 100 tasks", len(different))
	}
}
