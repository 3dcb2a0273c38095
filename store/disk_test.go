package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"skep/cluster"
	"skep/store/seal"
)

func diskConfig(t testing.TB) DiskConfig {
	return DiskConfig{
		Dir: filepath.Join(t.TempDir(), "manager"), Ring: seal.NewRing(seal.NewKey(rand.Reader)), ClusterID: "c1",
		StallLimit: time.Minute, Fatal: func(err error) { t.Errorf("fatal: %v", err) }, Log: quiet,
	}
}

func openDisk(t testing.TB, config DiskConfig) *Disk {
	t.Helper()
	d, err := OpenDisk(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// secret is what must not be found on a disk.
const secret = "canary-4711"

func TestDisk_GoesOnAfterRestarts(t *testing.T) {
	config := diskConfig(t)
	var want View
	for round := range 3 {
		d := openDisk(t, config)
		s := newStore(t)
		m := startRaft(t, s, d.Log, d.Stable, d.Snapshots)
		stop := leadOn(t, s, m)
		if round > 0 {
			same(t, s.View(), want)
		}
		for i := range 20 {
			put(t, s, &cluster.Revision{ServiceID: fmt.Sprint("s", i), Number: uint64(round + 1), Auth: secret})
		}
		if round == 1 {
			if err := m.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			put(t, s, &cluster.Node{ID: "after-the-snapshot", ManagerAddr: secret})
		}
		want = s.View()
		stop()
		if err := m.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files := 0
	err := filepath.WalkDir(config.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s has a secret in the clear", path)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("looked at %d files, %v", files, err)
	}
	if info, err := os.Stat(config.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v, %v", info.Mode(), err)
	}
	snapshots := filepath.Join(config.Dir, snapshotDir)
	if info, err := os.Stat(snapshots); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the mode of the folder of snapshots is %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(snapshots, 0o755); err != nil { // as versions before made it
		t.Fatal(err)
	}
	if d, err := OpenDisk(config); err != nil {
		t.Error(err)
	} else if err := d.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(snapshots); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the mode of an older folder of snapshots is %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(config.Dir, logFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log's mode is %v, %v", info.Mode(), err)
	}
	config.Ring = seal.NewRing(seal.NewKey(rand.Reader))
	if _, err := OpenDisk(config); !errors.Is(err, seal.ErrBad) {
		t.Errorf("with another key: %v", err)
	}
}

func TestDisk_IsOpenedOnce(t *testing.T) {
	config := diskConfig(t)
	openDisk(t, config)
	if _, err := OpenDisk(config); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("a second time: %v", err)
	}
}

func TestDisk_LogSaysItIsMonotonic(t *testing.T) {
	log, ok := openDisk(t, diskConfig(t)).Log.(raft.MonotonicLogStore)
	if !ok || !log.IsMonotonic() {
		t.Error("raft would leave gaps in the log")
	}
}

// logEntries are what the tests below find damaged.
func logEntries(from, to uint64) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: 2, Type: raft.LogCommand, Data: fmt.Append(nil, "entry ", i)})
	}
	return out
}

