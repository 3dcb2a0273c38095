package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"skep/cluster"
	"skep/store/seal"
)

// raft-boltdb's buckets: entries by index, and what raft keeps besides; of that one
// nothing is used, since terms and votes are in the manifest.
var (
	logBucket    = []byte("logs")
	stableBucket = []byte("conf")
)

// manifestIndex is where the manifest is in the log: after all entries. Before them it would
// share a page with the first ones, which have up to some MiB and would be written anew
// with each manifest.
const manifestIndex = math.MaxUint64

// lastVoteTerm is raft's name for the term of its last vote.
const lastVoteTerm = "LastVoteTerm"

// extent is which entries there are.
type extent struct {
	// First and Last are 0 when there is none.
	First uint64 `cbor:"1,keyasint"`
	Last  uint64 `cbor:"2,keyasint"`
	// TagXor is the XOR of the AEAD tags of all records, which are their last bytes: no two
	// sets of entries have the same.
	TagXor [16]byte `cbor:"3,keyasint"`
}

// xor adds an entry to TagXor, or takes it out.
func (e *extent) xor(sealed []byte) {
	if len(sealed) < len(e.TagXor) {
		return // No record of ours is so short; it doesn't open.
	}
	for i, b := range sealed[len(sealed)-len(e.TagXor):] {
		e.TagXor[i] ^= b
	}
}

// add takes in an entry.
func (e *extent) add(index uint64, sealed []byte) {
	e.xor(sealed)
	if e.First == 0 || index < e.First {
		e.First = index
	}
	e.Last = max(e.Last, index)
}

// removal is what the transaction after the manifest's removes: entries From to To, of Log.
type removal struct {
	From uint64 `cbor:"1,keyasint"`
	To   uint64 `cbor:"2,keyasint"`
	Log  extent `cbor:"3,keyasint"`
}

// manifest says what is in the log file. It is a sealed record beside the entries, written
// by the transactions that write them. So a record that bbolt silently drops after a bit
// flip is detected. An older manifest is detected by Tx, since bbolt's meta page, which has a
// checksum, has the number of the newest transaction.
type manifest struct {
	// Tx is the number of the transaction that wrote it.
	Tx uint64 `cbor:"1,keyasint"`
	// Log is what is there, once Removing is done.
	Log      extent   `cbor:"2,keyasint"`
	Removing *removal `cbor:"3,keyasint,omitempty"`
	// Snapshot is how far a finished snapshot reaches.
	Snapshot uint64 `cbor:"4,keyasint,omitempty"`
	// Stable is what raft keeps besides its log: terms and votes.
	Stable map[string][]byte `cbor:"5,keyasint,omitempty"`
}

func manifestPlace(clusterID string) seal.Location {
	// The kind is authenticated with the record, so it stays as it was first called.
	return seal.Location{ClusterID: clusterID, Kind: "mark of the log"}
}

func (m *manifest) open(sealed []byte, ring *seal.Ring, clusterID string) error {
	plain, err := ring.Open(sealed, manifestPlace(clusterID))
	if err != nil {
		return err
	}
	if len(plain) == 0 {
		return damage("the manifest is empty")
	}
	if err := checkFormat(uint64(plain[0])); err != nil {
		return fmt.Errorf("decode the manifest: %w", err)
	}
	return cluster.Decode(plain[1:], m)
}

func (m *manifest) seal(ring *seal.Ring, clusterID string) (*raft.Log, error) {
	plain, err := cluster.Encode(m)
	if err != nil {
		return nil, err
	}
	return &raft.Log{Index: manifestIndex, Data: ring.Seal(append([]byte{format}, plain...), manifestPlace(clusterID))}, nil
}

// manifestBolt keeps raft's log, terms and votes in raft-boltdb, whose entries are sealed
// records, and adds the manifest. It makes one transaction of each call, but of DeleteRange
// two: then the manifest says first what will be gone.
type manifestBolt struct {
	bolt      *raftboltdb.BoltStore
	ring      *seal.Ring
	clusterID string

	// manifest is the newest one. It never changes; another takes its place.
	manifest atomic.Pointer[manifest]

	writing sync.Mutex // held through each call that writes; guards the fields below
	// tx is the number of the newest transaction.
	tx uint64
	// failed is the error of a transaction. What is on the disk isn't known any more then.
	failed error
}

var (
	_ raft.LogStore    = (*manifestBolt)(nil)
	_ raft.StableStore = (*manifestBolt)(nil)
)

// boltOptions: the list of free pages isn't written with each entry but made anew when
// the file is opened, which makes an entry seven times as quick.
var boltOptions = bbolt.Options{Timeout: lockLimit, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}

