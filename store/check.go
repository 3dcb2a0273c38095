package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"skep/store/seal"
)

// ErrDamaged means that something of a manager's log, terms and votes or snapshots
// isn't on its disk as it was written. Whoever finds that must not vote any more: it
// may have promised what it doesn't know.
var ErrDamaged = errors.New("the database on this disk is damaged")

// damaged makes an error about a record that doesn't open one about the database.
func damaged(err error) error {
	if errors.Is(err, seal.ErrBad) && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// checkFile reads all that the log file has, without bbolt: every entry, and the manifest
// that says whether that is all, which it returns; nil when there is no file. covered is
// the index of the newest snapshot.
func checkFile(path string, config DiskConfig, covered uint64) (*manifest, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if config.Expected || covered > 0 {
			return nil, damage("%s is gone", path)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := share(file); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c := newFileCheck(config, covered)
	if _, err = c.read(file); err != nil {
		return nil, fmt.Errorf("check %s: %w", path, damaged(err))
	}
	return c.manifest, nil
}

// share takes the lock under which bbolt lets others read; a file that another process
// writes to looks damaged. It is gone when the file is closed.
func share(file *os.File) error {
	const pause = 50 * time.Millisecond
	for range lockLimit / pause {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(pause)
	}
	return errOpen
}

// fileCheck takes in the log file's records one by one.
type fileCheck struct {
	log     *seal.Log
	config  DiskConfig
	covered uint64
	// manifest is what the file has for one; found is which entries there are.
	manifest *manifest
	found    extent
}

func newFileCheck(config DiskConfig, covered uint64) *fileCheck {
	return &fileCheck{log: seal.NewLog(nil, config.Ring, config.ClusterID), config: config, covered: covered}
}

// read takes in the whole file, and says whether that is what must be there. It returns
// the numbers of the pages that are in use.
func (c *fileCheck) read(file io.ReaderAt) (used map[uint64]bool, err error) {
	newest, before, err := readMetas(file)
	if err != nil {
		return nil, err
	}
	if used, err = readBuckets(file, newest, c.record); err != nil {
		return used, err
	}
	// The transaction that opening makes writes nothing, so the root stays where it is.
	wrote := newest.Tx
	if newest.Root == before.Root {
		wrote--
	}
	return used, c.end(wrote)
}

// errOldForm is about a file as it was before raft-boltdb wrote it: with a bucket for the
// manifest, and terms and votes in theirs.
var errOldForm = errors.New("it was written by a development version of skep, in a form that isn't read any more: " +
	"make a backup with that version and restore it with this one, or have the node leave with that one and join with this one")

func (c *fileCheck) record(bucket string, key, value []byte) error {
	switch {
	case bucket == string(stableBucket) || bucket == "mark":
		return errOldForm
	case bucket != string(logBucket) || len(key) != 8:
		return damage("key %q in bucket %q isn't known", key, bucket)
	}
	index := indexOf(key)
	var stored raft.Log
	if err := decodeRecord(value, &stored); err != nil {
		return damage("entry %d isn't as raft-boltdb writes it: %v", index, err)
	}
	if index == manifestIndex {
		c.manifest = new(manifest)
		return c.manifest.open(stored.Data, c.config.Ring, c.config.ClusterID)
	}
	return c.entry(index, &stored)
}

// entry takes in one entry. Those that the newest snapshot covers may be missing before
// it; others may not.
func (c *fileCheck) entry(index uint64, stored *raft.Log) error {
	if missing := max(c.found.Last, c.covered) + 1; index > missing {
		return damage("entries %d to %d are missing; the newest snapshot ends with entry %d", missing, index-1, c.covered)
	}
	if stored.Index != index {
		return damage("entry %d says it is entry %d", index, stored.Index)
	}
	c.found.add(index, stored.Data)
	if err := c.log.Open(stored, new(raft.Log)); err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	return nil
}

// end says whether what was there is what must be there. wrote is the number of the last
// transaction that wrote something.
func (c *fileCheck) end(wrote uint64) error {
	m := c.manifest
	if m == nil {
		return damage("the manifest that says what is in it is gone")
	}
	want, last := m.Log, m.Tx
	if m.Removing != nil && wrote == m.Tx {
		want = m.Removing.Log
	} else if m.Removing != nil {
		last++
	}
	switch {
	case last != wrote:
		return damage("it is as transaction %d left it, but %d were written", last, wrote)
	case c.found.First != want.First || c.found.Last != want.Last:
		return damage("it has the entries %d to %d, but %d to %d were written", c.found.First, c.found.Last, want.First, want.Last)
	case c.found.TagXor != want.TagXor:
		return damage("entries are missing, or are those of an earlier day")
	case c.covered < m.Snapshot:
		return damage("the snapshot up to entry %d is gone", m.Snapshot)
	}
	return nil
}

// checkSnapshots reads each snapshot to its end and returns the newest's index; 0 when
// there is none. Raft would fall back to an older one without a word, and then apply a
// log that doesn't reach back to it.
func checkSnapshots(path string, snapshots *seal.Snapshots) (covered uint64, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0, fmt.Errorf("check snapshots: %w", err)
	}
	for _, entry := range entries {
		// Raft names those that it hasn't finished like this, and never reads them.
		if !entry.IsDir() || strings.HasSuffix(entry.Name(), ".tmp") {
			continue
		}
		index, err := checkSnapshot(snapshots, entry.Name())
		if err != nil {
			return 0, fmt.Errorf("check snapshot %s: %w", filepath.Join(path, entry.Name()), err)
		}
		covered = max(covered, index)
	}
	return covered, nil
}

// checkSnapshot reads one. What isn't the disk's own refusal is damage: raft says in
// many ways that what it reads makes no sense.
func checkSnapshot(snapshots *seal.Snapshots, id string) (index uint64, err error) {
	meta, source, err := snapshots.Open(id)
	if err == nil {
		defer source.Close()
		var size int64
		size, err = io.Copy(io.Discard, source)
		switch {
		case err != nil:
		case size != meta.Size:
			err = damage("it has %d bytes instead of %d", size, meta.Size)
		case meta.ID != id:
			err = damage("it says it is %s", meta.ID)
		default:
			return meta.Index, nil
		}
	}
	if errno := syscall.Errno(0); errors.Is(err, ErrDamaged) || errors.As(err, &errno) && errno != syscall.ENOENT {
		return 0, err
	}
	return 0, fmt.Errorf("%w: %w", ErrDamaged, err)
}
