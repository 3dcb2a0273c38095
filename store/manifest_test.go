package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"skep/store/seal"
)

// openReference opens raft-boltdb by itself: what manifestBolt must do just so, and at what
// pace.
func openReference(t testing.TB) *raftboltdb.BoltStore {
	t.Helper()
	reference, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(t.TempDir(), "reference.db"),
		BoltOptions: &boltOptions,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reference.Close() })
	return reference
}

func openOurs(t testing.TB) *manifestBolt {
	t.Helper()
	ours, err := openManifest(filepath.Join(t.TempDir(), logFile), seal.NewRing(seal.Key{1}), "c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	return ours
}

// stableKeys are what raft keeps besides its log.
var stableKeys = []string{"CurrentTerm", lastVoteTerm, "LastVoteCand"}

// Raft sees no difference between manifestBolt and raft-boltdb by itself.
func TestManifest_DoesWhatRaftBoltDBDoes(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		reference, ours := openReference(t), openOurs(t)
		same := func(what string, wantErr, err error, want, got any) {
			t.Helper()
			if fmt.Sprint(want) != fmt.Sprint(got) || (wantErr == nil) != (err == nil) || wantErr != nil && wantErr.Error() != err.Error() {
				t.Fatalf("seed %d: %s is %v, %v; raft-boltdb's is %v, %v", seed, what, got, err, want, wantErr)
			}
		}
		for range 60 {
			from, key := 1+random.Uint64N(40), []byte(stableKeys[random.IntN(3)])
			switch random.IntN(5) {
			case 0:
				to := from + random.Uint64N(10)
				same("DeleteRange", reference.DeleteRange(from, to), ours.DeleteRange(from, to), nil, nil)
			case 1:
				value := random.Uint64()
				same("SetUint64", reference.SetUint64(key, value), ours.SetUint64(key, value), nil, nil)
			case 2:
				value := fmt.Append(nil, "candidate ", random.IntN(100))
				same("Set", reference.Set(key, value), ours.Set(key, value), nil, nil)
			default:
				var entries []*raft.Log
				for i := range 1 + random.Uint64N(5) {
					entries = append(entries, &raft.Log{Index: from + i, Term: random.Uint64N(9), Type: raft.LogType(random.IntN(4)), Data: fmt.Append(nil, random.Uint64())})
				}
				same("StoreLogs", reference.StoreLogs(entries), ours.StoreLogs(entries), nil, nil)
			}
			for _, end := range []string{"FirstIndex", "LastIndex"} {
				of := map[string][2]func() (uint64, error){"FirstIndex": {reference.FirstIndex, ours.FirstIndex}, "LastIndex": {reference.LastIndex, ours.LastIndex}}[end]
				want, wantErr := of[0]()
				got, err := of[1]()
				same(end, wantErr, err, want, got)
			}
			for index := range uint64(60) {
				var want, got raft.Log
				wantErr, err := reference.GetLog(index, &want), ours.GetLog(index, &got)
				same(fmt.Sprint("GetLog ", index), wantErr, err, []any{want.Index, want.Term, want.Type, string(want.Data)}, []any{got.Index, got.Term, got.Type, string(got.Data)})
			}
			want, wantErr := reference.Get(key)
			got, err := ours.Get(key)
			same("Get", wantErr, err, string(want), string(got))
		}
	}
}

// transactions is the number of the newest transaction in a disk's log file.
func transactions(t *testing.T, config DiskConfig) uint64 {
	t.Helper()
	file, err := os.Open(filepath.Join(config.Dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	newest, _, err := readMetas(file)
	if err != nil {
		t.Fatal(err)
	}
	return newest.Tx
}

// Each transaction waits for the disk.
func TestManifest_TakesOneTransaction(t *testing.T) {
	config := diskConfig(t)
	d := openDisk(t, config)
	for _, c := range []struct {
		what string
		call func() error
		want uint64
	}{
		{"an entry", func() error { return d.Log.StoreLogs(logEntries(1, 1)) }, 1},
		{"many entries", func() error { return d.Log.StoreLogs(logEntries(2, 30)) }, 1},
		{"a term", func() error { return d.Stable.SetUint64([]byte("CurrentTerm"), 7) }, 1},
		{"a vote, which is two calls", func() error {
			return errors.Join(d.Stable.SetUint64([]byte(lastVoteTerm), 7), d.Stable.Set([]byte("LastVoteCand"), []byte("m1")))
		}, 1},
		{"to remove some", func() error { return d.Log.DeleteRange(21, 30) }, 2},
		{"to remove what isn't there", func() error { return d.Log.DeleteRange(40, 50) }, 0},
	} {
		before := transactions(t, config)
		if err := c.call(); err != nil {
			t.Fatal(err)
		}
		if took := transactions(t, config) - before; took != c.want {
			t.Errorf("%s: %d transactions", c.what, took)
		}
	}
}

// Whoever has the file and raft-boltdb can read the log; what is in the entries is sealed.
func TestManifest_OpensWithRaftBoltDBItself(t *testing.T) {
	config := diskConfig(t)
	d := openDisk(t, config)
	entries := logEntries(1, 30)
	for _, entry := range entries {
		entry.Data, entry.Extensions, entry.AppendedAt = []byte(secret), []byte(secret), time.Unix(1_700_000_000, 0)
	}
	if err := errors.Join(d.Log.StoreLogs(entries), d.Log.DeleteRange(26, 30), d.Close()); err != nil {
		t.Fatal(err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(config.Dir, logFile)})
	if err != nil {
		t.Fatal(err)
	}
	defer bolt.Close()
	log := seal.NewLog(bolt, config.Ring, config.ClusterID)
	if first, err := bolt.FirstIndex(); err != nil || first != 1 {
		t.Errorf("the log begins with entry %d, %v", first, err)
	}
	for index := uint64(1); index <= 30; index++ {
		var stored, got raft.Log
		err := bolt.GetLog(index, &stored)
		if index > 25 {
			if !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("entry %d was removed: %v", index, err)
			}
			continue
		}
		if err != nil || stored.Index != index || stored.Term != 2 || bytes.Contains(stored.Data, []byte(secret)) || len(stored.Extensions) > 0 || !stored.AppendedAt.IsZero() {
			t.Fatalf("entry %d: %+v, %v", index, stored, err)
		}
		if err := log.GetLog(index, &got); err != nil || string(got.Data) != secret || string(got.Extensions) != secret || got.AppendedAt.Unix() != 1_700_000_000 {
			t.Fatalf("entry %d opens as %+v, %v", index, got, err)
		}
	}
}

// The machine goes down again and again while the file is opened.
func TestManifest_IsOpenedOftenAndNeverWritten(t *testing.T) {
	config := diskConfig(t)
	d := openDisk(t, config)
	if err := errors.Join(d.Log.StoreLogs(logEntries(1, 9)), d.Close()); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		d := openDisk(t, config)
		if last, err := d.Log.LastIndex(); err != nil || last != 9 {
			t.Fatalf("round %d: the log ends with entry %d, %v", round, last, err)
		}
		// As it is now a crash leaves it.
		next := config
		next.Dir = filepath.Join(t.TempDir(), "manager")
		if err := os.CopyFS(next.Dir, os.DirFS(config.Dir)); err != nil {
			t.Fatal(err)
		}
		config = next
	}
}

