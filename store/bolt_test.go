package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"skep/store/seal"
)

// openReference opens raft-boltdb as it was used here before the log had a mark: what
// boltStore must do just so, and at what pace.
func openReference(t testing.TB) *raftboltdb.BoltStore {
	t.Helper()
	reference, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(t.TempDir(), "reference.db"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reference.Close() })
	return reference
}

func openOurs(t testing.TB) *boltStore {
	t.Helper()
	ours, err := openBolt(filepath.Join(t.TempDir(), logFile), seal.NewRing(seal.Key{1}), "c1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	return ours
}

// Raft sees no difference between boltStore and raft-boltdb.
func TestBolt_DoesWhatRaftBoltDBDoes(t *testing.T) {
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

// BenchmarkBolt is an entry of 400 bytes, synced, in boltStore and in raft-boltdb.
func BenchmarkBolt(b *testing.B) {
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
