package store

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// backupOf is a backup of a database with an object of each kind.
func backupOf(t testing.TB) []byte {
	s, _ := lead(t)
	put(t, s, filled()...)
	var backup bytes.Buffer
	if err := s.View().Backup(&backup); err != nil {
		t.Fatal(err)
	}
	return backup.Bytes()
}

func TestBackup_IsReadWholeOrNotAtAll(t *testing.T) {
	backup := backupOf(t)
	r, err := ReadBackup(bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	r.s.applied -= indexLeap
	var again bytes.Buffer
	if err := r.View().Backup(&again); err != nil || !bytes.Equal(again.Bytes(), backup) {
		t.Errorf("written again it is something else: %v", err)
	}
	for n := range backup {
		if _, err := ReadBackup(bytes.NewReader(backup[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(backup), err)
		}
	}
	for _, more := range []string{"\x00", "\xa0", "\xff", "\x61"} {
		if _, err := ReadBackup(bytes.NewReader(append(bytes.Clone(backup), more...))); err == nil {
			t.Errorf("%q after its end", more)
		}
	}
	newer := bytes.Replace(backup, []byte("skep backup\x01"), []byte("skep backup\x02"), 1)
	if _, err := ReadBackup(bytes.NewReader(newer)); err == nil || err.Error() != "read backup: its format is 2, this version knows 1: use the version that made it" {
		t.Errorf("a newer format: %v", err)
	}
	for _, other := range []string{"root:x:0:0:root:/root:/bin/bash\n", "\xa0", "\x01", "\xa1\x61a\x01", "\xff"} {
		if _, err := ReadBackup(strings.NewReader(other)); err == nil || err.Error() != "read backup: it isn't a backup of skep" {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// Any tool for CBOR sequences shows what is in a backup: each object under its kind, with
// the names of its fields.
func TestBackup_IsACBORSequence(t *testing.T) {
	in := cbor.NewDecoder(bytes.NewReader(backupOf(t)))
	var head map[string]uint64
	if err := in.Decode(&head); err != nil || head["skep backup"] != 1 || head["objects"] == 0 {
		t.Fatalf("%v, %v", head, err)
	}
	seen := map[string]bool{}
	for range head["objects"] {
		var word string
		var object map[any]any // Fields of tasks are numbers.
		if err := errors.Join(in.Decode(&word), in.Decode(&object)); err != nil || len(object) == 0 {
			t.Fatalf("%s %v: %v", word, object, err)
		}
		seen[word] = true
	}
	for _, k := range kinds {
		if !seen[k.String()] {
			t.Errorf("there is no %s in %v", k, seen)
		}
	}
}

// FuzzReadBackup reads what may be a backup: one that can be read is read from what is
// written of it, too.
func FuzzReadBackup(f *testing.F) {
	backup := backupOf(f)
	for _, seed := range [][]byte{backup, backup[:len(backup)/2], {}, []byte("\xa1\x6bskep backup\x01"), []byte("\xa3\x65index\x00\x67objects\x01\x6bskep backup\x01\x64node\xa0")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := allocated()
		r, err := ReadBackup(bytes.NewReader(data))
		if used := allocated() - before; used > bound(len(data)) {
			t.Fatalf("%d bytes of memory for %d bytes", used, len(data))
		}
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := r.View().Backup(&again); err != nil {
			t.Fatal(err)
		}
		s, err := ReadBackup(&again)
		if err != nil {
			t.Fatal(err)
		}
		r.s.applied += indexLeap
		if r.View().Digest() != s.View().Digest() {
			t.Fatal("written and read again it is something else")
		}
	})
}
