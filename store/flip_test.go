package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// every is how many bits, or lengths, lie between those that are tried; SKEP_FLIPS=all
// tries them all.
func every(n int) int {
	if os.Getenv("SKEP_FLIPS") == "all" {
		return 1
	}
	return n
}

// worn is a disk that has been through all that a log goes through: entries on several
// pages, large ones, some overwritten by another leader, the first ones removed, terms
// and votes, and two snapshots of about so many bytes.
func worn(t *testing.T, snapshot int) DiskConfig {
	t.Helper()
	config := diskConfig(t)
	config.Dir = filepath.Join(inMemory(t), "manager")
	d := openDisk(t, config)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for term := range uint64(3) {
		do(d.Stable.SetUint64([]byte("CurrentTerm"), term))
		do(d.Stable.SetUint64([]byte("LastVoteTerm"), term))
		do(d.Stable.Set([]byte("LastVoteCand"), []byte("127.0.1.1:2377")))
	}
	for i := uint64(1); i <= 50; i += 5 {
		entries := logEntries(i, i+4)
		entries[2].Data = make([]byte, 60*i)
		do(d.Log.StoreLogs(entries))
	}
	snapshotSized(t, config, d, 20, snapshot)
	do(d.Log.DeleteRange(46, 50))
	for i := uint64(46); i <= 52; i++ {
		do(d.Log.StoreLogs([]*raft.Log{{Index: i, Term: 3, Data: fmt.Append(nil, "newer ", i)}}))
	}
	snapshotSized(t, config, d, 30, snapshot)
	do(d.Log.DeleteRange(1, 25))
	do(d.Stable.SetUint64([]byte("CurrentTerm"), 3))
	d.Close()
	return config
}

