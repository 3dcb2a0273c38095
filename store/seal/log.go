package seal

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Log is a raft log store whose entries, of every type, lie sealed in another.
// Index, term and type of an entry stay readable, but are authenticated, so an
// entry cannot be moved or given another type.
type Log struct {
	inner     raft.LogStore
	ring      *Ring
	clusterID string
	// writing is held while entries are sealed and written, or removed.
	writing sync.Mutex
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
)

// NewLog wraps inner.
func NewLog(inner raft.LogStore, ring *Ring, clusterID string) *Log {
	return &Log{inner: inner, ring: ring, clusterID: clusterID}
}

// IsMonotonic makes raft clear the log after it installed a snapshot, so that no
// gap is ever in it and a late install can't loop (hashicorp/raft #697).
func (l *Log) IsMonotonic() bool { return true }

// FirstIndex is the index of the first entry; 0 when there is none.
func (l *Log) FirstIndex() (uint64, error) { return l.inner.FirstIndex() }

// LastIndex is the index of the last entry; 0 when there is none.
func (l *Log) LastIndex() (uint64, error) { return l.inner.LastIndex() }

// DeleteRange removes the entries from min to max, both included.
func (l *Log) DeleteRange(min, max uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.inner.DeleteRange(min, max)
}

// GetLog reads one entry. An error of ErrBad names the index.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	var entry raft.Log
	if err := l.inner.GetLog(index, &entry); err != nil {
		return err
	}
	if entry.Index != index {
		return fmt.Errorf("open log entry %d: %w: it says it is entry %d", index, ErrBad, entry.Index)
	}
	return l.Open(&entry, out)
}

// Open opens an entry as the inner store has it.
func (l *Log) Open(stored, out *raft.Log) error {
	plain, err := l.ring.Open(stored.Data, l.place(stored))
	if err != nil {
		return err
	}
	entry := *stored
	if err = split(plain, &entry); err != nil {
		return fmt.Errorf("open log entry %d: %w", stored.Index, err)
	}
	*out = entry
	return nil
}

// StoreLog seals and stores one entry.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs seals and stores entries. It leaves those given as they are, since
// raft goes on using them.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.storeLocked(entries)
}

func (l *Log) storeLocked(entries []*raft.Log) error {
	sealed := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		sealed[i] = &raft.Log{
			Index: entry.Index, Term: entry.Term, Type: entry.Type,
			Data: l.ring.Seal(join(entry), l.place(entry)),
		}
	}
	return l.inner.StoreLogs(sealed)
}

func (l *Log) place(entry *raft.Log) Location {
	return Location{ClusterID: l.clusterID, Kind: fmt.Sprintf("log entry of type %d", entry.Type), Index: entry.Index, Term: entry.Term}
}

// join makes time, data and extensions of an entry one record, so that none can
// be taken from another entry or left out.
func join(entry *raft.Log) []byte {
	out := make([]byte, 0, 2*binary.MaxVarintLen64+len(entry.Data)+len(entry.Extensions))
	var appended int64
	if !entry.AppendedAt.IsZero() {
		appended = entry.AppendedAt.UnixNano()
	}
	out = binary.AppendVarint(out, appended)
	out = binary.AppendUvarint(out, uint64(len(entry.Data)))
	out = append(out, entry.Data...)
	return append(out, entry.Extensions...)
}

// split is the inverse of join; empty parts come back as nil.
func split(plain []byte, entry *raft.Log) error {
	appended, n := binary.Varint(plain)
	if n <= 0 {
		return ErrBad
	}
	plain = plain[n:]
	size, n := binary.Uvarint(plain)
	if n <= 0 || size > uint64(len(plain)-n) {
		return ErrBad
	}
	entry.AppendedAt = time.Time{}
	if appended != 0 {
		entry.AppendedAt = time.Unix(0, appended)
	}
	rest := plain[n:]
	entry.Data, entry.Extensions = nil, nil
	if size > 0 {
		entry.Data = rest[:size:size]
	}
	if rest = rest[size:]; len(rest) > 0 {
		entry.Extensions = rest
	}
	return nil
}
