package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster/telemetry"
	"skep/store/seal"
)

// largest is how many bytes one write takes at most, unless a single entry is
// larger; shortened is how many entries are removed by one. A follower that was
// away gets many of both.
const largest, shortened = 1 << 20, 64

// watchedLog is a sealed log under the eyes of a watchdog.
type watchedLog struct {
	*seal.Log
	dog *watchdog
	// fsync measures writes of entries, by now.
	fsync telemetry.Timer
	now   func() time.Time
}

var _ raft.MonotonicLogStore = (*watchedLog)(nil)

// GetLog reads an entry. All were good at the start, so a bad one means that
// the disk lies.
func (l *watchedLog) GetLog(index uint64, out *raft.Log) error {
	err := l.Log.GetLog(index, out)
	if errors.Is(err, seal.ErrBad) {
		l.dog.fail(fmt.Errorf("read log: %w", err))
	}
	return err
}

func (l *watchedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *watchedLog) StoreLogs(entries []*raft.Log) error {
	for len(entries) > 0 {
		part, size := firstEntries(entries, largest)
		if err := l.dog.watch("write log", size, func() error {
			return l.fsync.Measure(l.now, func() error { return l.Log.StoreLogs(part) })
		}); err != nil {
			return err
		}
		entries = entries[len(part):]
	}
	return nil
}

// firstEntries are as many of the entries as have no more than limit bytes, but at
// least one.
func firstEntries(entries []*raft.Log, limit int) (part []*raft.Log, size int) {
	for i, entry := range entries {
		if i > 0 && size+len(entry.Data) > limit {
			return entries[:i], size
		}
		size += len(entry.Data)
	}
	return entries, size
}

// DeleteRange removes entries a few at a time. There must never be a gap: from the end
// those that the leader doesn't have are removed, from the beginning those that a
// snapshot covers.
func (l *watchedLog) DeleteRange(low, high uint64) error {
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	for low <= high {
		from, to := low, min(high, low+shortened-1)
		if high >= last {
			from, to = max(low, high-min(high, shortened-1)), high
		}
		if err := l.dog.watch("shorten log", 0, func() error { return l.Log.DeleteRange(from, to) }); err != nil {
			return err
		}
		if high < last {
			low = to + 1
		} else if from == low {
			return nil
		} else {
			high, last = from-1, from-1
		}
	}
	return nil
}

// watchedStable is raft's terms and votes under the eyes of a watchdog.
type watchedStable struct {
	raft.StableStore
	dog *watchdog
}

func (s *watchedStable) Set(key, value []byte) error {
	return s.dog.watch("write vote", 0, func() error { return s.StableStore.Set(key, value) })
}

func (s *watchedStable) SetUint64(key []byte, value uint64) error {
	return s.dog.watch("write term", 0, func() error { return s.StableStore.SetUint64(key, value) })
}
