package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/creack/pty"

	"skep/cluster"
)

// typed is a docker command that somebody types to.
type typed struct {
	*rackPart
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// types starts docker's command, spoken to a host's node.
func (p *rackPart) types(h *rackHost, args ...string) *typed {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	p.Cleanup(cancel)
	t := &typed{rackPart: p, cmd: p.clientOf(ctx, h, args...)}
	t.cmd.Stderr = os.Stderr
	in, err1 := t.cmd.StdinPipe()
	out, err2 := t.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, t.cmd.Start()); err != nil {
		p.Fatal(err)
	}
	t.in, t.out = in, bufio.NewReader(out)
	return t
}

// clientOf is docker's command, spoken to a host's node, as types has it and terminals do.
func (p *rackPart) clientOf(ctx context.Context, h *rackHost, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+h.node.socket(), "DOCKER_CONFIG="+p.config, "DOCKER_CONTEXT=", "DOCKER_CLI_HINTS=false")
	cmd.WaitDelay = time.Second
	return cmd
}

// echoes types a line, which is to come back.
func (t *typed) echoes(line string) {
	t.Helper()
	fmt.Fprintln(t.in, line)
	if said, err := t.out.ReadString('\n'); err != nil || strings.TrimSpace(said) != line {
		t.Errorf("typed %q, and %q came back, %v", line, said, err)
	}
}

// ends waits for the command's end, which closes its input if asked to, and gives its status.
func (t *typed) ends(hangUp bool) int {
	t.Helper()
	if hangUp {
		t.in.Close()
	}
	_, _ = io.Copy(io.Discard, t.out)
	_ = t.cmd.Wait() // The status says it.
	return t.cmd.ProcessState.ExitCode()
}

