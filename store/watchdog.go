package store

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// watchTicks is how many parts of the limit must pass one by one: a process that
	// was stopped, or a machine that slept, in the middle of a write finds all its
	// time gone at once, which says nothing about the disk.
	watchTicks = 20
	// slowest is how many bytes a disk must take in a second: so much longer may a
	// large write take.
	slowest = 1 << 20
)

// watchdog ends the process when a write to the disk fails or hangs. A write that
// failed must not be tried again: the kernel may call the next one good although
// data is gone. A write that hangs must not be left behind: it might finish later
// and break the order of the log. If nobody can go on without this process, it waits.
type watchdog struct {
	// dir is where the disk is mounted somewhere above.
	dir   string
	limit time.Duration
	fatal func(error)
	log   *slog.Logger
	// run is DiskConfig.Write, or nil.
	run func(what string, write func() error) error
	// waits tells whether a thread waits for the kernel, and so perhaps for the disk; not
	// for a processor, nor for another thread. nil when that isn't known: then it does.
	waits func(thread int) bool
	// dispensable is DiskConfig.Dispensable.
	dispensable func() bool

	mu     sync.Mutex // guards the fields below
	silent bool       // closed, or has barked
	hangs  map[*hang]struct{}
}

// hang is a write that takes longer than the limit.
type hang struct {
	what  string
	lasts time.Duration
}

// watch runs one write of so many bytes, which must neither fail nor hang.
func (w *watchdog) watch(what string, size int, write func() error) error {
	err := w.time(what, size, write)
	if err != nil {
		w.fail(fmt.Errorf("%s: %w", what, w.advise(err)))
	}
	return err
}

// time runs one write, which must not hang.
func (w *watchdog) time(what string, size int, write func() error) error {
	done := make(chan struct{})
	defer close(done)
	thread := 0
	if w.waits != nil && w.run == nil {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread = threadID()
	}
	go w.count(what, size, thread, done)
	if w.run != nil {
		return w.run(what, write)
	}
	return write()
}

// count counts the time of a write in ticks, those in which it waited for the disk.
func (w *watchdog) count(what string, size, thread int, done <-chan struct{}) {
	period := w.limit / watchTicks
	allowed := watchTicks + int(time.Duration(size)*time.Second/slowest/period)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for waited := 0; waited < allowed; {
		select {
		case <-done:
			return
		case <-tick.C:
			if thread == 0 || w.waits(thread) {
				waited++
			}
		}
	}
	h := &hang{what: what, lasts: time.Duration(allowed) * period}
	w.note(h)
	defer w.forget(h)
	// ended waits for so many ticks, and tells whether the write was done meanwhile.
	ended := func(ticks int) bool {
		for range ticks {
			select {
			case <-done:
				return true
			case <-tick.C:
				w.last(h, period)
			}
		}
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	give := w.dispensable == nil || w.dispensable()
	if !give {
		w.log.Error("the disk hangs; nobody can take over, so this manager waits", "dir", w.dir, "write", what, "for", h.lasts)
		defer w.log.Info("the disk that hung goes on, or others do", "dir", w.dir)
	}
	for wait := 0; ; wait = watchTicks / 2 {
		// Others that couldn't go on a moment ago: what held their disks may have held this one.
		if ended(wait) {
			return
		}
		if give {
			w.fail(fmt.Errorf("%s: the disk with %s hangs: it has taken more than %s; look for errors of the disk in the kernel's log, and start the daemon when it is well",
				what, w.dir, h.lasts))
			return
		}
		give = w.dispensable()
	}
}

func (w *watchdog) note(h *hang) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hangs == nil {
		w.hangs = map[*hang]struct{}{}
	}
	w.hangs[h] = struct{}{}
}

func (w *watchdog) forget(h *hang) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.hangs, h)
}

// last notes that a write goes on to hang.
func (w *watchdog) last(h *hang, more time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.lasts += more
}

// hung is for how long a write has been under way that takes too long; 0 when none is.
func (w *watchdog) hung() (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for h := range w.hangs {
		longest = max(longest, h.lasts)
	}
	return longest
}

// advise says what to do about a disk's refusal.
func (w *watchdog) advise(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; free space on the disk with %s, and start the daemon again", err, w.dir)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w; the disk with %s fails: replace it, and start the daemon again", err, w.dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; the disk with %s takes no writes: look for its errors in the kernel's log, and start the daemon when it does", err, w.dir)
	}
	return err
}

func (w *watchdog) fail(err error) {
	w.mu.Lock()
	silent := w.silent
	w.silent = true
	w.mu.Unlock()
	if !silent {
		w.fatal(err)
	}
}

func (w *watchdog) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = true
}
