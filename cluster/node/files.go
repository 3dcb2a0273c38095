package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"skep/cluster"
	"skep/store/seal"
)

// files are the node's, all below one directory.
type files struct{ dir string }

func (f files) keys() string  { return filepath.Join(f.dir, "identity.key") }
func (f files) known() string { return filepath.Join(f.dir, "node.sealed") }
func (f files) tasks() string { return filepath.Join(f.dir, "agent.sealed") }
func (f files) raft() string  { return filepath.Join(f.dir, "raft") }

// claim makes the directory and takes it for this process; release gives it up.
func (f files) claim() (release func() error, err error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if err := os.Chmod(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("protect data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(f.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory %s: another skep daemon uses it: %w", f.dir, err), lock.Close())
	}
	return lock.Close, nil
}

// unfinished is there while files of a membership are laid down or removed. Without it, and
// without a key file, the others are no leftovers: somebody took the key file away.
func (f files) unfinished() string { return filepath.Join(f.dir, "unfinished") }

// remains are the files of a membership, but for its key file.
func (f files) remains() []string {
	list := []string{f.raft(), f.raft() + newEnding, f.known() + copyEnding, f.tasks() + copyEnding, f.known(), f.tasks()}
	return append(list, f.keptFiles()...)
}

// wipe removes everything that belongs to a membership.
func (f files) wipe() error {
	// A disk that is full may have no room for the note; then a crash on the way leaves
	// what somebody must look at.
	_ = f.begin()
	return errors.Join(f.clear(), f.finish())
}

// begin notes that what is in the folder from now on is no membership.
func (f files) begin() error {
	note, err := os.OpenFile(f.unfinished(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = note.Close()
	}
	if err == nil {
		err = cluster.SyncDir(f.dir)
	}
	if err != nil {
		return fmt.Errorf("begin to change the cluster files: %w", err)
	}
	return nil
}

// clear removes the files of a membership, the key file first: whatever the disk keeps of
// the others when power fails, it isn't taken for a membership then.
func (f files) clear() error {
	remove := func(path string) error {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove cluster files: %w", err)
		}
		return nil
	}
	if err := errors.Join(remove(f.keys()), remove(f.keys()+".new"), cluster.SyncDir(f.dir)); err != nil {
		return err
	}
	var errs []error
	for _, path := range f.remains() {
		errs = append(errs, remove(path))
	}
	return errors.Join(append(errs, cluster.SyncDir(f.dir))...)
}

// finish notes that the membership that is in the folder is whole, or that there is none.
func (f files) finish() error {
	err := os.Remove(f.unfinished())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = cluster.SyncDir(f.dir)
	}
	if err != nil {
		return fmt.Errorf("end the change of the cluster files: %w", err)
	}
	return nil
}

// leftovers looks at a folder without a key file. What an order left that was cut short is
// removed; the error is for what may be somebody's last copy.
func (f files) leftovers(log *slog.Logger) error {
	cut, err := exists(f.unfinished())
	if err != nil {
		return fmt.Errorf("look for cluster files: %w", err)
	}
	if cut {
		log.Info("remove what an init, join, restore or leave left that was cut short", "data", f.dir)
		return f.wipe()
	}
	for _, path := range f.remains() {
		there, err := exists(path)
		if err != nil {
			return fmt.Errorf("look for cluster files: %w", err)
		}
		if there {
			return fmt.Errorf("go on as a member: there is %s, but no %s, without which it can't be read: put that file back where it was; "+
				"only if it is lost for good, move %s away, start the daemon again and join the cluster as a new node, or restore a backup: %w",
				path, f.keys(), f.dir, cluster.ErrPrecondition)
		}
	}
	return nil
}

// record is what a node must know to find its cluster again.
type record struct {
	Addresses addresses     `cbor:"1,keyasint"`
	Peers     cluster.Peers `cbor:"2,keyasint"`
	// Fresh is set until the first manager's store has its first objects: see
	// manager.Bootstrap.
	Fresh *fresh `cbor:"3,keyasint,omitempty"`
	// Alone is set from an order to go on without the other managers until this one
	// leads: see manager.Config.
	Alone bool `cbor:"4,keyasint,omitempty"`
	// Database is set before this node's first term as a manager and until its database
	// is removed: that it is gone is damage then.
	Database bool `cbor:"5,keyasint,omitempty"`
	// Lineage is that of the database, or of the one of which this node will get a copy: see
	// cluster.Cluster. It stands here since what is on the disk isn't played before there is
	// a leader.
	Lineage string `cbor:"6,keyasint,omitempty"`
	// Kept is the copy of the database from before the cluster's level last rose.
	Kept kept `cbor:"7,keyasint,omitzero"`

	// came is how it was read, and known what this version would have written then; with
	// them a record that is written keeps what another version wrote and this one doesn't
	// know. Both are nil for a new membership.
	came, known []byte
}

