package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store/seal"
)

// snapshotFiles is raft's snapshot store on files, whose number can change.
type snapshotFiles struct {
	dir     string
	log     hclog.Logger
	kept    int
	current atomic.Pointer[raft.FileSnapshotStore]
}

var _ raft.SnapshotStore = (*snapshotFiles)(nil)

// keep puts another of raft's stores in place, which has no state but its files.
func (s *snapshotFiles) keep(snapshots int) error {
	// Raft would make a folder that everybody may look into; so did earlier versions.
	dir := filepath.Join(s.dir, snapshotDir)
	err := os.MkdirAll(dir, 0o700)
	if info, e := os.Stat(dir); e == nil && info.Mode().Perm() != 0o700 {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(s.dir, snapshots, s.log)
	if err != nil {
		return fmt.Errorf("open snapshots in %s: %w", s.dir, err)
	}
	s.kept = snapshots
	s.current.Store(files)
	return nil
}

// Create begins a snapshot; when it is finished, those that are too many go.
func (s *snapshotFiles) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.current.Load().Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	// Raft syncs the files and the folder that this one will be renamed in, but not
	// the names of the files. Until then the folder's name ends so.
	folder := filepath.Join(s.dir, snapshotDir, sink.ID()+".tmp")
	if err := cluster.SyncDir(folder); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return &steadySink{SnapshotSink: sink, file: filepath.Join(folder, "state.bin")}, nil
}

// steady is how many bytes of a snapshot are written between two syncs.
const steady = 512 << 10

// steadySink syncs what is written now and then. Were all of a large snapshot synced at its
// end, an entry that is written meanwhile would wait for all of it, and the disk would look
// like one that hangs.
type steadySink struct {
	raft.SnapshotSink
	file    string
	written int
}

// Write writes a part of the snapshot.
func (s *steadySink) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), steady-s.written)]
		var m int
		m, err = s.SnapshotSink.Write(part)
		n, p, s.written = n+m, p[m:], s.written+m
		if err == nil && s.written >= steady {
			s.written = 0
			err = syncFile(s.file)
		}
	}
	return n, err
}

func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// List lists those that stay, the newest first.
func (s *snapshotFiles) List() ([]*raft.SnapshotMeta, error) { return s.current.Load().List() }

// Open opens one.
func (s *snapshotFiles) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return s.current.Load().Open(id)
}

// notedSnapshots are snapshots that are noted when they are finished.
type notedSnapshots struct {
	*seal.Snapshots
	note func(index uint64) error
}

// Create begins a snapshot.
func (s *notedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.Snapshots.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &notedSink{SnapshotSink: sink, note: func() error { return s.note(index) }}, nil
}

type notedSink struct {
	raft.SnapshotSink
	note func() error
}

// Close finishes the snapshot. The FSM closes it, and raft does once more.
func (s *notedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil || s.note == nil {
		return err
	}
	note := s.note
	s.note = nil
	return note()
}
