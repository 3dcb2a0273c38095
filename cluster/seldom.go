package cluster

import (
	"sync"
	"time"
)

const (
	// seldomSpan is the time in which each peer has seldomEach lines of a Seldom, and all
	// together have seldomAll: so what others cause without end doesn't fill the disk, nor
	// hide what else is said.
	seldomSpan = time.Minute
	seldomEach = 3
	seldomAll  = 30
)

// Seldom decides what to log of a thing that others can cause as often as they like. The zero
// value is ready, and many goroutines may use it.
type Seldom struct {
	mu     sync.Mutex // guards the fields below
	began  time.Time
	said   map[string]int // in this span, by peer
	all    int
	unsaid int // since the last line
}

// Due tells whether to log one more that peer caused, and how many weren't since the last line.
func (s *Seldom) Due(now time.Time, peer string) (unsaid int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := now.Sub(s.began); s.said == nil || since < 0 || since >= seldomSpan {
		s.began, s.said, s.all = now, map[string]int{}, 0
	}
	if s.all >= seldomAll || s.said[peer] >= seldomEach {
		s.unsaid++
		return 0, false
	}
	s.said[peer]++
	s.all++
	unsaid, s.unsaid = s.unsaid, 0
	return unsaid, true
}
