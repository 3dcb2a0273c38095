package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The lab speaks to the engine that docker would speak to.
func TestRun_TakesDockersHost(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "timecheck"), []byte("#!"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_HOST", "unix:///nowhere/env.sock")
	if err := run(t.Context(), []string{"-bin", dir, "images"}); err == nil || !strings.Contains(err.Error(), "/nowhere/env.sock") {
		t.Errorf("with DOCKER_HOST: %v", err)
	}
	if err := run(t.Context(), []string{"-bin", dir, "-engine", "unix:///nowhere/flag.sock", "images"}); err == nil || !strings.Contains(err.Error(), "/nowhere/flag.sock") {
		t.Errorf("with -engine: %v", err)
	}
	t.Setenv("DOCKER_HOST", "ssh://elsewhere")
	if err := run(t.Context(), []string{"-bin", dir, "images"}); err == nil || !strings.Contains(err.Error(), "DOCKER_HOST=ssh://elsewhere") {
		t.Errorf("with DOCKER_HOST by ssh: %v", err)
	}
}

// "go run ./cmd/lab" has the lab alone, in a directory of the Go tool's.
func TestRun_FindsTheBinaries(t *testing.T) {
	t.Chdir(t.TempDir())
	out := filepath.Join(t.TempDir(), "results")
	err := run(t.Context(), []string{"-bin", t.TempDir(), "run", "--rounds", "1", "--out", out, "leader-crash"})
	if err == nil || !strings.Contains(err.Error(), `build it with "make build"`) {
		t.Errorf("without a binary: %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("something was written")
	}
	if err := os.Mkdir("bin", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("bin/skep", nil, 0o700); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("bin")
	if err != nil {
		t.Fatal(err)
	}
	if dir, err := findBinaries(t.TempDir(), "skep"); err != nil || dir != here {
		t.Errorf("%s, %v", dir, err)
	}
	// From anywhere in the source.
	if err := errors.Join(os.WriteFile("go.mod", nil, 0o600), os.MkdirAll("cmd/lab", 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Chdir("cmd/lab")
	if dir, err := findBinaries(t.TempDir(), "skep"); err != nil || dir != here {
		t.Errorf("from below: %s, %v", dir, err)
	}
}

// A program that needs others of the machine's files is refused before it is in an image, which has none.
func TestBuildImage_OfAProgramThatCantStart(t *testing.T) {
	err := buildImage(t.Context(), "unix:///nowhere.sock", "guest:1", "FROM scratch\nCOPY sh /guest\n", "/bin/sh")
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("with a shell of the machine's: %v", err)
	}
}
