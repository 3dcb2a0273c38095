package clustertest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// clock is a machine's: how far it is ahead of the others', which may change while
// the machine runs, as when NTP steps it.
type clock struct{ ahead atomic.Int64 }

// Now is the time by the machine's clock.
func (c *clock) Now() time.Time { return shift(time.Now(), time.Duration(c.ahead.Load())) }

// shift moves the wall clock's part of a time and leaves the monotonic one, so that
// spans are measured as on a machine whose clock is set: rightly. The time package
// has no way to do that.
func shift(t time.Time, by time.Duration) time.Time {
	t = t.Add(by)
	parts := (*struct {
		wall uint64
		ext  int64 // the monotonic reading where there is one
		loc  *time.Location
	})(unsafe.Pointer(&t))
	if parts.wall>>63 == 1 {
		parts.ext -= int64(by)
	}
	return t
}

// SetClock sets the machine's clock so far ahead of true time, or behind.
func (m *Machine) SetClock(ahead time.Duration) { m.clock.ahead.Store(int64(ahead)) }
