package clustertest

import (
	"testing"
	"time"
)

func TestShift_MovesTheWallClockOnly(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour, 999 * time.Millisecond} {
		before := time.Now()
		moved := shift(before, by)
		if d := moved.Sub(before); d != 0 {
			t.Errorf("moved by %v, the monotonic clock shows %v; want 0", by, d)
		}
		if d := moved.Round(0).Sub(before.Round(0)); d != by {
			t.Errorf("moved by %v, the wall clock shows %v", by, d)
		}
		plain := before.Round(0)
		if d := shift(plain, by).Sub(plain); d != by {
			t.Errorf("a time of the wall clock only, moved by %v, shows %v", by, d)
		}
	}
}