var errOpen = errors.New("another process has it open")

// openManifest opens the log file that checkFile found to be good and to have the manifest m,
// or makes one if m is nil. A new one is complete as soon as it has its name.
func openManifest(path string, ring *seal.Ring, clusterID string, m *manifest) (*manifestBolt, error) {
	b := &manifestBolt{ring: ring, clusterID: clusterID}
	if err := b.open(path, m); err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = errOpen
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return b, nil
}

func (b *manifestBolt) open(path string, m *manifest) (err error) {
	if m == nil {
		beside := path + ".new"
		if err := os.RemoveAll(beside); err != nil { // what a crash left behind
			return err
		}
		if err := b.prepare(beside, manifest{}); err != nil {
			return err
		}
		if err := os.Rename(beside, path); err != nil {
			return err
		}
		if err := cluster.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	} else if err := b.prepare(path, *m); err != nil {
		return err
	}
	if b.bolt, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &boltOptions}); err != nil {
		return err
	}
	b.tx++ // New makes sure of its buckets, in a transaction that changes nothing.
	return nil
}

// prepare finishes what was begun, and writes the manifest anew: so never more than one
// transaction comes after the manifest's without changing anything, however often the file
// is opened.
func (b *manifestBolt) prepare(path string, m manifest) error {
	db, err := bbolt.Open(path, 0o600, &boltOptions)
	if err != nil {
		return err
	}
	defer db.Close() // Closed twice when all goes well, which does nothing.
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(stableBucket); err != nil {
			return err
		}
		entries, err := tx.CreateBucketIfNotExists(logBucket)
		if err != nil {
			return err
		}
		if left := m.Removing; left != nil {
			for index := left.From; index <= left.To; index++ {
				if err := entries.Delete(indexKey(index)); err != nil {
					return err
				}
			}
		}
		m.Tx, m.Removing = uint64(tx.ID()), nil
		entry, err := m.seal(b.ring, b.clusterID)
		if err != nil {
			return err
		}
		record, err := encodeRecord(entry)
		if err != nil {
			return err
		}
		return entries.Put(indexKey(manifestIndex), record)
	})
	if err != nil {
		return err
	}
	b.tx = m.Tx
	b.manifest.Store(&m)
	return db.Close()
}

// Close closes the file.
func (b *manifestBolt) Close() error { return b.bolt.Close() }

// write stores entries, and the manifest as change makes it, in one transaction.
func (b *manifestBolt) write(entries []*raft.Log, change func(*manifest) error) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.writeLocked(entries, change)
}

func (b *manifestBolt) writeLocked(entries []*raft.Log, change func(*manifest) error) error {
	next := *b.manifest.Load()
	next.Tx, next.Removing = b.tx+1, nil
	if err := change(&next); err != nil {
		return err
	}
	entry, err := next.seal(b.ring, b.clusterID)
	if err != nil {
		return err
	}
	all := append(append(make([]*raft.Log, 0, len(entries)+1), entries...), entry)
	if err := b.transactLocked(func() error { return b.bolt.StoreLogs(all) }); err != nil {
		return err
	}
	b.manifest.Store(&next)
	return nil
}

// transactLocked makes one transaction.
func (b *manifestBolt) transactLocked(call func() error) error {
	if b.failed != nil {
		return fmt.Errorf("an earlier write failed: %w", b.failed)
	}
	if b.failed = call(); b.failed == nil {
		b.tx++
	}
	return b.failed
}

// Reencrypt writes the manifest anew, under the key that the ring seals with now.
func (b *manifestBolt) Reencrypt() error { return b.write(nil, func(*manifest) error { return nil }) }

// NoteSnapshot notes that there is a snapshot up to index.
func (b *manifestBolt) NoteSnapshot(index uint64) error {
	return b.write(nil, func(m *manifest) error {
		m.Snapshot = max(m.Snapshot, index)
		return nil
	})
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// indexOf is the index that a key stands for; 0 for no key.
func indexOf(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}

// FirstIndex is as in raft.LogStore.
func (b *manifestBolt) FirstIndex() (uint64, error) { return b.manifest.Load().Log.First, nil }

// LastIndex is as in raft.LogStore.
func (b *manifestBolt) LastIndex() (uint64, error) { return b.manifest.Load().Log.Last, nil }

// GetLog is as in raft.LogStore.
func (b *manifestBolt) GetLog(index uint64, out *raft.Log) error {
	if index == manifestIndex {
		return raft.ErrLogNotFound
	}
	err := b.bolt.GetLog(index, out)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return err
	}
	return fmt.Errorf("read log entry %d: %w: %w", index, seal.ErrBad, err)
}

