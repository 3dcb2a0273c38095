package clustertest

import (
	"testing"
	"time"
)

func TestClock_IsSetAndMeasuresSpansRightly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c clock
		for _, by := range []time.Duration{0, time.Hour, -time.Hour, 999 * time.Millisecond} {
			before, truth := c.Now(), time.Now()
			c.ahead.Store(int64(by))
			time.Sleep(3 * time.Second)
			after := c.Now()
			if d := after.Sub(before); d != 3*time.Second {
				t.Errorf("the clock was set %v ahead, and 3s took %v by it", by, d)
			}
			if want := truth.Add(3*time.Second + by); !after.Round(0).Equal(want) || after.Nanosecond() != want.Nanosecond() {
				t.Errorf("set %v ahead, the clock shows %v; want %v", by, after, want)
			}
		}
	})
}
