package cluster

import (
	"context"
	"log/slog"
	"time"
)

// Complaint says in the log what is wrong: once, when it has lasted for as long as it may,
// and once when it is over. One goroutine uses it.
//
// Levels mean: error, somebody must act, or this node is of no use; warn, something is
// wrong and may need somebody; info, what happened to the cluster; debug, how.
type Complaint struct {
	Log *slog.Logger
	// Level is that of the first line; the zero value means warn.
	Level slog.Level
	// Patience is how long it may last before it is said.
	Patience time.Duration
	// Now is the clock.
	Now func() time.Time

	since time.Time
	said  bool
}

// Forget takes in that nothing is wrong, which somebody else says.
func (c *Complaint) Forget() { c.said, c.since = false, time.Time{} }

// About takes in what is wrong now, or nil. What is the first line, over the last one.
func (c *Complaint) About(err error, what, over string, args ...any) {
	now := c.Now()
	switch {
	case err == nil:
		if c.said {
			c.Log.Info(over, args...)
		}
		c.Forget()
		return
	case c.since.IsZero():
		c.since = now
	}
	if c.said || now.Sub(c.since) < c.Patience {
		return
	}
	level := c.Level
	if level == 0 {
		level = slog.LevelWarn
	}
	c.said = true
	c.Log.Log(context.Background(), level, what, append(args, "err", err)...)
}

// Repeats counts what may happen without end, such as what others do wrong, so that it is
// said less and less often. The zero value is ready; it isn't safe for several goroutines.
type Repeats uint64

// Again counts one more, and tells whether to say it: the first, second, fourth and so on.
func (r *Repeats) Again() bool {
	*r++
	return *r&(*r-1) == 0
}
