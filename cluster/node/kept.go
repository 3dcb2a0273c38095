package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"filippo.io/age"

	"skep/cluster"
	"skep/cluster/manager"
)

// kept is the copy of the database that a manager keeps from before the cluster's level rose: a backup in
// the data directory. Its key is in the node's record, which is always under the node's present keys.
type kept struct {
	// Level is the one that the cluster rose to; 0 for no copy.
	Level int `cbor:"1,keyasint"`
	// File is its name in the data directory.
	File string `cbor:"2,keyasint"`
	// Key is the age identity that opens it.
	Key string `cbor:"3,keyasint"`
	// Index and Lineage are the database's, At when it was made, by this machine's clock.
	Index   uint64    `cbor:"4,keyasint"`
	Lineage string    `cbor:"5,keyasint"`
	At      time.Time `cbor:"6,keyasint"`
}

const (
	// keptBegin begins the names of kept databases, and newEnding ends that of a database that isn't in use yet.
	keptBegin = "before-level-"
	newEnding = ".new"
	// keptFresh is how old a copy may be when the level rises: while another manager can't keep one, the
	// leader asks again and again.
	keptFresh = 10 * time.Minute
	// keptPart is how much of it is written between two syncs: an entry of the log that is written meanwhile
	// waits for one of them.
	keptPart = 512 << 10
)

func (f files) keptFiles() []string {
	paths, err := filepath.Glob(filepath.Join(f.dir, keptBegin+"*"))
	if err != nil {
		return nil // The pattern is right.
	}
	return paths
}

// removeKept removes all kept databases but the one with a name.
func (f files) removeKept(but string) error {
	var errs []error
	for _, path := range f.keptFiles() {
		if filepath.Base(path) != but {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

func freeRoom(dir string) (uint64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return disk.Bavail * uint64(disk.Bsize), nil
}

// keepDatabase keeps a copy of the database from before the cluster rises to a level. It takes the place of the
// one before when it is whole.
func (m *member) keepDatabase(level int, of manager.Copy) error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	known, now := m.currentRecord(), m.node.cfg.Now()
	if k := known.Kept; k.Level == level && k.Lineage == known.Lineage && now.Sub(k.At).Abs() < keptFresh {
		if there, err := exists(filepath.Join(m.node.files.dir, k.File)); err == nil && there {
			return nil
		}
	}
	size, err := of.Size()
	if err != nil {
		return err
	}
	free, err := m.node.cfg.FreeRoom(m.node.files.dir)
	if err != nil {
		return fmt.Errorf("look for room on the disk: %w", err)
	}
	if need := cluster.KeptRoom(size); free < need {
		return cluster.Errorf(cluster.ErrPrecondition, "the disk with %s has %d MiB free, and %d are needed: make room there", m.node.files.dir, free>>20, need>>20)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	next := kept{
		Level: level, File: fmt.Sprintf("%s%d-%s", keptBegin, level, cluster.NewID(m.node.cfg.Random)), Key: identity.String(),
		Index: of.Index(), Lineage: known.Lineage, At: now,
	}
	path := filepath.Join(m.node.files.dir, next.File)
	if err := writeKept(path, of, identity.Recipient()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := m.change(func(r *record) { r.Kept = next }); err != nil {
		return err
	}
	m.node.log.Info("keep a copy of the database from before the cluster's level rises", "level", level, "index", next.Index, "bytes", size)
	return m.node.files.removeKept(next.File)
}

func writeKept(path string, of manager.Copy, recipient age.Recipient) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := of.Write(&steadyFile{file: file}, recipient); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return cluster.SyncDir(filepath.Dir(path))
}

// steadyFile syncs what is written now and then.
type steadyFile struct {
	file    *os.File
	written int
}

var _ io.Writer = (*steadyFile)(nil)

// Write writes a part of the file.
func (f *steadyFile) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	if f.written += n; err == nil && f.written >= keptPart {
		f.written, err = 0, f.file.Sync()
	}
	return n, err
}
