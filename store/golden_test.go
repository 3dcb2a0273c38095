package store

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

var rewrite = flag.Bool("rewrite", false, "write the bytes that come out to testdata")

// What an entry and a snapshot are written as, with some objects of each kind, is what
// earlier builds wrote: their logs are read, and managers of both have equal digests. A
// field that is added to a type may change these bytes (-rewrite); nothing else may.
func TestGolden_EntriesAndSnapshotsAreWrittenAsBefore(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	s := New(Config{Log: quiet, Now: func() time.Time { return at }, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	r := &instant{fsm: s.FSM()}
	leadOn(t, s, r)
	// Not in the order of their keys, and with numbers that aren't in the order of their digits.
	objects := append(filled(), &cluster.Revision{ServiceID: "s1", Number: 10}, &cluster.Revision{ServiceID: "s1", Number: 9},
		&cluster.Revision{ServiceID: "s", Number: 11}, &cluster.Rollout{ServiceID: "s"}, &cluster.Node{ID: "a1"}, service("s", "A"),
		&cluster.Task{ID: "a1", ServiceID: "s"}, newSecret("a1", "other"), newConfig("a1", "other"), newNetwork("a1", "other"), &cluster.Attachment{ID: "a1"})
	err := s.Update(cluster.WithActor(t.Context(), "user"), func(tx *Tx) error {
		for _, object := range objects {
			if err := tx.Put(object); err != nil {
				return err
			}
		}
		tx.Delete(&cluster.Revision{ServiceID: "s1", Number: 9})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, table := range s.View().s.tables {
		if table.len() < 2 && i > 0 {
			t.Errorf("%d objects of kind %d: let filled have one, and this test another", table.len(), i+1)
		}
	}
	entry, snapshot := r.entries[0].Data, snapshotOf(t, s.View())
	golden(t, "entry", entry)
	golden(t, "snapshot", snapshot)

	replayed := newStore(t)
	if response := replayed.FSM().Apply(&raft.Log{Index: 1, Data: entry}); response != nil {
		t.Fatal(response)
	}
	if digest := replayed.View().Digest(); !bytes.Equal(digest[:], snapshot[len(snapshot)-len(digest):]) {
		t.Errorf("the digest is %x, and the snapshot ends with %x", digest, snapshot[len(snapshot)-len(digest):])
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes\n%q\ninstead of %d\n%q", name, len(got), got, len(want), want)
	}
}