// fresh is a new cluster whose first objects aren't in the store yet.
type fresh struct {
	Cluster *cluster.Cluster `cbor:"1,keyasint"`
	Node    *cluster.Node    `cbor:"2,keyasint"`
	Ingress *cluster.Network `cbor:"3,keyasint,omitempty"`
}

func readRecord(file sealedFile) (record, error) {
	var r record
	data, err := file.Read()
	if err != nil {
		return r, fmt.Errorf("read what the node knows of the cluster: %w", err)
	}
	if err := cluster.Decode(data, &r); err != nil {
		return r, err
	}
	r.came = data
	r.known, err = cluster.Encode(r)
	return r, err
}

func (r record) write(file sealedFile) error {
	data, err := cluster.Encode(r)
	if err == nil && r.came != nil {
		data, err = cluster.Merge(r.came, r.known, data)
	}
	if err != nil {
		return err
	}
	if err := file.Write(data); err != nil {
		return fmt.Errorf("write what the node knows of the cluster: %w", err)
	}
	return nil
}

// sealedFile is kept twice, so that one copy that is damaged can be made anew of the
// other. Both are on one disk: what is lost with it is for managers to know.
type sealedFile struct {
	copies [2]*seal.File
	// through is Config.Write, or nil.
	through func(what string, write func() error) error
	log     *slog.Logger
}

// lateWrite is after how long a write is complained about. A worker goes on without.
const lateWrite = 5 * time.Second

// copyEnding is what the second copy's name has more.
const copyEnding = ".copy"

func (n *Node) sealedFile(path string, ring *seal.Ring, clusterID, kind string) sealedFile {
	return sealedFile{
		copies:  [2]*seal.File{seal.NewFile(path, ring, clusterID, kind), seal.NewFile(path+copyEnding, ring, clusterID, kind)},
		through: n.cfg.Write, log: n.log,
	}
}

// Read returns what was last written; after a crash and damage to the first copy, what
// was written before that. The error of a file that was never written is
// fs.ErrNotExist.
func (f sealedFile) Read() ([]byte, error) {
	first, err := f.copies[0].Read()
	if err != nil && !errors.Is(err, seal.ErrBad) && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	second, otherErr := f.copies[1].Read()
	switch {
	case err == nil && otherErr == nil && bytes.Equal(first, second):
		return first, nil
	case err == nil:
		if errors.Is(otherErr, seal.ErrBad) {
			f.log.Error("a file is damaged, and made anew of its other copy", "err", otherErr)
		}
		return first, f.Write(first)
	case otherErr == nil:
		f.log.Error("a file is damaged, and made anew of its other copy", "err", err)
		return second, f.Write(second)
	case errors.Is(err, fs.ErrNotExist) && errors.Is(otherErr, fs.ErrNotExist):
		return nil, err
	}
	return nil, fmt.Errorf("%w; and of its copy: %w", err, otherErr)
}

// Write replaces both copies, one after the other.
func (f sealedFile) Write(plain []byte) error {
	write := func() error {
		for _, file := range f.copies {
			if err := file.Write(plain); err != nil {
				return err
			}
		}
		return nil
	}
	late := time.AfterFunc(lateWrite, func() {
		f.log.Error("a write to the data directory hangs: look for errors of the disk in the kernel's log", "waited", lateWrite)
	})
	defer late.Stop()
	if f.through == nil {
		return write()
	}
	return f.through("write file", write)
}

// Current tells whether both copies are under the key that seals now.
func (f sealedFile) Current() (bool, error) {
	for _, file := range f.copies {
		if current, err := file.Current(); err != nil || !current {
			return false, err
		}
	}
	return true, nil
}

// exists tells whether there is a file at path.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
