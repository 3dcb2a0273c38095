package cluster

import "time"

// Time is an instant in nanoseconds since 1970 UTC; zero means never. Records
// that exist by the hundred thousand use it: a third of time.Time's size.
type Time int64

// At converts t; the zero time.Time gives the zero Time.
func At(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixNano())
}

// Std converts back, in UTC.
func (t Time) Std() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(t)).UTC()
}

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns the time that passed from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// IsZero tells whether t is never.
func (t Time) IsZero() bool { return t == 0 }
