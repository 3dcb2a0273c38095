package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"
)

// threeManagers are processes without tasks.
func threeManagers(t *testing.T, ctx context.Context) *processes {
	t.Helper()
	p, err := newProcesses(ctx, lab{bin: binaries(t), engine: "unix:///nowhere"}, "simulate", 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range p.nodes {
				t.Logf("the log of %s ends:\n%s", n.name, n.lastLog())
			}
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.form(ctx, 3); err != nil {
		t.Fatal(err)
	}
	return p
}

// all wants every process to run still.
func (p *processes) all(t *testing.T) {
	t.Helper()
	for _, n := range p.nodes {
		if err := n.alive(); err != nil {
			t.Error(err)
		}
	}
}

func largeSecret(i, size int) swarm.SecretSpec {
	return swarm.SecretSpec{Annotations: swarm.Annotations{Name: fmt.Sprintf("large-%d", i)}, Data: bytes.Repeat([]byte{byte('a' + i%26)}, size)}
}

// A follower is off while 100 secrets of nearly the largest size are made. It comes back,
// has them, and all managers live. SKEP_LARGE makes another number of them.
func TestLarge_AFollowerThatWasOffCatchesUp(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	p := threeManagers(t, ctx)
	leader, err := p.leader(ctx, p.nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	follower := p.nodes[0]
	if follower == leader {
		follower = p.nodes[1]
	}
	follower.kill()
	secrets := 100
	if text := os.Getenv("SKEP_LARGE"); text != "" {
		if secrets, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	making := time.Now()
	g, creating := errgroup.WithContext(ctx)
	for c := range 4 {
		g.Go(func() error {
			for i := c; i < secrets; i += 4 {
				// A machine that is starved may change its leader; what is tested is the follower.
				err := until(creating, time.Minute, "a secret", func(ctx context.Context) error {
					_, err := leader.api.SecretCreate(ctx, largeSecret(i, 499*1000))
					if errdefs.IsConflict(err) {
						return nil // It was made by an attempt whose outcome was unknown.
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d secrets were made in %v", secrets, time.Since(making))
	if err := follower.start(ctx); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	if err := until(ctx, 3*time.Minute, "the follower has all", func(ctx context.Context) error { return p.level(ctx) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("it had all after %v", time.Since(back))
	p.all(t)
	for _, n := range p.nodes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		peak, _, _ = strings.Cut(peak, "\n")
		t.Logf("%s had at most %s in memory", n.name, strings.TrimSpace(peak))
	}
}

// level wants all managers to have applied what the leader has.
func (p *processes) level(ctx context.Context) error {
	status, err := clusterStatus(ctx, p.nodes[0].api)
	if err != nil {
		return err
	}
	var least, most uint64
	for i, m := range status.Managers {
		if !m.Reachable {
			return fmt.Errorf("%s doesn't answer", m.Hostname)
		}
		if i == 0 || m.AppliedIndex < least {
			least = m.AppliedIndex
		}
		most = max(most, m.AppliedIndex)
	}
	if most-least > 3 {
		return fmt.Errorf("from %d to %d", least, most)
	}
	return nil
}

// The largest specs, and configs of 600 to 900 kB, by many clients at once: nobody is
// deposed, and nobody ends.
func TestLarge_SpecsAtHighLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	p := threeManagers(t, ctx)
	before, err := clusterStatus(ctx, p.nodes[0].api)
	if err != nil {
		t.Fatal(err)
	}
	load, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	var large, small, failed atomic.Int64
	var last atomic.Value
	g, load := errgroup.WithContext(load)
	for c := range 24 {
		g.Go(func() error {
			api, err := connect(p.nodes[c%3].socket())
			if err != nil {
				return err
			}
			defer api.Close()
			for i := 0; load.Err() == nil; i++ {
				spec := benchSpec(fmt.Sprintf("load-%d-%d", c, i), 0)
				taken := &small
				if c < 2 {
					taken = &large
					spec.Labels = map[string]string{}
					for label := range 7 {
						spec.Labels[fmt.Sprint("large-", label)] = strings.Repeat("x", 32<<10)
					}
				}
				var err error
				if c < 2 && i%2 == 0 {
					_, err = api.ConfigCreate(load, swarm.ConfigSpec{
						Annotations: swarm.Annotations{Name: spec.Name}, Data: bytes.Repeat([]byte("x"), (600+100*(i/2%4))*1000),
					})
				} else {
					_, err = api.ServiceCreate(load, spec, swarm.ServiceCreateOptions{})
				}
				if err == nil {
					taken.Add(1)
				} else if load.Err() == nil {
					failed.Add(1)
					last.Store(err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	after, err := clusterStatus(ctx, p.nodes[0].api)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d large objects and %d small ones were taken, %d failed (%v); term %d to %d", large.Load(), small.Load(), failed.Load(), last.Load(), before.Term, after.Term)
	if after.Term != before.Term || failed.Load() > 0 || large.Load() < 20 {
		t.Error("the leader was deposed, or writes failed")
	}
	p.all(t)
}
