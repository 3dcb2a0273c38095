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
	go func() { read <- m.currentRecord() }()
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

func TestMisses(t *testing.T) {
	managers := []cluster.Peer{{NodeID: "a"}, {NodeID: "b"}}
	member := func(id string, suspect bool) cluster.Member { return cluster.Member{NodeID: id, Suspect: suspect} }
	for _, test := range []struct {
		name, host string
		members    []cluster.Member
		want       bool
	}{
		{"all are well", "a", []cluster.Member{member("a", false), member("b", false), member("w", false)}, false},
		{"it is gone", "a", []cluster.Member{member("b", false), member("w", false)}, true},
		{"it is suspected", "a", []cluster.Member{member("a", true), member("b", false), member("w", false)}, true},
		{"so are all", "a", []cluster.Member{member("a", true), member("b", true), member("w", false)}, false},
		{"only workers are left", "a", []cluster.Member{member("w", false)}, false},
		{"another one is gone", "a", []cluster.Member{member("a", false), member("w", false)}, false},
		{"nobody knows whose session it is", "", []cluster.Member{member("b", false)}, false},
	} {
		if got := misses(test.host, managers, test.members); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestRecord_KeepsWhatALaterVersionWrote goes back to this version and forward again: what
// the later one wrote of itself is still there, and what this one changed counts.
func TestRecord_KeepsWhatALaterVersionWrote(t *testing.T) {
	path, ring := filepath.Join(t.TempDir(), "node.sealed"), seal.NewRing(seal.Key{1})
	file := sealedFile{copies: [2]*seal.File{seal.NewFile(path, ring, "cluster", "node"), seal.NewFile(path+copyEnding, ring, "cluster", "node")}}
	if err := (record{Database: true, Peers: cluster.Peers{Role: "manager"}}).write(file); err != nil {
		t.Fatal(err)
	}
	var later map[any]any
	content := func() {
		t.Helper()
		data, err := file.Read()
		if err == nil {
			later = nil
			err = cluster.Decode(data, &later)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	content()
	later[uint64(99)] = "new"
	later[uint64(2)].(map[any]any)[uint64(98)] = uint64(7)
	data, err := cluster.Encode(later)
	if err == nil {
		err = file.Write(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		m := &member{changing: make(chan struct{}, 1), file: file}
		if m.record, err = readRecord(file); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := m.change(func(r *record) { r.Database, r.Alone = !r.Database, true }); err != nil {
				t.Fatal(err)
			}
		}
		content()
		if later[uint64(99)] != "new" || later[uint64(2)].(map[any]any)[uint64(98)] != uint64(7) || later[uint64(5)] != true || later[uint64(4)] != true {
			t.Errorf("after round %d: %v", round, later)
		}
	}
}
