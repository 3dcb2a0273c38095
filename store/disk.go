package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/store/seal"
)

const (
	// logFile and snapshotDir are where things are in a Disk's folder; raft's
	// snapshot store gives the latter its name.
	logFile     = "raft.db"
	snapshotDir = "snapshots"
	// keptSnapshots is how many snapshots stay unless Keep says otherwise: one to
	// start from, and one in case the machine goes down while the next is written.
	keptSnapshots = 2
	// lockLimit is how long to wait for another process to let go of the log.
	lockLimit = 2 * time.Second
	// defaultStall is the default of DiskConfig.StallLimit.
	defaultStall = 2 * time.Second
)

// DiskConfig says where a manager keeps its log and snapshots.
type DiskConfig struct {
	// Dir is the manager's own folder; it is made if need be.
	Dir string
	// Ring holds the data keys, ClusterID is bound into every record.
	Ring      *seal.Ring
	ClusterID string
	// Expected says that there was a database: that there is none is damage then.
	Expected bool
	// StallLimit is how long a write may take before the process ends; 2 s by
	// default. A leader whose disk hangs keeps the others from electing a new one.
	StallLimit time.Duration
	// Fatal is called, at most once, when a write fails or hangs, or a record that
	// was good at the start doesn't open any more. It must not return in production:
	// by default it logs and exits.
	Fatal func(error)
	// Dispensable, when set, is asked while a write hangs: the process ends only if
	// others can go on without it. It is asked again every now and then.
	Dispensable func() bool
	// Write, when a test sets it, runs each write: what is to be written, and the
	// function that does it. It stands for a disk that is slow, full or broken.
	Write func(what string, write func() error) error
	// Metrics are what is measured, by Now (time.Now by default); nothing by default.
	Metrics telemetry.Store
	Now     func() time.Time
	// Log takes what operators should know; slog.Default() by default.
	Log *slog.Logger
}

// Disk is what raft keeps on disk, all of it sealed. Stable has nothing secret,
// only terms and votes; they are sealed, in the log's manifest, so that a flipped bit
// doesn't go unseen.
type Disk struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore

	// log and snapshots are the sealed ones in them.
	log       *seal.Log
	snapshots *seal.Snapshots
	files     *snapshotFiles
	bolt      *manifestBolt
	dog       *watchdog
	dir       string
	// trying holds one while Answers tries a write.
	trying chan struct{}
	// steps, when a test sets it, is told of each step of Reencrypt.
	steps func(string)
}

// OpenDisk opens the folder, after it made sure that the disk takes writes and
// that all there is can be read: a manager must not vote on half a log. The error
// names the file; it wraps ErrDamaged when what is there isn't what was written.
func OpenDisk(config DiskConfig) (*Disk, error) {
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Fatal == nil {
		config.Fatal = exit(config.Log)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.StallLimit <= 0 {
		config.StallLimit = defaultStall
	}
	d := &Disk{dir: config.Dir, trying: make(chan struct{}, 1), dog: &watchdog{
		dir: config.Dir, limit: config.StallLimit, fatal: config.Fatal, log: config.Log,
		run: config.Write, waits: threadWaits, dispensable: config.Dispensable,
	}}
	if err := prepareDir(config.Dir, d.dog); err != nil {
		return nil, fmt.Errorf("open disk: %w", d.dog.advise(err))
	}
	path := filepath.Join(config.Dir, logFile)
	if err := d.open(config, path); err != nil {
		if d.bolt != nil {
			d.bolt.Close() // The first error says more than what this may add.
		}
		return nil, fmt.Errorf("open disk: %w", d.dog.advise(err))
	}
	return d, nil
}

// open checks and opens what is in the folder.
func (d *Disk) open(config DiskConfig, path string) error {
	d.files = &snapshotFiles{dir: config.Dir, log: warnings(config.Log)}
	if err := d.files.keep(keptSnapshots); err != nil {
		return err
	}
	snapshots := seal.NewSnapshots(d.files, config.Ring, config.ClusterID)
	covered, err := checkSnapshots(filepath.Join(config.Dir, snapshotDir), snapshots)
	if err != nil {
		return err
	}
	m, err := checkFile(path, config, covered)
	if err != nil {
		return err
	}
	if err := d.dog.time("open "+path, fileSize(path), func() (err error) {
		d.bolt, err = openManifest(path, config.Ring, config.ClusterID, m)
		return err
	}); err != nil {
		return err
	}
	// The log syncs what it writes, but not its own name, nor its folder's.
	for _, dir := range []string{config.Dir, filepath.Dir(config.Dir)} {
		if err := cluster.SyncDir(dir); err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	log := seal.NewLog(d.bolt, config.Ring, config.ClusterID)
	if err := clearCovered(log, covered); err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	d.log, d.snapshots = log, snapshots
	d.Stable = &watchedStable{StableStore: d.bolt, dog: d.dog}
	d.Snapshots = &notedSnapshots{Snapshots: snapshots, note: d.noteSnapshot}
	d.Log = &recentLog{watchedLog: &watchedLog{Log: log, dog: d.dog, fsync: config.Metrics.Fsync, now: config.Now}}
	return nil
}

// fileSize is 0 for a file that isn't there.
func fileSize(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// noteSnapshot puts into the log's manifest that there is a snapshot.
func (d *Disk) noteSnapshot(index uint64) error {
	return d.dog.watch("note a snapshot", 0, func() error { return d.bolt.NoteSnapshot(index) })
}

// clearCovered empties a log that ends before the newest snapshot does: the
// machine went down after it got that snapshot from the leader and before raft
// cleared the log. Were it left, the log would have a gap.
func clearCovered(log *seal.Log, covered uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil || last == 0 || last >= covered {
		return err
	}
	return log.DeleteRange(first, last)
}

// Bytes is how large the log's file is, and all snapshots together. What can't be read counts
// as nothing.
func (d *Disk) Bytes() (log, snapshots int64) {
	if info, err := os.Stat(filepath.Join(d.dir, logFile)); err == nil {
		log = info.Size()
	}
	_ = filepath.WalkDir(filepath.Join(d.dir, snapshotDir), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			snapshots += info.Size()
		}
		return nil
	})
	return log, snapshots
}

// Close closes the log. Raft must have been shut down before.
func (d *Disk) Close() error {
	d.dog.close()
	if err := d.bolt.Close(); err != nil {
		return fmt.Errorf("close disk: %w", err)
	}
	return nil
}

// Keep says how many snapshots stay from the next one on. One goroutine calls it.
func (d *Disk) Keep(snapshots int) error {
	if snapshots == d.files.kept {
		return nil
	}
	return d.files.keep(snapshots)
}

// warnings passes on what raft's snapshot store complains about.
func warnings(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Level: hclog.Warn, DisableTime: true,
		Output: writerFunc(func(p []byte) { log.Warn("raft snapshot store complains", "message", string(bytes.TrimSpace(p))) }),
	})
}

type writerFunc func([]byte)

func (w writerFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
