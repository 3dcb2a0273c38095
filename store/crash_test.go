package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/store/crashtest"
	"skep/store/seal"
)

// crashRing is the ring of recorded runs, whose keys the checks must know.
func crashRing() *seal.Ring {
	return seal.NewRing(seal.NewKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64))))
}

// script is what raft would do, a step at a time: each is on the disk whole when it
// returns, and not at all before it begins.
func script(d *Disk, file *seal.File) []func() error {
	var steps []func() error
	add := func(step func() error) { steps = append(steps, step) }
	next := uint64(1)
	store := func(n uint64) {
		entries := logEntries(next, next+n-1)
		for _, e := range entries {
			e.Data = bytes.Repeat(e.Data, 1+int(e.Index%5)*40)
		}
		next += n
		add(func() error { return d.Log.StoreLogs(entries) })
	}
	snapshot := func(index uint64) {
		add(func() error {
			_, transport := raft.NewInmemTransport("")
			sink, err := d.Snapshots.Create(1, index, 2, raft.Configuration{}, 1, transport)
			if err != nil {
				return err
			}
			if _, err := sink.Write(bytes.Repeat([]byte{byte(index)}, 90_000)); err != nil {
				return err
			}
			return sink.Close()
		})
	}
	term := uint64(0)
	vote := func() {
		term++
		now := term
		add(func() error { return d.Stable.SetUint64([]byte("CurrentTerm"), now) })
	}
	record := func(n int) {
		add(func() error { return file.Write(bytes.Repeat([]byte{byte(n)}, 100*n)) })
	}
	vote()
	store(1)
	for i := range 4 {
		store(3)
		vote()
		record(1 + i)
		store(1)
	}
	snapshot(9)
	add(func() error { return d.Log.DeleteRange(1, 6) })
	store(7)
	// Another leader overwrites the end.
	add(func() error { return d.Log.DeleteRange(20, 24) })
	next = 20
	store(2)
	vote()
	snapshot(18)
	snapshot(21)
	record(9)
	add(func() error { return d.Log.DeleteRange(7, 19) })
	store(30)
	return steps
}

// found is what a disk has, as text.
func found(d *Disk, file *seal.File) (string, error) {
	var b strings.Builder
	first, err := d.Log.FirstIndex()
	if err != nil {
		return "", err
	}
	last, err := d.Log.LastIndex()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "log %d–%d", first, last)
	for i := first; i <= last && first > 0; i++ {
		var e raft.Log
		if err := d.Log.GetLog(i, &e); err != nil {
			return "", err
		}
		if want := fmt.Sprint("entry ", i); !strings.HasPrefix(string(e.Data), want) || len(e.Data) != len(want)*(1+int(i%5)*40) {
			return "", fmt.Errorf("entry %d is %.20q", i, e.Data)
		}
	}
	term, err := d.Stable.GetUint64([]byte("CurrentTerm"))
	if err != nil && err.Error() != "not found" {
		return "", err
	}
	fmt.Fprintf(&b, ", term %d", term)
	snapshots, err := d.Snapshots.List()
	if err != nil {
		return "", err
	}
	if len(snapshots) > 0 {
		_, content, err := d.Snapshots.Open(snapshots[0].ID)
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(content)
		content.Close()
		if err != nil || len(data) != 90_000 || data[0] != byte(snapshots[0].Index) {
			return "", fmt.Errorf("snapshot %d has %d bytes: %v", snapshots[0].Index, len(data), err)
		}
		fmt.Fprintf(&b, ", snapshot %d", snapshots[0].Index)
	}
	data, err := file.Read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	fmt.Fprintf(&b, ", record of %d bytes", len(data))
	return b.String(), nil
}

func openAt(dir string, fatal func(error)) (*Disk, *seal.File, error) {
	ring := crashRing()
	d, err := OpenDisk(DiskConfig{Dir: filepath.Join(dir, "manager"), Ring: ring, ClusterID: "c1", StallLimit: time.Minute, Fatal: fatal, Log: quiet})
	return d, seal.NewFile(filepath.Join(dir, "record"), ring, "c1", "record"), err
}

// TestCrash_FindsWhatWasAcknowledged cuts the power at every step that a disk takes:
// it opens again, and has what was acknowledged, or that and the one step under way.
func TestCrash_FindsWhatWasAcknowledged(t *testing.T) {
	trace := crashtest.Record(t, t.Name(), func(dir string) {
		crashtest.Ack("log 0–0, term 0, record of 0 bytes")
		d, file, err := openAt(dir, func(err error) { panic(err) })
		if err != nil {
			panic(err)
		}
		for _, step := range script(d, file) {
			have, err := found(d, file)
			if err != nil {
				panic(err)
			}
			crashtest.Ack(have)
			if err := step(); err != nil {
				panic(err)
			}
		}
		have, err := found(d, file)
		if err != nil {
			panic(err)
		}
		crashtest.Ack(have)
	})
	checkEach(t, trace, 500)
}

// TestCrash_WhileOpening cuts the power at every step of opening a disk again: after
// entries were written, after they were removed, between the two steps of a removal, and
// when nothing was done.
func TestCrash_WhileOpening(t *testing.T) {
	trace := crashtest.Record(t, t.Name(), func(dir string) {
		must := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		step := func(do func(d *Disk) error) {
			d, file, err := openAt(dir, func(err error) { panic(err) })
			must(err)
			have, err := found(d, file)
			must(err)
			crashtest.Ack(have)
			must(do(d))
			have, err = found(d, file)
			must(err)
			crashtest.Ack(have)
			must(d.Close())
		}
		entries := logEntries(1, 40)
		for _, e := range entries {
			e.Data = bytes.Repeat(e.Data, 1+int(e.Index%5)*40)
		}
		step(func(d *Disk) error { return d.Log.StoreLogs(entries) })
		step(func(*Disk) error { return nil })
		step(func(d *Disk) error { return d.Stable.SetUint64([]byte("CurrentTerm"), 1) })
		step(func(d *Disk) error { return d.Log.DeleteRange(38, 40) })
		step(func(*Disk) error { return nil })
		// The machine goes down in the middle of a removal.
		step(func(d *Disk) error {
			_, err := d.bolt.announceLocked(20, 37)
			return err
		})
		step(func(*Disk) error { return nil })
		step(func(d *Disk) error { return d.Log.StoreLogs(entries[19:25]) })
	})
	checkEach(t, trace, 100)
}

// checkEach opens each state that a crash can leave: it has what was acknowledged, or
// that and the one step under way.
func checkEach(t *testing.T, trace *crashtest.Trace, least int) {
	t.Helper()
	// What follows each state is known from the whole run.
	var states []string
	after := map[string]string{}
	wrong := 0
	check := func(c crashtest.Crash) {
		if wrong == 20 {
			return
		}
		have := ""
		d, file, err := openAt(c.Dir, func(err error) { t.Errorf("%v: %v", c, err) })
		if err == nil {
			have, err = found(d, file)
			d.Close()
		}
		last := c.Acked[len(c.Acked)-1]
		if err != nil || have != last && have != after[last] {
			wrong++
			t.Errorf("%v: found %s (%v)\nwant %s\nor   %s", c, have, err, last, after[last])
		}
	}
	states = trace.Acks()
	for i := range states[:len(states)-1] {
		after[states[i]] = states[i+1]
	}
	count := trace.Each(t, check)
	t.Logf("%d states after %d acknowledged steps", count, len(states))
	if count < least {
		t.Errorf("only %d states: what was recorded?", count)
	}
}
