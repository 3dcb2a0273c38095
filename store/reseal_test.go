package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"skep/store/seal"
)

// TestDisk_ResealsWhatIsUnderAnOlderKey rotates the key and brings all under the new
// one. A copy of the disk at each step, as a crash leaves it, opens with both keys and
// has everything; the last one opens with the new key, and with the old one nothing does.
func TestDisk_ResealsWhatIsUnderAnOlderKey(t *testing.T) {
	before, after := seal.NewKey(rand.Reader), seal.NewKey(rand.Reader)
	config := diskConfig(t)
	config.Ring = seal.NewRing(before)
	d := openDisk(t, config)
	entries := logEntries(1, 700)
	if err := d.Log.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]uint64{"CurrentTerm": 7, "LastVoteTerm": 6} {
		if err := d.Stable.SetUint64([]byte(key), value); err != nil {
			t.Fatal(err)
		}
	}
	snapshotOn(t, config, d, 100)
	snapshotOn(t, config, d, 300)

	config.Ring.Rotate(after)
	if err := d.Log.StoreLogs(logEntries(701, 710)); err != nil {
		t.Fatal(err)
	}
	entries = append(entries, logEntries(701, 710)...)
	check := func(what, dir string, ring *seal.Ring) error {
		at := config
		at.Dir, at.Ring = dir, ring
		copied, err := OpenDisk(at)
		if err != nil {
			return err
		}
		defer copied.Close()
		for _, want := range entries {
			var got raft.Log
			if err := copied.Log.GetLog(want.Index, &got); err != nil || !bytes.Equal(got.Data, want.Data) || got.Term != want.Term {
				t.Errorf("%s: entry %d is %q of term %d: %v", what, want.Index, got.Data, got.Term, err)
			}
		}
		if term, err := copied.Stable.GetUint64([]byte("CurrentTerm")); err != nil || term != 7 {
			t.Errorf("%s: the term is %d: %v", what, term, err)
		}
		metas, err := copied.Snapshots.List()
		if err != nil || len(metas) == 0 || metas[0].Index != 300 {
			t.Errorf("%s: the snapshots are %v: %v", what, metas, err)
		}
		return nil
	}
	var steps []string
	last := ""
	d.steps = func(step string) {
		steps = append(steps, step)
		last = filepath.Join(t.TempDir(), fmt.Sprint("step-", len(steps)))
		if err := os.CopyFS(last, os.DirFS(config.Dir)); err != nil {
			t.Fatal(err)
		}
		if err := check(step, last, seal.NewRing(after, before)); err != nil {
			t.Errorf("after %s it doesn't open any more: %v", step, err)
		}
	}
	taken := 0
	if err := d.Reencrypt(func() error { taken++; snapshotOn(t, config, d, 300); return nil }); err != nil {
		t.Fatal(err)
	}
	// Of the two snapshots that stay one was old until it was removed.
	if want := []string{"log", "stable", "snapshot", "removed"}; fmt.Sprint(steps) != fmt.Sprint(want) || taken != 1 {
		t.Errorf("steps %v, %d snapshots taken", steps, taken)
	}
	if err := check("in the end", last, seal.NewRing(after)); err != nil {
		t.Errorf("it doesn't open with the new key: %v", err)
	}
	if err := check("in the end", last, seal.NewRing(before)); !errors.Is(err, seal.ErrBad) {
		t.Errorf("it opens with the old key: %v", err)
	}
	// Neither does any single record.
	config.Ring.Drop()
	old := seal.NewRing(before)
	for index := uint64(1); index <= 710; index++ {
		if err := seal.NewLog(d.bolt, old, config.ClusterID).GetLog(index, new(raft.Log)); !errors.Is(err, seal.ErrBad) {
			t.Fatalf("entry %d opens with the old key: %v", index, err)
		}
	}
	metas, err := d.Snapshots.List()
	if err != nil || len(metas) != 1 {
		t.Fatalf("snapshots %v: %v", metas, err)
	}
	_, source, err := seal.NewSnapshots(d.files, old, config.ClusterID).Open(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := source.Read(make([]byte, 1)); !errors.Is(err, seal.ErrBad) {
		t.Errorf("the snapshot opens with the old key: %v", err)
	}
	d.steps = nil
	if err := d.Reencrypt(func() error { t.Error("another snapshot is taken"); return nil }); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// TestDisk_ResealsWhileRaftWrites holds that entries that raft appends, overwrites
// and removes meanwhile are as raft left them.
func TestDisk_ResealsWhileRaftWrites(t *testing.T) {
	config := diskConfig(t)
	d := openDisk(t, config)
	if err := d.Log.StoreLogs(logEntries(1, 2000)); err != nil {
		t.Fatal(err)
	}
	var raftWrites sync.WaitGroup
	config.Ring.Rotate(seal.NewKey(rand.Reader))
	raftWrites.Go(func() {
		for i := uint64(0); i < 20; i++ {
			newer := logEntries(1990-20*i, 2000-20*i)
			for _, entry := range newer {
				entry.Term, entry.Data = 3, []byte("newer")
			}
			if err := errors.Join(d.Log.DeleteRange(1990-20*i, 2000), d.Log.StoreLogs(newer), d.Log.DeleteRange(1+10*i, 10+10*i),
				d.Stable.SetUint64([]byte("CurrentTerm"), i+1)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		if err := d.Reencrypt(func() error { return nil }); err != nil {
			t.Error(err)
		}
	}
	raftWrites.Wait()
	config.Ring.Drop()
	first, err := d.Log.FirstIndex()
	last, failed := d.Log.LastIndex()
	if err = errors.Join(err, failed); err != nil || first != 201 || last != 1620 {
		t.Fatalf("the log is from %d to %d: %v", first, last, err)
	}
	sealed := seal.NewLog(d.bolt, config.Ring, config.ClusterID)
	for index := first; index <= last; index++ {
		var got raft.Log
		want := fmt.Sprint("entry ", index)
		if index >= 1610 {
			want = "newer"
		}
		if err := sealed.GetLog(index, &got); err != nil || string(got.Data) != want {
			t.Fatalf("entry %d is %q: %v", index, got.Data, err)
		}
	}
	if term, err := d.Stable.GetUint64([]byte("CurrentTerm")); err != nil || term != 20 {
		t.Errorf("term %d: %v", term, err)
	}
}
