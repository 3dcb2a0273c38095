package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"skep/store/seal"
)

// The log file's buckets: entries by index, terms and votes by raft's names for them,
// and the mark.
var (
	logBucket    = []byte("logs")
	stableBucket = []byte("conf")
	markBucket   = []byte("mark")
)

// stableKeys are what raft keeps in its stable store.
var stableKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

// mark says what else is in the log file. It is sealed, and written by each
// transaction: so what bbolt loses without a word, since a bit of its pages flipped,
// is missed. bbolt keeps so small a bucket in the page that its checksummed meta page
// points to; no other pointer leads to an older mark.
type mark struct {
	// First and Last are the log's; 0 when it is empty.
	First, Last uint64
	// Snapshot is how far a finished snapshot reaches.
	Snapshot uint64
	// Sum is the last bytes of all records, added up without carry. Each of them is the
	// tag of a sealed record, so no two sets of records have the same sum.
	Sum [16]byte
}

// toggle adds a record to the sum, or takes it out.
func (m *mark) toggle(record []byte) {
	if len(record) < len(m.Sum) {
		return // No record of ours is so short; it doesn't open.
	}
	for i, b := range record[len(record)-len(m.Sum):] {
		m.Sum[i] ^= b
	}
}

// boltStore keeps raft's log, terms and votes in a bbolt file, as sealed records:
// of an entry it stores index, term, type and data only. It isn't raft-boltdb, whose
// transactions take in nothing else.
type boltStore struct {
	db    *bbolt.DB
	ring  *seal.Ring
	place seal.Place
}

var (
	_ raft.LogStore    = (*boltStore)(nil)
	_ raft.StableStore = (*boltStore)(nil)
)

func markPlace(clusterID string) seal.Place {
	return seal.Place{ClusterID: clusterID, Kind: "mark of the log"}
}

// openBolt opens the log file, which checkFile found to be good, or makes one. The
// list of its free pages isn't written with each entry but made anew here, which makes
// an entry seven times as quick.
func openBolt(path string, ring *seal.Ring, clusterID string) (*boltStore, error) {
	b := &boltStore{ring: ring, place: markPlace(clusterID)}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := b.create(path); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
	}
	if err := b.open(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return b, nil
}

func (b *boltStore) open(path string) (err error) {
	b.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockLimit, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bbolt.ErrTimeout) {
		return errOpen
	}
	return err
}

var errOpen = errors.New("another process has it open")

// create makes an empty log file, complete as soon as it has its name.
func (b *boltStore) create(path string) error {
	beside := path + ".new"
	if err := os.RemoveAll(beside); err != nil { // what a crash left behind
		return err
	}
	if err := b.open(beside); err != nil {
		return err
	}
	err := b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{logBucket, stableBucket, markBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return (&writing{b: b, tx: tx}).end()
	})
	if err := errors.Join(err, b.db.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside, path); err != nil {
		return err
	}
	return seal.SyncDir(filepath.Dir(path))
}

func (b *boltStore) Close() error { return b.db.Close() }

// writing is one transaction, with the mark as it will be.
type writing struct {
	b    *boltStore
	tx   *bbolt.Tx
	mark mark
}

// write runs one transaction.
func (b *boltStore) write(change func(w *writing) error) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		w := &writing{b: b, tx: tx}
		if err := w.mark.open(tx.Bucket(markBucket).Get(markBucket), b.ring, b.place); err != nil {
			return err
		}
		if err := change(w); err != nil {
			return err
		}
		return w.end()
	})
}

func (m *mark) open(sealed []byte, ring *seal.Ring, place seal.Place) error {
	plain, err := ring.Open(sealed, place)
	if err == nil {
		_, err = binary.Decode(plain, binary.BigEndian, m)
	}
	return err
}

func (w *writing) put(bucket, key, record []byte) error {
	in := w.tx.Bucket(bucket)
	w.mark.toggle(in.Get(key))
	w.mark.toggle(record)
	return in.Put(key, record)
}