// playExec looks at a task's container, and runs commands in it, by the nodes of all hosts.
func playExec(p *rackPart) {
	leader := p.leader()
	others := slices.DeleteFunc(slices.Clone(p.hosts), func(h *rackHost) bool { return h == leader })
	home, serving := others[0], others[1]
	p.service("shell", "--constraint", "node.hostname=="+home.name, "--", "say", "hello from a task")
	p.running("shell", 1)
	task := p.docker("service", "ps", "-q", "--no-trunc", "shell")
	id := p.docker("inspect", "--type", "task", "-f", "{{.Status.ContainerStatus.ContainerID}}", task)
	skep := filepath.Join(p.bin, "skep")
	for i, h := range p.hosts {
		c := p.on(i + 1)
		for _, ref := range []string{id, id[:12], "shell.1." + task} {
			if out := c.docker("inspect", "--type", "container", "-f", "{{.Id}} {{.Name}}", ref); out != id+" /shell.1."+task {
				p.Errorf("%s: inspect %s says %s", h.name, ref, out)
			}
			if out := c.docker("logs", ref); out != "hello from a task" {
				p.Errorf("%s: logs of %s are %q", h.name, ref, out)
			}
		}
		if out := c.docker("top", id, "-o", "pid,args"); !strings.Contains(out, "/guest say hello") {
			p.Errorf("%s: top says\n%s", h.name, out)
		}
		if out := c.docker("stats", "--no-stream", "--format", "{{.ID}} {{.PIDs}}", id); !strings.HasPrefix(out, id[:12]+" ") && !strings.HasPrefix(out, id+" ") {
			p.Errorf("%s: stats say %q", h.name, out)
		}
		if out, _ := c.run("exec", "-e", "X=canary", id, "/guest", "canary"); !strings.Contains(out, "there is no canary") {
			p.Errorf("%s: exec says %q", h.name, out)
		}
		var failed *exec.ExitError
		if _, err := c.run("exec", id, "/guest", "work", "0s", "7"); !errors.As(err, &failed) || failed.ExitCode() != 7 {
			p.Errorf("%s: exec ends with %v, want status 7", h.name, err)
		}
		c.refused("no such file", "exec", id, "/nothing")
		c.docker("exec", "-d", id, "/guest", "work", "0s")
		if _, err := c.command(skep, "--host", h.node.socket(), "service", "exec", "shell", "/guest", "work", "0s", "9"); !errors.As(err, &failed) || failed.ExitCode() != 9 {
			p.Errorf("%s: service exec ends with %v, want status 9", h.name, err)
		}
		typed := p.types(h, "exec", "-i", id, "/guest", "cat", "3")
		typed.echoes("first")
		typed.echoes("second")
		if status := typed.ends(true); status != 3 {
			p.Errorf("%s: exec -i ends with status %d, want 3", h.name, status)
		}
		p.terminal(h, id)
		for what, want := range map[string]string{"service": "shell.1." + task + " shell ", "node": home.name + "  "} {
			out, err := c.command(skep, "--host", h.node.socket(), what, "stats", "--no-stream", "--format", "{{.Name}} {{.Service}} {{.CPUPerc}} {{.MemUsage}}{{.Err}}")
			if err != nil || !strings.HasPrefix(out, want) || !strings.Contains(out, "%") || !strings.Contains(out, "iB / ") {
				p.Errorf("%s: %s stats say %q, %v", h.name, what, out, err)
			}
		}
		if log, err := os.ReadFile(h.node.logFile); err != nil || strings.Count(string(log), "exec in a task's container") < 5 || strings.Contains(string(log), "canary") {
			p.Errorf("%s: its log doesn't tell of each exec, or too much: %v", h.name, err)
		}
	}

	// The leader may die, and what isn't on the way.
	long := p.types(serving, "exec", "-i", id, "/guest", "cat", "4")
	long.echoes("before")
	leader.node.kill()
	long.echoes("meanwhile")
	p.starts(leader)
	long.echoes("after")
	if status := long.ends(true); status != 4 {
		p.Errorf("exec over the leader's death ends with status %d, want 4", status)
	}
	// Not so the manager that has the client, nor the container.
	cut := p.types(serving, "exec", "-i", id, "/guest", "cat", "4")
	cut.echoes("before")
	serving.node.kill()
	if status := cut.ends(false); status == 4 {
		p.Errorf("exec ends with status %d though its manager died", status)
	}
	p.starts(serving)
	// It answers from its own copy of the database, which may be behind for a moment.
	p.eventually("the manager to know the container again", 20*time.Second, func(context.Context) error {
		_, err := p.at(serving.node).run("inspect", id)
		return err
	})
	dying := p.types(serving, "exec", "-i", id, "/guest", "cat", "4")
	dying.echoes("before")
	for i, h := range p.hosts {
		if h == home {
			p.engineOn(i+1).docker("kill", id)
		}
	}
	if status := dying.ends(false); status != 137 {
		p.Errorf("exec in a container that is killed ends with status %d, want 137", status)
	}
	p.running("shell", 1)

	// What is forbidden is refused by all, at once where it was forbidden.
	at := p.at(serving.node)
	if out, err := at.command(skep, "--host", serving.node.socket(), "cluster", "update", "--forbid-exec"); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
	for i, h := range p.hosts {
		p.eventually("exec to be refused by "+h.name, 10*time.Second, func(context.Context) error {
			out, err := p.on(i+1).command(skep, "--host", h.node.socket(), "service", "exec", "shell", "/guest", "work", "0s")
			if err == nil || !strings.Contains(out, "this cluster forbids exec") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	if out, err := at.command(skep, "--host", serving.node.socket(), "cluster", "update", "--forbid-exec=false"); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
	p.removed("shell")
	p.why(skep, home)
}

// why asks by each host what is in the way of services, and has a dump for somebody who helps.
func (p *rackPart) why(skep string, home *rackHost) {
	p.Helper()
	p.service("waits", "--env", "PASSWORD=kanarie", "--constraint", "node.labels.zone==nowhere", "--", "sleep")
	p.service("fails", "--restart-condition", "none", "--constraint", "node.hostname=="+home.name, "--", "work", "0s", "7")
	for i, h := range p.hosts {
		c := p.on(i + 1)
		for service, parts := range map[string][]string{
			"waits": {"0 of 1 task runs", "1 task: no suitable node (scheduling constraints not satisfied on 3 nodes)", "3 excluded by node.labels.zone==nowhere"},
			"fails": {"1 task on " + home.name + ", the last at ", "task: non-zero exit (7)", "2 excluded by node.hostname==" + home.name},
		} {
			p.eventually("why of "+service+" by "+h.name, 10*time.Second, func(context.Context) error {
				out, err := c.command(skep, "--host", h.node.socket(), "service", "why", service)
				for _, part := range parts {
					if err == nil && !strings.Contains(out, part) {
						err = fmt.Errorf("it has no %q", part)
					}
				}
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
		}
		file := filepath.Join(p.TempDir(), "dump.tar.gz")
		if out, err := c.command(skep, "--host", h.node.socket(), "support", "dump", file); err != nil || strings.Contains(out, ".error") {
			p.Errorf("%s: dump: %v\n%s", h.name, err, out)
			continue
		}
		dumped, err := c.command("tar", "-xzOf", file)
		if err != nil {
			p.Fatal(err)
		}
		for _, part := range []string{"waits", "PASSWORD", "non-zero exit (7)", "skep_raft_term", "goroutine profile"} {
			if !strings.Contains(dumped, part) {
				p.Errorf("%s: the dump has no %q", h.name, part)
			}
		}
		if strings.Contains(dumped, "kanarie") || strings.Contains(dumped, "SWMTKN") {
			p.Errorf("%s: the dump has what is nobody's business", h.name)
		}
	}
	p.removed("waits", "fails")
}

// terminal runs a command in a terminal of a size that changes.
func (p *rackPart) terminal(h *rackHost, id string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	cmd := p.clientOf(ctx, h, "exec", "-it", id, "/guest", "size")
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 20, Cols: 70})
	if err != nil {
		p.Fatal(err)
	}
	defer screen.Close()
	lines := bufio.NewReader(screen)
	becomes := func(want string) bool {
		p.Helper()
		for said := ""; strings.TrimSpace(said) != want; { // Sizes may come twice.
			if said, err = lines.ReadString('\n'); err != nil {
				p.Errorf("%s: the terminal ends before it is %s: %v", h.name, want, err)
				return false
			}
		}
		return true
	}
	if !becomes("20 x 70") {
		return
	}
	// docker's command sets the size before it listens to changes: one in between is lost.
	resizing, resized := context.WithCancel(ctx)
	defer resized()
	go func() {
		for rows := uint16(34); cluster.Sleep(resizing, 200*time.Millisecond); rows = 67 - rows {
			_ = pty.Setsize(screen, &pty.Winsize{Rows: rows, Cols: 99})
		}
	}()
	if !becomes("33 x 99") {
		return
	}
	resized()
	fmt.Fprint(screen, "\x10\x11") // Ctrl-P Ctrl-Q: docker's way out
	_, _ = io.Copy(io.Discard, lines)
	_ = cmd.Wait()
}
