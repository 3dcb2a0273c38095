package node

import (
	"path/filepath"
	"testing"
	"time"

	"skep/cluster"
	"skep/store/seal"
)

// TestMember_ReadingDoesNotWaitForTheDisk holds that a disk that hangs doesn't keep
// the node from telling who it is, or from trying another manager.
func TestMember_ReadingDoesNotWaitForTheDisk(t *testing.T) {
	hung, began := make(chan struct{}), make(chan struct{})
	path, ring := filepath.Join(t.TempDir(), "node.sealed"), seal.NewRing(seal.Key{1})
	m := &member{changing: make(chan struct{}, 1), file: sealedFile{
		copies: [2]*seal.File{seal.NewFile(path, ring, "cluster", "node"), seal.NewFile(path+copyEnding, ring, "cluster", "node")},
		through: func(_ string, write func() error) error {
			close(began)
			<-hung
			return write()
		},
	}}
	changed := make(chan error)
	go func() {
		changed <- m.change(func(r *record) { r.Peers.Managers = []cluster.Peer{{NodeID: "other"}} })
	}()
	<-began
	read := make(chan record)
	go func() { read <- m.known() }()
	select {
	case known := <-read:
		if len(known.Peers.Managers) != 1 {
			t.Errorf("while it is written, the record is %+v; want it as changed", known)
		}
	case <-time.After(5 * time.Second):
		t.Error("the record can't be read while it is written")
	}
	close(hung)
	if err := <-changed; err != nil {
		t.Error(err)
	}
}