// StoreLog is as in raft.LogStore.
func (b *manifestBolt) StoreLog(entry *raft.Log) error { return b.StoreLogs([]*raft.Log{entry}) }

// StoreLogs is as in raft.LogStore.
func (b *manifestBolt) StoreLogs(entries []*raft.Log) error {
	return b.write(entries, func(m *manifest) error {
		for _, entry := range entries {
			if entry.Index >= m.Log.First && entry.Index <= m.Log.Last {
				if err := b.takeOut(&m.Log, entry.Index); err != nil && !errors.Is(err, raft.ErrLogNotFound) {
					return err
				}
			}
			m.Log.add(entry.Index, entry.Data)
		}
		return nil
	})
}

// takeOut takes the entry of an index out of TagXor.
func (b *manifestBolt) takeOut(log *extent, index uint64) error {
	var entry raft.Log
	err := b.GetLog(index, &entry)
	if err == nil {
		log.xor(entry.Data)
	}
	return err
}

// DeleteRange is as in raft.LogStore. A crash between its two steps is made good by
// prepare.
func (b *manifestBolt) DeleteRange(low, high uint64) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	gone, err := b.announceLocked(low, high)
	if err != nil || gone == nil {
		return err
	}
	return b.transactLocked(func() error { return b.bolt.DeleteRange(gone.From, gone.To) })
}

// announceLocked has the manifest say what will be gone; nil when there is nothing of it.
func (b *manifestBolt) announceLocked(low, high uint64) (*removal, error) {
	before := b.manifest.Load().Log
	low, high = max(low, before.First), min(high, before.Last)
	after, removed := before, false
	for index := low; index <= high; index++ {
		err := b.takeOut(&after, index)
		if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
			return nil, err
		}
		removed = removed || err == nil
	}
	if !removed {
		return nil, nil
	}
	if err := b.shrink(&after, low, high); err != nil {
		return nil, err
	}
	gone := &removal{From: low, To: high, Log: before}
	return gone, b.writeLocked(nil, func(m *manifest) error {
		m.Log, m.Removing = after, gone
		return nil
	})
}

// shrink moves the ends of log, of which the entries from low to high go, to the next
// ones that are there: at once, since raft leaves no gaps.
func (b *manifestBolt) shrink(log *extent, low, high uint64) error {
	gone := func(index uint64) (bool, error) {
		if index >= low && index <= high {
			return true, nil
		}
		err := b.GetLog(index, new(raft.Log))
		if errors.Is(err, raft.ErrLogNotFound) {
			return true, nil
		}
		return false, err
	}
	first, last := log.First, log.Last
	for ; first <= last; first++ {
		if is, err := gone(first); err != nil {
			return err
		} else if !is {
			break
		}
	}
	for ; last > first; last-- {
		if is, err := gone(last); err != nil {
			return err
		} else if !is {
			break
		}
	}
	if log.First, log.Last = first, last; first > last {
		*log = extent{}
	}
	return nil
}

// Set is as in raft.StableStore, but for the term of a vote: raft writes after it for
// whom it was, and that call writes both.
func (b *manifestBolt) Set(key, value []byte) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	next := *b.manifest.Load()
	next.Stable = maps.Clone(next.Stable)
	if next.Stable == nil {
		next.Stable = map[string][]byte{}
	}
	next.Stable[string(key)] = bytes.Clone(value)
	if string(key) == lastVoteTerm {
		b.manifest.Store(&next)
		return nil
	}
	return b.writeLocked(nil, func(m *manifest) error {
		m.Stable = next.Stable
		return nil
	})
}

// Get is as in raft.StableStore.
func (b *manifestBolt) Get(key []byte) ([]byte, error) {
	value, ok := b.manifest.Load().Stable[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return bytes.Clone(value), nil
}

// SetUint64 is as in raft.StableStore.
func (b *manifestBolt) SetUint64(key []byte, value uint64) error { return b.Set(key, indexKey(value)) }

// GetUint64 is as in raft.StableStore.
func (b *manifestBolt) GetUint64(key []byte) (uint64, error) {
	value, err := b.Get(key)
	return indexOf(value), err
}

// encodeRecord is how raft-boltdb has an entry in its file, decodeRecord how it reads one.
func encodeRecord(entry *raft.Log) (record []byte, err error) {
	var handle codec.MsgpackHandle
	handle.TimeNotBuiltin = true
	err = codec.NewEncoderBytes(&record, &handle).Encode(entry)
	return record, err
}

func decodeRecord(record []byte, out *raft.Log) error {
	return codec.NewDecoderBytes(record, &codec.MsgpackHandle{}).Decode(out)
}
