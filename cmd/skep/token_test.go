package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKeepFile_ReplacesOnlyWhatDiffers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens", "worker")
	read := func() (string, os.FileInfo) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text), info
	}
	keep := func(text string) {
		t.Helper()
		if err := keepFile(path, text); err != nil {
			t.Fatal(err)
		}
	}
	keep("one")
	text, first := read()
	if text != "one\n" || first.Mode().Perm() != 0o600 {
		t.Errorf("file holds %q with mode %v", text, first.Mode())
	}
	keep("one")
	if _, again := read(); !os.SameFile(first, again) {
		t.Error("the same token was written again")
	}
	keep("two")
	if text, _ := read(); text != "two\n" {
		t.Errorf("after rotation the file holds %q", text)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
