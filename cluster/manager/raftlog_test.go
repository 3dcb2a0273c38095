package manager

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestRaftLogger_WhatOperatorsSee writes what raft says of another manager that is gone,
// and of a disk.
func TestRaftLogger_WhatOperatorsSee(t *testing.T) {
	var out bytes.Buffer
	logger := raftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	logger.Error("failed to heartbeat to", "peer", "127.0.1.1:2377", "error", "connection refused")
	logger.Error("failed to make requestVote RPC", "target", "x")
	logger.Error("failed to take snapshot", "error", "cannot take snapshot now, wait until the configuration entry at 9 has been applied")
	logger.Warn("heartbeat timeout reached, starting election")
	logger.Info("entering leader state")
	if out.Len() > 0 {
		t.Errorf("operators see:\n%s", &out)
	}
	logger.Error("failed to append to logs", "error", "no space left on device")
	if said := out.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "level=WARN") || !strings.Contains(said, "no space") {
		t.Errorf("of the disk they see:\n%s", said)
	}
}
