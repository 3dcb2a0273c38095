package store

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"skep/store/seal"
)

// watchTicks is how many parts of the limit must pass one by one: a process that
// was stopped, or a machine that slept, in the middle of a write finds all its
// time gone at once, which says nothing about the disk.
const watchTicks = 4

// watchdog ends the process when a write to the disk fails or hangs. A write that
// failed must not be tried again: the kernel may call the next one good although
// data is gone. A write that hangs must not be left behind: it might finish later
// and break the order of the log.
type watchdog struct {
	// dir is where the disk is mounted somewhere above.
	dir   string
	limit time.Duration
	fatal func(error)
	// run is DiskConfig.Write, or nil.
	run func(what string, write func() error) error

	mu     sync.Mutex // guards the field below
	silent bool       // closed, or has barked
}

func newWatchdog(dir string, limit time.Duration, fatal func(error), run func(string, func() error) error) *watchdog {
	return &watchdog{dir: dir, limit: limit, fatal: fatal, run: run}
}

// watch runs one write, which must neither fail nor hang.
func (w *watchdog) watch(what string, write func() error) error {
	err := w.time(what, write)
	if err != nil {
		w.bark(fmt.Errorf("%s: %w", what, w.advise(err)))
	}
	return err
}

// time runs one write, which must not hang.
func (w *watchdog) time(what string, write func() error) error {
	done := make(chan struct{})
	defer close(done)
	go w.count(what, done)
	if w.run != nil {
		return w.run(what, write)
	}
	return write()
}

func (w *watchdog) count(what string, done <-chan struct{}) {
	tick := time.NewTicker(w.limit / watchTicks)
	defer tick.Stop()
	for range watchTicks {
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
	w.bark(fmt.Errorf("%s: the disk with %s hangs: it has taken more than %s; look for errors of the disk in the kernel's log, and start the daemon when it is well",
		what, w.dir, w.limit))
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

func (w *watchdog) bark(err error) {
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

// watchedLog is a sealed log under the eyes of a watchdog.
type watchedLog struct {
	*seal.Log
	dog *watchdog
}

var _ raft.MonotonicLogStore = (*watchedLog)(nil)

// GetLog reads an entry. All were good at the start, so a bad one means that
// the disk lies.
func (l *watchedLog) GetLog(index uint64, out *raft.Log) error {
	err := l.Log.GetLog(index, out)
	if errors.Is(err, seal.ErrBad) {
		l.dog.bark(fmt.Errorf("read log: %w", err))
	}
	return err
}

func (l *watchedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *watchedLog) StoreLogs(entries []*raft.Log) error {
	return l.dog.watch("write log", func() error { return l.Log.StoreLogs(entries) })
}

func (l *watchedLog) DeleteRange(min, max uint64) error {
	return l.dog.watch("shorten log", func() error { return l.Log.DeleteRange(min, max) })
}

// watchedStable is raft's terms and votes under the eyes of a watchdog.
type watchedStable struct {
	raft.StableStore
	dog *watchdog
}

func (s *watchedStable) Set(key, value []byte) error {
	return s.dog.watch("write vote", func() error { return s.StableStore.Set(key, value) })
}

func (s *watchedStable) SetUint64(key []byte, value uint64) error {
	return s.dog.watch("write term", func() error { return s.StableStore.SetUint64(key, value) })
}