// prepare fills a disk, lets edit change its log file, and opens it again.
func prepare(t *testing.T, entries []*raft.Log, edit func(logs, conf *bbolt.Bucket) error) (DiskConfig, error) {
	t.Helper()
	config := diskConfig(t)
	d := openDisk(t, config)
	if err := d.Log.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	if err := d.Stable.SetUint64([]byte("CurrentTerm"), 2); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if edit != nil {
		db, err := bbolt.Open(filepath.Join(config.Dir, logFile), 0o600, &bbolt.Options{NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error { return edit(tx.Bucket([]byte("logs")), tx.Bucket([]byte("conf"))) })
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	d, err := OpenDisk(config)
	if err == nil {
		d.Close()
	}
	return config, err
}

func key(index byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, index} }

func TestDisk_RefusesWhatIsDamaged(t *testing.T) {
	flip := func(b *bbolt.Bucket, key []byte) error {
		var entry raft.Log
		if err := decodeRecord(b.Get(key), &entry); err != nil {
			return err
		}
		entry.Data[len(entry.Data)-1] ^= 4
		value, err := encodeRecord(&entry)
		if err != nil {
			return err
		}
		return b.Put(key, value)
	}
	for _, c := range []struct {
		what  string
		from  uint64
		edit  func(logs, conf *bbolt.Bucket) error
		wants string
	}{
		{"a flipped bit in an entry", 1, func(logs, _ *bbolt.Bucket) error { return flip(logs, key(4)) }, "entry 4"},
		{"an entry in another's place", 1, func(logs, _ *bbolt.Bucket) error { return logs.Put(key(4), logs.Get(key(5))) }, "entry 4"},
		{"a missing entry", 1, func(logs, _ *bbolt.Bucket) error { return logs.Delete(key(4)) }, "entries 4 to 4 are missing"},
		{"a flipped bit in the manifest, which has the term", 1, func(logs, _ *bbolt.Bucket) error { return flip(logs, indexKey(manifestIndex)) }, "mark of the log"},
		{"a log without its beginning", 5, nil, "entries 1 to 4 are missing"},
	} {
		t.Run(c.what, func(t *testing.T) {
			config, err := prepare(t, logEntries(c.from, 9), c.edit)
			if err == nil || !strings.Contains(err.Error(), c.wants) || !strings.Contains(err.Error(), filepath.Join(config.Dir, logFile)) {
				t.Errorf("OpenDisk: %v, want %q and the file's name", err, c.wants)
			}
		})
	}
	if _, err := prepare(t, logEntries(1, 9), nil); err != nil {
		t.Errorf("undamaged: %v", err)
	}
}

// snapshotOn writes a snapshot to a disk and returns its folder.
func snapshotOn(t *testing.T, config DiskConfig, d *Disk, index uint64) string {
	t.Helper()
	return snapshotSized(t, config, d, index, 200_000)
}

func snapshotSized(t *testing.T, config DiskConfig, d *Disk, index uint64, size int) string {
	t.Helper()
	_, transport := raft.NewInmemTransport("")
	sink, err := d.Snapshots.Create(1, index, 2, raft.Configuration{}, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(bytes.Repeat([]byte(secret), size/len(secret))); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(config.Dir, snapshotDir, sink.ID())
}

func TestDisk_RefusesADamagedSnapshot(t *testing.T) {
	for what, damage := range map[string]func(dir string) error{
		"content":    func(dir string) error { return flipByte(filepath.Join(dir, "state.bin"), 70_000) },
		"cut":        func(dir string) error { return os.Truncate(filepath.Join(dir, "state.bin"), 70_000) },
		"meta":       func(dir string) error { return os.WriteFile(filepath.Join(dir, "meta.json"), []byte("{}"), 0o600) },
		"no meta":    func(dir string) error { return os.Remove(filepath.Join(dir, "meta.json")) },
		"no content": func(dir string) error { return os.Remove(filepath.Join(dir, "state.bin")) },
		"index": func(dir string) error {
			path := filepath.Join(dir, "meta.json")
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, bytes.Replace(data, []byte(`"Index":30`), []byte(`"Index":31`), 1), 0o600)
		},
	} {
		t.Run(what, func(t *testing.T) {
			config := diskConfig(t)
			d := openDisk(t, config)
			snapshotOn(t, config, d, 20)
			dir := snapshotOn(t, config, d, 30)
			d.Close()
			if d, err := OpenDisk(config); err != nil {
				t.Fatal(err)
			} else {
				d.Close()
			}
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenDisk(config); err == nil || !strings.Contains(err.Error(), "snapshot") {
				t.Errorf("OpenDisk: %v", err)
			}
		})
	}
}

func flipByte(path string, at int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 1
	return os.WriteFile(path, data, 0o600)
}

// The machine went down between the install of a snapshot and the clearing of
// the log that it replaces.
func TestDisk_ClearsALogThatEndsBeforeTheSnapshot(t *testing.T) {
	config := diskConfig(t)
	d := openDisk(t, config)
	if err := d.Log.StoreLogs(logEntries(1, 9)); err != nil {
		t.Fatal(err)
	}
	snapshotOn(t, config, d, 30)
	d.Close()
	d = openDisk(t, config)
	if last, err := d.Log.LastIndex(); last != 0 || err != nil {
		t.Errorf("the log ends with entry %d, %v", last, err)
	}
	if err := d.Log.StoreLogs(logEntries(31, 33)); err != nil {
		t.Fatal(err)
	}
	d.Close()
	openDisk(t, config)
}

// slowLog is a log whose writes take as long as release says.
type slowLog struct {
	*raft.InmemStore
	release chan error
}

func (l *slowLog) StoreLogs(entries []*raft.Log) error {
	if err := <-l.release; err != nil {
		return err
	}
	return l.InmemStore.StoreLogs(entries)
}

func TestWatchdog(t *testing.T) {
	const limit = 2 * time.Second
	write := func(t *testing.T, act func(l *slowLog)) (barks []string, err error) {
		inner := &slowLog{InmemStore: raft.NewInmemStore(), release: make(chan error)}
		barked := make(chan string, 8)
		dog := &watchdog{dir: "dir", limit: limit, fatal: func(err error) { barked <- err.Error() }}
		log := &watchedLog{Log: seal.NewLog(inner, seal.NewRing(seal.Key{}), "c1"), dog: dog}
		done := make(chan error, 1)
		go func() { done <- log.StoreLogs(logEntries(1, 1)) }()
		act(inner)
		err = <-done
		time.Sleep(2 * limit)
		synctest.Wait()
		close(barked)
		for bark := range barked {
			barks = append(barks, bark)
		}
		return barks, err
	}
	t.Run("lets a slow write pass", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			barks, err := write(t, func(l *slowLog) { time.Sleep(limit - time.Millisecond); l.release <- nil })
			if err != nil || len(barks) != 0 {
				t.Errorf("barked %q, %v", barks, err)
			}
		})
	})
	t.Run("ends the process at a write that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			barks, _ := write(t, func(l *slowLog) { time.Sleep(limit + time.Millisecond); l.release <- errors.New("late") })
			if len(barks) != 1 || !strings.Contains(barks[0], "write log: the disk with dir hangs") {
				t.Errorf("barked %q", barks)
			}
		})
	})
	t.Run("ends the process at a write that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			barks, err := write(t, func(l *slowLog) { l.release <- errors.New("no space left on device") })
			if err == nil || len(barks) != 1 || !strings.Contains(barks[0], "write log: no space left") {
				t.Errorf("barked %q, %v", barks, err)
			}
		})
	})
	t.Run("watches terms and votes, and shortening", func(t *testing.T) {
		var barks []string
		dog := &watchdog{dir: "dir", limit: limit, fatal: func(err error) { barks = append(barks, err.Error()) }}
		stable := &watchedStable{StableStore: brokenStable{}, dog: dog}
		if err := stable.SetUint64([]byte("CurrentTerm"), 1); err == nil || len(barks) != 1 {
			t.Errorf("barked %q, %v", barks, err)
		}
	})
	t.Run("ends the process at an entry that went bad", func(t *testing.T) {
		inner := raft.NewInmemStore()
		if err := inner.StoreLog(&raft.Log{Index: 1, Data: []byte("not sealed")}); err != nil {
			t.Fatal(err)
		}
		var barks []string
		dog := &watchdog{dir: "dir", limit: limit, fatal: func(err error) { barks = append(barks, err.Error()) }}
		log := &watchedLog{Log: seal.NewLog(inner, seal.NewRing(seal.Key{}), "c1"), dog: dog}
		if err := log.GetLog(2, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) || len(barks) != 0 {
			t.Errorf("a missing one: %v, barked %q", err, barks)
		}
		if err := log.GetLog(1, new(raft.Log)); !errors.Is(err, seal.ErrBad) || len(barks) != 1 {
			t.Errorf("a bad one: %v, barked %q", err, barks)
		}
	})
}

type brokenStable struct{ raft.StableStore }

func (brokenStable) SetUint64([]byte, uint64) error { return io.ErrShortWrite }

// What is on disk has a size: the log at once, snapshots when there are some.
func TestDisk_Bytes(t *testing.T) {
	config := diskConfig(t)
	d := openDisk(t, config)
	log, snapshots := d.Bytes()
	if log == 0 || snapshots != 0 {
		t.Errorf("a new one: log %d, snapshots %d", log, snapshots)
	}
	snapshotOn(t, config, d, 20)
	if _, more := d.Bytes(); more < 1000 {
		t.Errorf("snapshots: %d", more)
	}
}
