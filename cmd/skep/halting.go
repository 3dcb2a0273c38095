package main

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// haltingLimit bounds the question, since the daemon is about to stop.
const haltingLimit = 500 * time.Millisecond

// halting tells whether systemd is stopping the whole machine, and not just this
// daemon. On machines without it, nobody knows.
func halting() bool {
	ctx, cancel := context.WithTimeout(context.Background(), haltingLimit)
	defer cancel()
	// It fails in all states but one, and says which it is.
	state, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output()
	return strings.TrimSpace(string(state)) == "stopping"
}
