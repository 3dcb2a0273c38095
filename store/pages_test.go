package store

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// openChecked opens a disk, and gives a function that checks its log file while it is
// open, and tells what is in it and which pages are in use.
func openChecked(t *testing.T) (*Disk, func(covered uint64) (extent, map[uint64]bool, error)) {
	t.Helper()
	config := diskConfig(t)
	config.Dir = filepath.Join(inMemory(t), "manager")
	d := openDisk(t, config)
	file, err := os.Open(filepath.Join(config.Dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return d, func(covered uint64) (extent, map[uint64]bool, error) {
		check := newFileCheck(config, covered)
		used, err := check.read(file)
		return check.found, used, err
	}
}

// Whatever raft does to its log, of short and of long entries, what bbolt makes of it is
// found to be good.
func TestPages_AreAsBboltWritesThem(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 9))
		d, check := openChecked(t)
		first, next, most := uint64(1), uint64(1), 0
		do := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		for range 400 {
			switch {
			case next-first > 600 && random.IntN(3) == 0: // compacted
				to := first + random.Uint64N(next-first)
				do("note snapshot", d.noteSnapshot(to))
				do("compact", d.Log.DeleteRange(first, to))
				first = to + 1
			case next-first > 20 && random.IntN(12) == 0: // overwritten by another leader
				from := next - random.Uint64N(20) - 1
				do("truncate", d.Log.DeleteRange(from, next-1))
				next = from
			case random.IntN(6) == 0:
				do("vote", d.Stable.SetUint64([]byte(stableKeys[random.IntN(2)]), next))
			default:
				var entries []*raft.Log
				for range 1 + random.IntN(12) {
					size := random.IntN(400)
					if random.IntN(10) == 0 {
						size = 1 << random.IntN(16)
					}
					entries = append(entries, &raft.Log{Index: next, Term: 1, Data: make([]byte, size)})
					next++
				}
				do("store", d.Log.StoreLogs(entries))
			}
			found, used, err := check(first - 1)
			do("check", err)
			if last := found.Last; last != next-1 && first != next {
				t.Fatalf("it has up to entry %d instead of %d", last, next-1)
			}
			most = max(most, len(used))
		}
		t.Logf("up to %d pages", most)
		if most < 180 {
			t.Error("so few pages need no branch of branches")
		}
	}
}

// Pages that are filled to their last byte have no page more than they need.
func TestPages_OfEverySize(t *testing.T) {
	d, check := openChecked(t)
	for size := range 3 * os.Getpagesize() {
		if err := d.Log.StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := check(0); err != nil {
			t.Fatalf("with %d bytes in an entry: %v", size, err)
		}
	}
}