func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "skep-flips-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// contents is all that raft gets to see of a disk.
func contents(t *testing.T, config DiskConfig) (string, error) {
	t.Helper()
	d, err := OpenDisk(config)
	if err != nil {
		return "", err
	}
	defer d.Close()
	var b strings.Builder
	first, _ := d.Log.FirstIndex()
	last, _ := d.Log.LastIndex()
	fmt.Fprintf(&b, "%d–%d", first, last)
	for i := first; i <= last; i++ {
		var entry raft.Log
		if err := d.Log.GetLog(i, &entry); err != nil {
			t.Fatalf("opened without entry %d: %v", i, err)
		}
		fmt.Fprintf(&b, " %d:%x", entry.Term, sha256.Sum256(entry.Data))
	}
	for _, key := range stableKeys {
		value, err := d.Stable.Get([]byte(key))
		fmt.Fprintf(&b, " %s=%x %v", key, value, err)
	}
	snapshots, err := d.Snapshots.List()
	if err != nil {
		t.Fatalf("opened without snapshots: %v", err)
	}
	for _, meta := range snapshots {
		_, source, err := d.Snapshots.Open(meta.ID)
		if err != nil {
			t.Fatalf("opened without snapshot %s: %v", meta.ID, err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, source); err != nil {
			t.Fatalf("opened without snapshot %s: %v", meta.ID, err)
		}
		source.Close()
		fmt.Fprintf(&b, " %d@%d:%x %v", meta.Index, meta.Term, sum.Sum(nil), meta.Configuration)
	}
	return b.String(), nil
}

// damageEach flips bits of a file, of the bytes that are worth it, and cuts it short,
// and wants each to be an error that names the file, or to make no difference.
func damageEach(t *testing.T, config DiskConfig, path string, worth func(at int) bool, bits, lengths int) {
	t.Helper()
	want, err := contents(t, config)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused, harmless := 0, 0
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// put makes the file good but for one byte, which nobody but us changes.
	put := func(b byte, at int) {
		if _, err := file.WriteAt([]byte{b}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	// check opens the disk, and makes the file good again if it could: then it was written
	// to, at least by the transaction that opening makes.
	check := func(what string) {
		got, err := contents(t, config)
		if err == nil {
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		switch {
		case errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), filepath.Dir(path)):
			refused++
		case err != nil:
			t.Fatalf("%s: %v: want damage of %s", what, err, path)
		case got != want:
			t.Fatalf("%s: it has\n%s instead of\n%s", what, got, want)
		default:
			harmless++
		}
	}
	for bit := 0; bit < 8*len(good); bit += bits {
		at := bit / 8
		if !worth(at) {
			continue
		}
		put(good[at]^1<<(bit%8), at)
		check(fmt.Sprintf("bit %d of byte %d flipped", bit%8, at))
		put(good[at], at)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, good) {
		t.Fatalf("somebody wrote to the file: %v", err)
	}
	t.Logf("%s: %d flips refused, %d in bytes that nobody reads", filepath.Base(path), refused, harmless)
	if refused == 0 {
		t.Error("nothing was refused")
	}
	refused, harmless = 0, 0
	for length := 0; length < len(good); length += lengths {
		if err := os.WriteFile(path, good[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("cut to %d bytes", length))
	}
	t.Logf("%s: %d cuts refused, %d of what nobody reads", filepath.Base(path), refused, harmless)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever bit of the log file flips, and wherever it is cut off: the disk isn't opened,
// or it has what it had.
func TestFlips_LogFile(t *testing.T) {
	config := worn(t, 100)
	path := filepath.Join(config.Dir, logFile)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	used, err := newFileCheck(config, 30).read(file)
	if err != nil {
		t.Fatal(err)
	}
	// Of pages that nobody reads a few flips will do, unless all are asked for.
	worth := func(at int) bool { return every(2) == 1 || used[uint64(at/os.Getpagesize())] || at%977 == 0 }
	t.Logf("%d pages are in use", len(used))
	damageEach(t, config, path, worth, every(41), every(401))
}

func TestFlips_Snapshots(t *testing.T) {
	config := worn(t, 70_000)
	for _, name := range []string{"meta.json", "state.bin"} {
		files, err := filepath.Glob(filepath.Join(config.Dir, snapshotDir, "*", name))
		if err != nil || len(files) != 2 {
			t.Fatal(files, err)
		}
		for _, path := range files {
			step := 1
			if name == "state.bin" {
				step = every(9973)
			}
			damageEach(t, config, path, func(int) bool { return true }, step, max(1, step/8))
		}
	}
}

// bbolt leaves the pages of before where they were, for a while: a pointer to the log's
// pages, or from one of them to another, that was damaged may lead to what was there a
// moment ago. Wherever it leads, the disk isn't opened, or it has what it had: a page of
// before may itself lead to the pages of now.
func TestFlips_PointersOfTheLog(t *testing.T) {
	for what, last := range map[string]func(d *Disk) error{
		"an entry was written": func(d *Disk) error {
			return d.Log.StoreLogs([]*raft.Log{{Index: 53, Term: 3, Data: []byte("the last")}})
		},
		"a term was written":     func(d *Disk) error { return d.Stable.SetUint64([]byte("CurrentTerm"), 4) },
		"entries were removed":   func(d *Disk) error { return d.Log.DeleteRange(26, 28) },
		"the end was removed":    func(d *Disk) error { return d.Log.DeleteRange(52, 52) },
		"it was opened, no more": func(*Disk) error { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			config := worn(t, 100)
			d := openDisk(t, config)
			if err := last(d); err != nil {
				t.Fatal(err)
			}
			d.Close()
			misleadEach(t, config)
		})
	}
}

// misleadEach has each pointer to a page of the log, one after the other, lead to each
// other page, and flips its bits, and wants each to be found.
func misleadEach(t *testing.T, config DiskConfig) {
	t.Helper()
	path := filepath.Join(config.Dir, logFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest, _, err := readMetas(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	page := func(id uint64) (boltNode, []byte) {
		data := good[id*uint64(newest.PageSize):][:newest.PageSize]
		n, err := parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return n, data
	}
	root, _ := page(newest.Root)
	i := slices.IndexFunc(root.elements, func(e element) bool { return string(e.key) == string(logBucket) })
	if i < 0 {
		t.Fatal("there is no log")
	}
	pointers := [][]byte{root.elements[i].value[:bucketHead]} // which are within good
	log, data := page(binary.NativeEndian.Uint64(pointers[0]))
	if !log.branch {
		t.Fatal("the log has one page")
	}
	for i := range log.elements {
		pointers = append(pointers, data[pageHead+i*elementSize+8:][:8])
	}
	want, err := contents(t, config)
	if err != nil {
		t.Fatal(err)
	}
	count, before, harmless := 0, 0, 0
	for number, pointer := range pointers {
		right := bytes.Clone(pointer)
		try := func(what string) {
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := checkFile(path, config, 30)
			if err == nil {
				got, err := contents(t, config)
				if err != nil || got != want {
					t.Errorf("pointer %d: %s: it has\n%s (%v) instead of\n%s", number, what, got, err, want)
				}
				harmless++
			} else if !errors.Is(err, ErrDamaged) {
				t.Errorf("pointer %d: %s: %v", number, what, err)
			} else if strings.Contains(err.Error(), "were written") {
				before++
			}
			count++
			copy(pointer, right)
		}
		for bit := range 8 * len(pointer) {
			pointer[bit/8] ^= 1 << (bit % 8)
			try(fmt.Sprintf("bit %d flipped", bit))
		}
		for page := range newest.High + 1 {
			if page != binary.NativeEndian.Uint64(right) {
				binary.NativeEndian.PutUint64(pointer, page)
				try(fmt.Sprintf("leads to page %d", page))
			}
		}
	}
	t.Logf("%d pointers, %d wrong ones, of which %d lead to what was there before, %d to what is there", len(pointers), count, before, harmless)
	if before == 0 {
		t.Error("no page has an earlier log: the test tries nothing")
	}
}
