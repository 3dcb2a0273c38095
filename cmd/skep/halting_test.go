package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHalting(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for state, want := range map[string]bool{"stopping": true, "running": false, "degraded": false, "starting": false, "offline": false} {
		script := "#!/bin/sh\n[ \"$1\" = is-system-running ] && echo " + state + "\n[ " + state + " = running ]\n"
		if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		if halting() != want {
			t.Errorf("%s: %v", state, !want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if halting() {
		t.Error("without systemd")
	}
}
