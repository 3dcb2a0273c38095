package store

import (
	"sync"
	"time"
)

// clock gives the database's time, which never goes back: what is written later has
// a later time, also when another manager leads by then whose clock is behind, or
// when a clock is set back. Whoever plans relies on that, since it takes what was
// made last for the newest. So the time is the machine's, or ahead of it.
type clock struct {
	machine func() time.Time

	mu sync.Mutex // guards the fields below
	// read is what the machine's clock said last, and ahead how far the database's time
	// was ahead of it.
	read  time.Time
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := c.machine()
	if !c.read.IsZero() {
		// A clock that was set back, or goes slow, shows less than has passed; the other
		// way round the machine comes up with what the database is ahead.
		passed, shown := max(0, read.Sub(c.read)), read.Round(0).Sub(c.read.Round(0))
		c.ahead = max(0, c.ahead+passed-shown)
	}
	c.read = read
	return read.Round(0).Add(c.ahead).UTC()
}

// raise has the time go on from that, if it isn't as late yet.
func (c *clock) raise(to time.Time) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if behind := to.Sub(now); behind > 0 {
		c.ahead += behind
	}
}

// Now is the database's time: what the leader stamps objects with.
func (s *Store) Now() time.Time { return s.clock.now() }

// newest is the latest time that an object was written at.
func (v View) newest() time.Time {
	var at time.Time
	for n, object := range v.s.objects() {
		if written := kinds[n-1].metaOf(object).UpdatedAt; written.After(at) {
			at = written
		}
	}
	return at
}
