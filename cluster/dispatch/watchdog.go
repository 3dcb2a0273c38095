package dispatch

import (
	"io"
	"sync"
	"time"
)

// watchdog calls its function when it wasn't fed for a while. It goes by timers,
// and by the clock only to know how much patience is left when the limit changes.
type watchdog struct {
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	limit time.Duration
	fed   time.Time
}

func newWatchdog(now func() time.Time, limit time.Duration, bark func()) *watchdog {
	return &watchdog{now: now, limit: limit, fed: now(), timer: time.AfterFunc(limit, bark)}
}

func (w *watchdog) feed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fed = w.now()
	w.timer.Reset(w.limit)
}

func (w *watchdog) setLimit(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.limit == limit {
		return
	}
	w.limit = limit
	w.timer.Reset(max(0, min(limit, limit-w.now().Sub(w.fed))))
}

// pause is for while the one who feeds is busy itself.
func (w *watchdog) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

func (w *watchdog) stop() { w.timer.Stop() }

// observedReader feeds the watchdog with every read that brings something.
type observedReader struct {
	io.Reader
	silence *watchdog
}

func (r *observedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.silence.feed()
	}
	return n, err
}
