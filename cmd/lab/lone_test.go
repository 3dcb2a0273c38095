package main

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// A lone manager stands still for longer than raft may take for a write, as a laptop
// does whose lid is shut, while clients write: it leads again by itself.
func TestLone_LeadsAgainAfterAPause(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p, err := newProcesses(ctx, lab{bin: binaries(t), engine: "unix:///nowhere"}, "simulate", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(p.nodes[0].lastLog())
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.form(ctx, 1); err != nil {
		t.Fatal(err)
	}
	n := p.nodes[0]
	writing, stop := context.WithCancel(ctx)
	defer stop()
	for c := range 16 {
		go func() {
			api, err := connect(n.socket())
			if err != nil {
				t.Error(err)
				return
			}
			defer api.Close()
			for i := 0; writing.Err() == nil; i++ {
				_, _ = api.ServiceCreate(writing, benchSpec(fmt.Sprintf("w-%d-%d", c, i), 0), swarm.ServiceCreateOptions{})
			}
		}()
	}
	for round := range 2 {
		time.Sleep(time.Second)
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
			if err := n.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if signal == syscall.SIGSTOP {
				time.Sleep(12 * time.Second)
			}
		}
		resumed := time.Now()
		if err := until(ctx, 5*time.Second, "a write after the pause", func(ctx context.Context) error {
			_, err := n.api.ServiceCreate(ctx, benchSpec(fmt.Sprintf("after-%d", round), 0), swarm.ServiceCreateOptions{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Logf("the first write was taken %v after the pause", time.Since(resumed))
	}
}
