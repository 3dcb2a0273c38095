package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

const (
	// idleSettle is how long a cluster is left alone before it counts as idle, and
	// idleSpan for how long what it costs is measured.
	idleSettle = 15 * time.Second
	idleSpan   = time.Minute
	// idleServices is how many services the second measurement has.
	idleServices = 10
	// idleManager and idleWorker are what doing nothing may cost, in hundredths of a core.
	idleManager, idleWorker = 0.5, 0.2
	// tick is the unit of processor time in /proc; it is the same on all of Linux's ports.
	tick = 10 * time.Millisecond
)

// benchIdle measures what three managers and two workers cost that have nothing to do,
// without services and with some. Processor time is counted, so that others on the machine
// don't matter much; how much a waking costs depends on the machine.
func benchIdle(ctx context.Context, b *bench) (err error) {
	p, err := b.formed(ctx, "simulate", 5, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.idle(ctx, b, "no services"); err != nil {
		return err
	}
	for i := range idleServices {
		if _, err := p.anyManager().api.ServiceCreate(ctx, benchSpec(fmt.Sprintf("idle-%d", i), 3), swarm.ServiceCreateOptions{}); err != nil {
			return fmt.Errorf("create a service: %w", err)
		}
	}
	return p.idle(ctx, b, fmt.Sprintf("%d services", idleServices))
}

// idle measures all nodes once.
func (p *processes) idle(ctx context.Context, b *bench, what string) error {
	if err := sleep(ctx, idleSettle); err != nil {
		return err
	}
	leader, err := p.leader(ctx, p.anyManager())
	if err != nil {
		return err
	}
	var before []time.Duration
	for _, n := range p.nodes {
		used, err := processorTime(n.cmd.Process.Pid)
		if err != nil {
			return err
		}
		before = append(before, used)
	}
	if err := sleep(ctx, idleSpan); err != nil {
		return err
	}
	most := map[string]float64{}
	for i, n := range p.nodes {
		used, err := processorTime(n.cmd.Process.Pid)
		if err != nil {
			return err
		}
		role := "worker"
		switch {
		case n == leader:
			role = "leader"
		case i < 3:
			role = "follower"
		}
		most[role] = max(most[role], 100*(used-before[i]).Seconds()/idleSpan.Seconds())
	}
	for _, role := range []string{"leader", "follower", "worker"} {
		must := idleManager
		if role == "worker" {
			must = idleWorker
		}
		b.add(finding{fmt.Sprintf("a %s that has nothing to do, %s, of 3 managers and 2 workers", role, what),
			fmt.Sprintf("%.2f %% of a core", most[role]), "", fmt.Sprintf("at most %.1f %%", must), most[role] <= must})
	}
	return nil
}

// processorTime is how long a process has had a processor so far.
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of a node: %w", err)
	}
	return parseStat(data)
}

// parseStat finds user and system time in a line of /proc/PID/stat. The program's name,
// which may have blanks, comes before them.
func parseStat(line []byte) (time.Duration, error) {
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read /proc/PID/stat: %q has too few fields", line)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// sleep waits, but no longer than ctx.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
