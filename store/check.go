package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/raft"

	"skep/store/seal"
)

// stableKeys are what raft keeps in its stable store.
var stableKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

// checkFile reads all that the log file has: terms and votes, and every entry.
// covered is the index of the newest snapshot. The file is opened for reading
// only: opened for writing, bbolt walks through its pages, and where they are
// damaged it ends the process with a panic that doesn't say which file it is.
func checkFile(path string, config DiskConfig, covered uint64) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	bolt, err := openBolt(path, true)
	if err != nil {
		return err
	}
	defer bolt.Close()
	stable := seal.NewStable(bolt, config.Ring, config.ClusterID)
	for _, key := range stableKeys {
		if _, err := stable.Get([]byte(key)); errors.Is(err, seal.ErrBad) {
			return fmt.Errorf("check %s: %w", path, err)
		}
	}
	if err := checkLog(seal.NewLog(bolt, config.Ring, config.ClusterID), covered); err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	return nil
}

// checkLog reads all entries. Those that the newest snapshot covers may be
// missing; the others may not.
func checkLog(log *seal.Log, covered uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	if first > covered+1 {
		return fmt.Errorf("the log begins with entry %d, but the newest snapshot ends with entry %d: entries between are missing", first, covered)
	}
	for index := first; index <= last; index++ {
		err := log.GetLog(index, new(raft.Log))
		if errors.Is(err, raft.ErrLogNotFound) && index <= covered {
			continue
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return nil
}

// checkSnapshots makes sure that each snapshot can be opened, reads the newest to
// its end and returns its index; 0 when there is none. Raft would fall back to an
// older one without a word, and then apply a log that doesn't reach back to it.
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
		_, source, err := snapshots.Open(entry.Name())
		if err != nil {
			return 0, fmt.Errorf("check %s: %w", path, err)
		}
		source.Close()
	}
	metas, err := snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("check %s: %w", path, err)
	}
	if len(metas) == 0 {
		return 0, nil
	}
	meta, source, err := snapshots.Open(metas[0].ID)
	if err != nil {
		return 0, fmt.Errorf("check %s: %w", path, err)
	}
	defer source.Close()
	size, err := io.Copy(io.Discard, source)
	if err == nil && size != meta.Size {
		err = fmt.Errorf("%w: it has %d bytes instead of %d", seal.ErrBad, size, meta.Size)
	}
	if err != nil {
		return 0, fmt.Errorf("check %s: %w", filepath.Join(path, meta.ID), err)
	}
	return meta.Index, nil
}

// guard runs what reads a bbolt file that may be damaged: bbolt trusts its pages,
// so it may panic or read past the end of its memory map.
func guard(path string, read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("read %s: it is damaged: %v", path, value)
		}
	}()
	return read()
}
