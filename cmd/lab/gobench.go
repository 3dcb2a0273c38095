package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// planRuns is how often placement is timed; the median counts.
const planRuns = 3

// benchPlan runs the scheduler's benchmark, which has the shape of SwarmKit's, and then
// that one.
func benchPlan(ctx context.Context, b *bench) error {
	var all []time.Duration
	for range planRuns {
		values, err := goBench(ctx, "BenchmarkPlan/nodes=1000/tasks=100000", "./scheduler")
		if err != nil {
			return err
		}
		all = append(all, time.Duration(values["ns/op"]))
	}
	took := median(all)
	if took == 0 {
		return errors.New("BenchmarkPlan gave no time")
	}
	reference := ""
	if theirs, err := swarmkitPlan(ctx); err == nil {
		reference = fmt.Sprintf("SwarmKit %s = %.1f ×", seconds(theirs), theirs.Seconds()/took.Seconds())
	} else {
		b.skip("SwarmKit's own benchmark of its scheduler", err)
	}
	b.add(finding{"placement, 1,000 nodes × 100,000 one-task services", seconds(took), reference, "at most 0.6 s", took <= 600*time.Millisecond})
	return nil
}

// swarmkitPlan runs SwarmKit's benchmark on the source that Go's module cache has of
// it, since docker's commands depend on it. Its go.mod is completed in a copy.
func swarmkitPlan(ctx context.Context) (time.Duration, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/swarmkit/v2").Output()
	if err != nil {
		return 0, fmt.Errorf("find SwarmKit's source: %w", err)
	}
	source := strings.TrimSpace(string(out))
	dir, err := os.MkdirTemp("", "skep-lab-swarmkit-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return 0, fmt.Errorf("read SwarmKit's source: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return 0, err
		}
	}
	values, err := goBench(ctx, "BenchmarkScheduler1kNodes100kTasks", "-C", source, "-mod=mod", "-modfile="+filepath.Join(dir, "go.mod"), "./manager/scheduler")
	if err != nil {
		return 0, err
	}
	return time.Duration(values["ns/op"]), nil
}

// benchHeap runs the store's measurement of what a running task costs in memory.
func benchHeap(ctx context.Context, b *bench) error {
	values, err := goBench(ctx, "BenchmarkApplyTask", "./store")
	if err != nil {
		return err
	}
	bytes, ok := values["B/task"]
	if !ok {
		return errors.New("BenchmarkApplyTask gave no B/task")
	}
	b.add(finding{"heap per running task on a manager, 100,000 tasks", fmt.Sprintf("%.0f B", bytes), "SwarmKit 5,025 B, on another day", "at most 400 B", bytes <= 400})
	return nil
}

// benchRoll runs the scheduler's benchmark of a rolling update.
func benchRoll(ctx context.Context, b *bench) error {
	v, err := goBench(ctx, "BenchmarkRoll", "./scheduler")
	if err != nil {
		return err
	}
	took := v["cpu-us/task"]
	b.add(finding{"rolling update of 10,000 replicas, 100 at once: the leader's processors, per task", fmt.Sprintf("%.0f µs", took), "", "at most 150 µs", took > 0 && took <= 150})
	return nil
}

// benchSnapshot runs the store's benchmark of a snapshot.
func benchSnapshot(ctx context.Context, b *bench) error {
	v, err := goBench(ctx, "BenchmarkSnapshot", "./store")
	if err != nil {
		return err
	}
	size, restore := v["MB/million"], v["cpu-s-restore/million"]
	b.add(finding{"snapshot of a million running tasks: size", fmt.Sprintf("%.0f MB", size), "", "at most 150 MB", size > 0 && size <= 150})
	b.add(finding{"the same: processors' time to restore it", fmt.Sprintf("%.1f s", restore), "", "at most 10 s", restore > 0 && restore <= 10})
	return nil
}

// benchMetrics runs the benchmarks of what it costs to measure, and of a scrape.
func benchMetrics(ctx context.Context, b *bench) error {
	for _, of := range []struct{ what, name, pkg, turns string }{
		{"a write to disk, with all that is measured", "BenchmarkUpdate_Measured", "./store", "300x"},
		{"a plan, with all that is measured", "BenchmarkPlan_Measured", "./scheduler", "60x"},
	} {
		v, err := goBench(ctx, of.name, "-benchtime", of.turns, of.pkg)
		if err != nil {
			return err
		}
		b.add(finding{of.what, fmt.Sprintf("%.3f ×", v["times"]), "the same without, by time of processors", "at most 1.02 ×", v["times"] > 0 && v["times"] <= 1.02})
	}
	v, err := goBench(ctx, "BenchmarkMetrics/gzip/nodes=10", "-benchtime", "40x", "./cluster/api")
	if err != nil {
		return err
	}
	b.add(finding{"a scrape of 1,000 services and 10,000 tasks", fmt.Sprintf("%.0f ms", v["ms/scrape"]), "", "at most 50 ms", v["ms/scrape"] > 0 && v["ms/scrape"] <= 50})
	return nil
}

// goBench runs one Go benchmark, once unless -benchtime says how often, of the package and with the options that args
// end and begin with, and returns its values by unit.
func goBench(ctx context.Context, name string, args ...string) (map[string]float64, error) {
	// Each element of the name is a pattern of its own.
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	options, pkg := args[:len(args)-1], args[len(args)-1]
	command := append([]string{"test"}, options...) // -C must come first
	if !slices.Contains(options, "-benchtime") {
		command = append(command, "-benchtime", "1x")
	}
	command = append(command, "-run", "^$", "-bench", strings.Join(parts, "/"), "-count", "1", pkg)
	cmd := exec.CommandContext(ctx, "go", command...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s %s: %w\n%s%s", name, pkg, err, out, stderr.String())
	}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], name) {
			continue
		}
		values := map[string]float64{}
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", s.Text(), err)
			}
			values[fields[i+1]] = v
		}
		return values, nil
	}
	return nil, fmt.Errorf("go test -bench %s %s: there is no such benchmark", name, pkg)
}
