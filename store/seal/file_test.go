package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFile_IsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	ring := NewRing(NewKey(rand.Reader))
	file := NewFile(path, ring, "c1", "agent")
	if _, err := file.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before the first write: %v", err)
	}
	// What a crash in the middle of a write left behind must not get in the way.
	if err := os.WriteFile(path+".new", bytes.Repeat([]byte("x"), 9999), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"canary one", "canary two, longer", ""} {
		if err := file.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := file.Read(); err != nil || string(got) != content {
			t.Fatalf("Read = %q, %v; want %q", got, err, content)
		}
		if raw, _ := os.ReadFile(path); bytes.Contains(raw, []byte("canary")) {
			t.Error("the file has its content in the clear")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left beside the file: %v", err)
	}
	if _, err := NewFile(path, ring, "c1", "other").Read(); !errors.Is(err, ErrBad) {
		t.Errorf("read as another kind of file: %v", err)
	}
	if _, err := NewFile(path, NewRing(NewKey(rand.Reader)), "c1", "agent").Read(); !errors.Is(err, ErrBad) {
		t.Errorf("read with another key: %v", err)
	}
	if err := os.Truncate(path, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Read(); !errors.Is(err, ErrBad) {
		t.Errorf("cut short: %v", err)
	}
}

// Whatever bit flips, and wherever the file is cut off: reading fails, and names it.
func TestFile_NoticesEachFlipAndCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	file := NewFile(path, NewRing(NewKey(rand.Reader)), "c1", "agent")
	if err := file.Write(bytes.Repeat([]byte("some content "), 9)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(what string, at int, bad []byte) {
		t.Helper()
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Read(); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s %d: %v", what, at, err)
		}
	}
	for bit := range 8 * len(good) {
		good[bit/8] ^= 1 << (bit % 8)
		refuses("flip of bit", bit, good)
		good[bit/8] ^= 1 << (bit % 8)
	}
	for length := range good {
		refuses("cut to", length, good[:length])
	}
}
