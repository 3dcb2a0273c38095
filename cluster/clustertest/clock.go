package clustertest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// clock is a machine's: how far it is ahead of true time, which may change while the
// machine runs, as when NTP steps it.
type clock struct{ ahead atomic.Int64 }

// Now is the time by the machine's clock.
func (c *clock) Now() time.Time { return shift(time.Now(), time.Duration(c.ahead.Load())) }

// shift gives a time whose wall clock's part is moved, and whose monotonic one is true,
// so that spans are measured as on a machine whose clock is set: rightly. In a bubble
// times have no monotonic part, and the time package has no way to make one; this is
// how it keeps it.
func shift(t time.Time, by time.Duration) time.Time {
	const monotonic, from1To1970, from1To1885 = 1 << 63, 62135596800, 59453308800
	moved := t.Add(by)
	seconds := uint64(moved.Unix() + from1To1970 - from1To1885)
	made := moved
	*(*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&made)) = struct {
		wall uint64
		ext  int64
	}{monotonic | seconds<<30 | uint64(moved.Nanosecond()), t.UnixNano()}
	return made
}

// SetClock sets the machine's clock so far ahead of true time, or behind.
func (m *Machine) SetClock(ahead time.Duration) { m.clock.ahead.Store(int64(ahead)) }