// A file of before says so, and isn't taken for a damaged one, which would be thrown away.
func TestManifest_RefusesTheOldForm(t *testing.T) {
	for _, stable := range []bool{true, false} {
		config := diskConfig(t)
		if err := os.MkdirAll(config.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(filepath.Join(config.Dir, logFile), 0o600, &boltOptions)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{"conf", "logs", "mark"} {
				bucket, err := tx.CreateBucket([]byte(name))
				if err == nil && (name == "mark" || name == "conf" && stable) {
					err = bucket.Put([]byte(name), make([]byte, 80))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDisk(config); !errors.Is(err, errOldForm) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), logFile) {
			t.Errorf("OpenDisk: %v", err)
		}
	}
}

// After a write that failed nobody knows what is on the disk.
func TestManifest_WritesNothingAfterAFailure(t *testing.T) {
	b := openOurs(t)
	if err := b.StoreLogs(logEntries(1, 3)); err != nil {
		t.Fatal(err)
	}
	b.bolt.Close()
	first := b.StoreLogs(logEntries(4, 5))
	if err := b.SetUint64([]byte("CurrentTerm"), 1); first == nil || !errors.Is(err, first) {
		t.Errorf("after %v: %v", first, err)
	}
	if last, err := b.LastIndex(); err != nil || last != 3 {
		t.Errorf("the log ends with entry %d, %v", last, err)
	}
}

// FuzzRecord reads anything at all as a record of the log file: it is refused, or it is
// what was sealed.
func FuzzRecord(f *testing.F) {
	config := DiskConfig{Ring: seal.NewRing(seal.Key{1}), ClusterID: "c1"}
	bolt, err := openManifest(filepath.Join(f.TempDir(), logFile), config.Ring, config.ClusterID, nil)
	if err != nil {
		f.Fatal(err)
	}
	if err := seal.NewLog(bolt, config.Ring, config.ClusterID).StoreLogs(logEntries(1, 3)); err != nil {
		f.Fatal(err)
	}
	sealed, err := bolt.manifest.Load().seal(config.Ring, config.ClusterID)
	if err != nil {
		f.Fatal(err)
	}
	for _, index := range []uint64{1, 2, 3, manifestIndex} {
		entry := sealed
		if index != manifestIndex {
			entry = new(raft.Log)
			if err := bolt.GetLog(index, entry); err != nil {
				f.Fatal(err)
			}
		}
		record, err := encodeRecord(entry)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("logs", indexKey(index), record)
		f.Add("conf", indexKey(index), record[:len(record)/2])
	}
	bolt.Close()
	f.Fuzz(func(t *testing.T, bucket string, key, value []byte) {
		c := newFileCheck(config, 0)
		before := allocated()
		err := c.record(bucket, key, value)
		if made := allocated() - before; made > bound(len(value)) {
			t.Fatalf("a record of %d bytes took %d bytes", len(value), made)
		}
		if err != nil {
			return
		}
		// Each process that fuzzes has seeds of its own, sealed under the same key.
		if index := indexOf(key); index == manifestIndex {
			if c.manifest.Log.First != 1 || c.manifest.Log.Last != 3 {
				t.Fatalf("a manifest that nobody wrote: %+v", c.manifest)
			}
			return
		} else if c.found.First != index || index < 1 || index > 3 {
			t.Fatalf("an entry %d that nobody wrote", index)
		}
		var stored, opened raft.Log
		if err := errors.Join(decodeRecord(value, &stored), c.log.Open(&stored, &opened)); err != nil || string(opened.Data) != fmt.Sprint("entry ", indexOf(key)) {
			t.Fatalf("entry %d opens as %q, %v", indexOf(key), opened.Data, err)
		}
	})
}

// BenchmarkManifest is an entry of 400 bytes, synced, in manifestBolt and in raft-boltdb by
// itself.
func BenchmarkManifest(b *testing.B) {
	stores := map[string]raft.LogStore{"ours": openOurs(b), "raft-boltdb": openReference(b)}
	next := uint64(0)
	for _, name := range []string{"raft-boltdb", "ours"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				next++
				if err := stores[name].StoreLog(&raft.Log{Index: next, Term: 1, Data: make([]byte, 400)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
