package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestLeaderless_NobodyIsToldThatThereIsNothing: of three real processes two are killed and
// one is started anew. It has what was in its last snapshot, which is nothing.
func TestLeaderless_NobodyIsToldThatThereIsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p, err := newProcesses(ctx, lab{bin: binaries(t), engine: defaultEngine}, "simulate", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.form(ctx, 3); err != nil {
		t.Fatal(err)
	}
	const services = 8
	for i := range services {
		spec := swarm.ServiceSpec{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "app:1"}}}
		spec.Name = fmt.Sprint("web-", i)
		if _, err := p.nodes[0].api.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	passphrase, backup := filepath.Join(dir, "passphrase"), filepath.Join(dir, "backup")
	if err := os.WriteFile(passphrase, []byte("correct horse battery"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := p.nodes[1]
	command := func(args ...string) (status int, output string) {
		t.Helper()
		out, err := exec.CommandContext(ctx, filepath.Join(p.bin, "skep"), append([]string{"--host", last.socket()}, args...)...).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if exit != nil {
			status = exit.ExitCode()
		}
		return status, string(out)
	}
	for _, n := range p.nodes {
		n.kill()
	}
	if err := last.start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"service", "ls"}, {"swarm", "join-token", "worker"},
		{"cluster", "backup", "--passphrase-file", passphrase, backup},
	} {
		if status, out := command(args...); status != 1 || !strings.Contains(out, "The swarm does not have a leader") {
			t.Errorf("without a leader %q ends with %d and says %s", args, status, out)
		}
	}
	if _, err := os.Stat(backup); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a backup that failed left a file: %v", err)
	}
	if status, out := command("cluster", "status"); status != 2 || !strings.Contains(out, "1 of 3 managers answer") {
		t.Errorf("without a leader the status ends with %d and says %s", status, out)
	}
	if status, out := command("info"); status != 0 || !strings.Contains(out, "does not have a leader") {
		t.Errorf("without a leader info ends with %d and says %s", status, out)
	}
	if err := p.nodes[0].start(ctx); err != nil {
		t.Fatal(err)
	}
	err = until(ctx, time.Minute, "a leader", func(ctx context.Context) error {
		list, err := last.api.ServiceList(ctx, swarm.ServiceListOptions{})
		if err == nil && len(list) != services {
			t.Errorf("%d services of %d", len(list), services)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, out := command("cluster", "backup", "--passphrase-file", passphrase, backup); status != 0 {
		t.Errorf("with a leader the backup ends with %d and says %s", status, out)
	}
}
