package agent

import (
	"sync"
	"time"
)

// How long a manager may say nothing, in quarters of the heartbeat period, in which it
// says something at least once: half of it when gossip misses the manager, too. Gossip's
// word alone ends nothing.
const (
	silentQuarters = 4 * silentPeriods
	missedQuarters = silentQuarters / 2
)

// gone tells whether a manager that has been silent for so many quarters is given up.
func gone(quarters int, missed bool) bool {
	return quarters >= silentQuarters || missed && quarters >= missedQuarters
}

// silence ends a session whose manager is silent for too long. It counts its own ticks
// rather than ask the clock, and there are none before it matters what gossip says.
type silence struct {
	missed func() bool
	end    func()
	timer  *time.Timer

	mu       sync.Mutex    // guards the fields below
	period   time.Duration // 0 before the welcome, for which there is one limit
	quarters int
}

func newSilence(welcome time.Duration, missed func() bool, end func()) *silence {
	s := &silence{missed: missed, end: end}
	s.timer = time.AfterFunc(welcome, s.tick)
	return s
}

// heard begins anew: the manager, whose heartbeats have the period, spoke.
func (s *silence) heard(period time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.period, s.quarters = period, missedQuarters-1
	s.timer.Reset(period * missedQuarters / 4)
}

func (s *silence) tick() {
	missed := s.missed()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quarters++; s.period > 0 && !gone(s.quarters, missed) {
		s.timer.Reset(s.period / 4)
		return
	}
	s.end()
}

func (s *silence) stop() { s.timer.Stop() }
