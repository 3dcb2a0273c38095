package dispatch

import (
	"io"
	"sync"
	"time"
)

// idleTimer calls its function when it wasn't reset for a while. It goes by timers, and by
// the clock only to know how much of the limit is left when that changes.
type idleTimer struct {
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	limit time.Duration
	since time.Time // of the last reset
}

func newIdleTimer(now func() time.Time, limit time.Duration, expired func()) *idleTimer {
	return &idleTimer{now: now, limit: limit, since: now(), timer: time.AfterFunc(limit, expired)}
}

func (t *idleTimer) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = t.now()
	t.timer.Reset(t.limit)
}

func (t *idleTimer) setLimit(limit time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit == limit {
		return
	}
	t.limit = limit
	t.timer.Reset(max(0, min(limit, limit-t.now().Sub(t.since))))
}

// pause stops it until the next reset: for while the one who resets it is busy itself.
func (t *idleTimer) pause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
}

func (t *idleTimer) stop() { t.timer.Stop() }

// observedReader resets timers with each read that brings something.
type observedReader struct {
	io.Reader
	timers []*idleTimer
}

func (r *observedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		for _, t := range r.timers {
			t.reset()
		}
	}
	return n, err
}
