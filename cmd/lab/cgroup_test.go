package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// memoryGroup is a control group that bounds the memory of what is in it.
type memoryGroup struct {
	dir  string
	peak string // the file that has the most that was used
}

// newMemoryGroup makes one, or says why it can't be done here.
func newMemoryGroup(name string, limit int) (*memoryGroup, error) {
	var errs []error
	for _, hierarchy := range []struct{ dir, limit, peak string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},
	} {
		g := &memoryGroup{dir: filepath.Join(hierarchy.dir, name), peak: hierarchy.peak}
		err := os.Mkdir(g.dir, 0o755)
		if err == nil {
			if err = os.WriteFile(filepath.Join(g.dir, hierarchy.limit), fmt.Append(nil, limit), 0); err == nil {
				return g, nil
			}
			err = errors.Join(err, os.Remove(g.dir))
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (g *memoryGroup) add(pid int) error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), fmt.Append(nil, pid), 0)
}

func (g *memoryGroup) most() int64 {
	text, err := os.ReadFile(filepath.Join(g.dir, g.peak))
	if err != nil {
		return 0
	}
	size, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return size
}

// Managers that may have 200 MB hold a thousand secrets of 100 kB: with GOMEMLIMIT a tenth below
// what the kernel gives, as SECURITY.md says, nobody is ended, and what is in the database can be
// read. Whoever starts anew in that much memory reads it, too.
func TestAttacked_AMemoryLimitHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const limit, secrets, size = 200_000_000, 1000, 100_000
	groups := map[string]*memoryGroup{}
	for i := 1; i <= 3; i++ {
		g, err := newMemoryGroup(fmt.Sprintf("skep-lab-%d-%d", os.Getpid(), i), limit)
		if err != nil {
			t.Skipf("NOTICE: no control groups can be made here: not tested with a limit of memory: %v", err)
		}
		groups[fmt.Sprint("n", i)] = g
		t.Cleanup(func() {
			if err := until(context.Background(), 5*time.Second, "a control group to be empty", func(context.Context) error { return os.Remove(g.dir) }); err != nil {
				t.Error(err)
			}
		})
	}
	t.Setenv("GOMEMLIMIT", "180000000")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	p := threeManagers(t, ctx)
	for _, n := range p.nodes {
		if err := groups[n.name].add(n.cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	g, making := errgroup.WithContext(ctx)
	for c := range 4 {
		g.Go(func() error {
			for i := c; i < secrets; i += 4 {
				if _, err := p.nodes[c%3].api.SecretCreate(making, largeSecret(i, size)); err != nil {
					return fmt.Errorf("secret %d: %w", i, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d secrets of %d kB were made in %v", secrets, size/1000, time.Since(began))
	p.all(t)
	for _, n := range p.nodes {
		own, err := resident(n.cmd.Process.Pid)
		t.Logf("%s had at most %d MB with its files, and has %d MB of its own, %v", n.name, groups[n.name].most()/1_000_000, own/1_000_000, err)
	}
	again := p.nodes[2]
	again.kill()
	if err := again.start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := groups[again.name].add(again.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, time.Minute, "the manager that was started anew has all", func(ctx context.Context) error { return p.level(ctx) }); err != nil {
		t.Error(err)
	}
	p.all(t)
}
