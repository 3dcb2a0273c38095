package store

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// recentEntries and recentBytes bound what of the log stays in memory: its last entries,
// which followers that are close behind are sent, and which are applied.
const recentEntries, recentBytes = 256, 8 << 20

// recentLog keeps the last entries of a log in memory. Raft's own cache counts entries
// only, each of which may have megabytes.
type recentLog struct {
	*watchedLog

	mu sync.Mutex // guards the fields below
	// last are entries without a gap between them; bytes is their size.
	last  []*raft.Log
	bytes int
}

var _ raft.MonotonicLogStore = (*recentLog)(nil)

// GetLog reads an entry.
func (l *recentLog) GetLog(index uint64, out *raft.Log) error {
	if entry := l.find(index); entry != nil {
		*out = *entry
		return nil
	}
	return l.watchedLog.GetLog(index, out)
}

func (l *recentLog) find(index uint64) *raft.Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == 0 || index < l.last[0].Index || index > l.last[len(l.last)-1].Index {
		return nil
	}
	return l.last[index-l.last[0].Index]
}

// StoreLog writes an entry.
func (l *recentLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs writes entries. None is kept that isn't written.
func (l *recentLog) StoreLogs(entries []*raft.Log) error {
	if err := l.watchedLog.StoreLogs(entries); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, entry := range entries {
		if n := len(l.last); n > 0 && l.last[n-1].Index+1 != entry.Index {
			l.last, l.bytes = nil, 0
		}
		l.last = append(l.last, entry)
		l.bytes += len(entry.Data)
	}
	for len(l.last) > 0 && (len(l.last) > recentEntries || l.bytes > recentBytes) {
		l.bytes -= len(l.last[0].Data)
		l.last[0] = nil
		l.last = l.last[1:]
	}
	return nil
}

// DeleteRange removes entries, at first those in memory.
func (l *recentLog) DeleteRange(low, high uint64) error {
	l.mu.Lock()
	l.last = slices.DeleteFunc(l.last, func(entry *raft.Log) bool { return entry.Index >= low && entry.Index <= high })
	l.bytes = 0
	for i, entry := range l.last {
		if entry.Index != l.last[0].Index+uint64(i) {
			l.last = nil // There would be a gap.
			break
		}
		l.bytes += len(entry.Data)
	}
	if l.last == nil {
		l.bytes = 0
	}
	l.mu.Unlock()
	return l.watchedLog.DeleteRange(low, high)
}