// end writes the mark.
func (w *writing) end() error {
	entries := w.tx.Bucket(logBucket).Cursor()
	first, _ := entries.First()
	last, _ := entries.Last()
	w.mark.First, w.mark.Last = indexOf(first), indexOf(last)
	plain, err := binary.Append(nil, binary.BigEndian, w.mark)
	if err != nil {
		return err
	}
	return w.tx.Bucket(markBucket).Put(markBucket, w.b.ring.Seal(plain, w.b.place))
}

// Reseal writes the mark anew, under the key that the ring seals with now.
func (b *boltStore) Reseal() error { return b.write(func(*writing) error { return nil }) }

// Covered notes that there is a snapshot up to index.
func (b *boltStore) Covered(index uint64) error {
	return b.write(func(w *writing) error {
		w.mark.Snapshot = max(w.mark.Snapshot, index)
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

// entryHead is how many bytes of an entry's record come before what is sealed: its
// type and its term.
const entryHead = 1 + 8

// readEntry makes an entry, still sealed, of its record.
func readEntry(index uint64, record []byte) (raft.Log, error) {
	if len(record) < entryHead {
		return raft.Log{}, fmt.Errorf("read log entry %d: %w: it is too short", index, seal.ErrBad)
	}
	return raft.Log{
		Index: index, Type: raft.LogType(record[0]), Term: binary.BigEndian.Uint64(record[1:]),
		Data: bytes.Clone(record[entryHead:]),
	}, nil
}

// FirstIndex is as in raft.LogStore.
func (b *boltStore) FirstIndex() (uint64, error) { return b.end((*bbolt.Cursor).First) }

// LastIndex is as in raft.LogStore.
func (b *boltStore) LastIndex() (uint64, error) { return b.end((*bbolt.Cursor).Last) }

func (b *boltStore) end(of func(*bbolt.Cursor) (key, value []byte)) (index uint64, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		key, _ := of(tx.Bucket(logBucket).Cursor())
		index = indexOf(key)
		return nil
	})
	return index, err
}

// GetLog is as in raft.LogStore.
func (b *boltStore) GetLog(index uint64, out *raft.Log) error {
	return b.db.View(func(tx *bbolt.Tx) (err error) {
		record := tx.Bucket(logBucket).Get(indexKey(index))
		if record == nil {
			return raft.ErrLogNotFound
		}
		*out, err = readEntry(index, record)
		return err
	})
}

// StoreLog is as in raft.LogStore.
func (b *boltStore) StoreLog(entry *raft.Log) error { return b.StoreLogs([]*raft.Log{entry}) }

// StoreLogs is as in raft.LogStore.
func (b *boltStore) StoreLogs(entries []*raft.Log) error {
	return b.write(func(w *writing) error {
		for _, entry := range entries {
			record := append(make([]byte, 0, entryHead+len(entry.Data)), byte(entry.Type))
			record = append(binary.BigEndian.AppendUint64(record, entry.Term), entry.Data...)
			if err := w.put(logBucket, indexKey(entry.Index), record); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange is as in raft.LogStore.
func (b *boltStore) DeleteRange(min, max uint64) error {
	return b.write(func(w *writing) error {
		bucket := w.tx.Bucket(logBucket)
		entries := bucket.Cursor()
		for {
			key, record := entries.Seek(indexKey(min))
			if key == nil || indexOf(key) > max {
				return nil
			}
			w.mark.toggle(record)
			if err := bucket.Delete(key); err != nil {
				return err
			}
		}
	})
}

// errNotFound is known to raft by its text.
var errNotFound = errors.New("not found")

// Set is as in raft.StableStore.
func (b *boltStore) Set(key, value []byte) error {
	return b.write(func(w *writing) error { return w.put(stableBucket, key, value) })
}

// Get is as in raft.StableStore.
func (b *boltStore) Get(key []byte) (value []byte, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		if value = bytes.Clone(tx.Bucket(stableBucket).Get(key)); value == nil {
			return errNotFound
		}
		return nil
	})
	return value, err
}

// SetUint64 is as in raft.StableStore.
func (b *boltStore) SetUint64(key []byte, value uint64) error { return b.Set(key, indexKey(value)) }

// GetUint64 is as in raft.StableStore.
func (b *boltStore) GetUint64(key []byte) (uint64, error) {
	value, err := b.Get(key)
	return indexOf(value), err
}
