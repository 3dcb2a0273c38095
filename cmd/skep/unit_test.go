package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unit is systemd's unit of the daemon.
func unit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("skep.service")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestUnit_HasNoCommentBehindAValue: systemd would take it for a part of the value.
func TestUnit_HasNoCommentBehindAValue(t *testing.T) {
	for line := range strings.Lines(unit(t)) {
		if strings.HasPrefix(line, "ExecStart=") && strings.Contains(line, "#") {
			t.Errorf("systemd takes the comment for arguments: %s", line)
		}
	}
}

// TestUnit_IsUnderstood has systemd itself read the unit, and say how much a daemon that was
// taken over could do.
func TestUnit_IsUnderstood(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze")
	}
	// What it starts has to be there.
	path := filepath.Join(t.TempDir(), "skep.service")
	text := strings.Replace(unit(t), "/usr/local/bin/skep daemon", "/bin/true", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "skep.service") && !strings.Contains(line, "docker.service") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil && strings.Contains(string(out), "skep.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=30", path).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security, at most 3.0: %v\n%s", err, out[max(0, len(out)-200):])
	}
}
