package seal

import (
	"crypto/rand"
	"testing"

	"github.com/hashicorp/raft"
)

// TestSnapshots_CloseTwice closes a snapshot as raft does: once by the FSM that
// wrote it, and once more by raft itself.
func TestSnapshots_CloseTwice(t *testing.T) {
	inner, err := raft.NewFileSnapshotStore(t.TempDir(), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := NewSnapshots(inner, NewRing(NewKey(rand.Reader)), "cluster")
	sink, err := snapshots.Create(1, 7, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := sink.Close(); err != nil {
			t.Fatalf("close snapshot: %v", err)
		}
	}
	if list, err := snapshots.List(); err != nil || len(list) != 1 {
		t.Fatalf("%d snapshots are listed, %v; want 1", len(list), err)
	}
}
