package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/docker/docker/api/types/image"
)

// operator is somebody with a terminal, ssh and a list of machines. The last machine lets in only a user that
// sudo asks for a password, and the one before it is behind the first.
type operator struct {
	*testing.T
	ctx      context.Context
	machines []*machine
	// bin has skep, and guest; dir is where commands are run, and env what they are run with.
	bin, dir string
	env      []string
}

const (
	upUser     = "ann"
	upPassword = "open sesame"
)

// upHosts are the machines as ssh knows them: three managers and a worker.
var upHosts = []string{"m1", "m2", "m3", upUser + "@m4"}

// TestMachinesUp has `skep up`, by the system's ssh, on four machines: what an operator meets from fresh machines
// to none.
func TestMachinesUp(t *testing.T) {
	if os.Getenv(testMachines) != "1" {
		t.Skip("make test-machines: takes minutes, and Debian's packages the first time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 14*time.Minute)
	defer cancel()
	o := newOperator(ctx, t)
	for _, step := range []struct {
		name string
		test func(*operator)
	}{
		{"Check", (*operator).isToldAllProblems},
		{"Killed", (*operator).goesOnAfterBeingKilled},
		{"Again", (*operator).hasNothingToDo},
		{"Images", (*operator).pushesImages},
		{"Upgrade", (*operator).upgradesUnderLoad},
		{"Remove", (*operator).removesAMachine},
		{"Down", (*operator).leavesNothing},
		{"Timed", (*operator).deploysWithTwoCommands},
		{"Reboot", (*operator).rebootsAll},
		{"DownAgain", (*operator).leavesNothing},
	} {
		ok := timed(t, step.name, func(t *testing.T) {
			o.T = t
			step.test(o)
		})
		o.T = t
		if !ok {
			o.tell()
			return // What follows goes by it.
		}
	}
}

func newOperator(ctx context.Context, t *testing.T) *operator {
	t.Helper()
	o := &operator{T: t, ctx: ctx, bin: binaries(t, "skep/cmd/lab/guest"), dir: t.TempDir()}
	key, authorized := newKey(ctx, t, o.dir)
	o.machines = newMachines(ctx, t, len(upHosts), authorized)
	o.on(3, "sh", "-c", fmt.Sprintf(`useradd -m -s /bin/bash -G sudo %s && echo '%s:%s' | chpasswd && cp -r /root/.ssh /home/%[1]s/ && chown -R %[1]s: /home/%[1]s/.ssh && rm /root/.ssh/authorized_keys`, upUser, upUser, upPassword))

	config := fmt.Sprintf("Host m1 m2 m3\n User root\nHost *\n IdentityFile %s\n IdentitiesOnly yes\n UserKnownHostsFile %s\n", key, filepath.Join(o.dir, "known"))
	for _, m := range o.machines {
		config += fmt.Sprintf("Host %s\n HostName %s\n", m.name, m.addr)
	}
	config += "Host m3\n ProxyJump m1\n"
	programs := filepath.Join(o.dir, "programs")
	configureSSH(t, programs, filepath.Join(o.dir, "config"), config)
	writeFile(t, filepath.Join(programs, "skep"), fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", filepath.Join(o.bin, "skep")))
	o.env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+filepath.Join(o.dir, "docker"), "TERM=dumb")
	return o
}

// newKey makes a key for ssh, and what lets it in.
func newKey(ctx context.Context, t *testing.T, dir string) (key string, authorized []byte) {
	t.Helper()
	key = filepath.Join(dir, "key")
	if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	authorized, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return key, authorized
}

// configureSSH has ssh and scp, as programs of a directory, go by a configuration.
func configureSSH(t *testing.T, programs, path, config string) {
	t.Helper()
	writeFile(t, path, config)
	for _, name := range []string{"ssh", "scp"} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(programs, name), fmt.Sprintf("#!/bin/sh\nexec %s -F %s \"$@\"\n", program, path))
	}
}

// writeFile writes a file that can be run, and makes the directory that it is in.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o700)); err != nil {
		t.Fatal(err)
	}
}

// on runs a command on a machine, which must succeed.
func (o *operator) on(i int, command ...string) string {
	o.Helper()
	out, err := o.machines[i].run(o.ctx, command...)
	if err != nil {
		o.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// questions are what ssh and sudo ask, and what the operator answers.
var questions = map[string]string{
	"Are you sure you want to continue connecting": "yes\n",
	"[sudo] password for":                          upPassword + "\n",
	"Go on? [y/N]":                                 "y\n",
}

// tries runs a command at a terminal, answers what it asks, and returns what was shown. It is
// killed when killAt appears, unless that is empty.
func (o *operator) tries(killAt, name string, args ...string) (shown string, err error) {
	o.Helper()
	cmd := exec.CommandContext(o.ctx, name, args...)
	if !strings.Contains(name, "/") {
		cmd.Path = o.program(name)
		cmd.Err = nil
	}
	cmd.Dir, cmd.Env = o.dir, o.env
	terminal, err := pty.Start(cmd)
	if err != nil {
		o.Fatal(err)
	}
	defer terminal.Close()
	var all strings.Builder
	var answered int
	buffer := make([]byte, 4096)
	for {
		n, err := terminal.Read(buffer)
		all.Write(buffer[:n])
		for question, answer := range questions {
			if i := strings.LastIndex(all.String(), question); i >= answered {
				answered = all.Len()
				_, _ = io.WriteString(terminal, answer)
			}
		}
		if killAt != "" && strings.Contains(all.String(), killAt) {
			_ = cmd.Process.Kill()
		}
		if err != nil {
			break // The terminal is gone with the last that has it.
		}
	}
	err = cmd.Wait()
	return strings.ReplaceAll(all.String(), "\r\n", "\n"), err
}

// program is where a program of the operator's is.
func (o *operator) program(name string) string {
	if path := filepath.Join(o.dir, "programs", name); fileThere(path) {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		o.Fatal(err)
	}
	return path
}

func fileThere(path string) bool { _, err := os.Stat(path); return err == nil }

// does is a command that must succeed.
func (o *operator) does(name string, args ...string) string {
	o.Helper()
	begin := time.Now()
	shown, err := o.tries("", name, args...)
	o.Logf("%s %s: %v\n%s", name, strings.Join(args, " "), time.Since(begin).Round(100*time.Millisecond), shown)
	if err != nil {
		o.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return shown
}

// tell says what was run on machines.
func (o *operator) tell() {
	log, _ := os.ReadFile(filepath.Join(o.dir, "cluster.log"))
	o.Logf("the log:\n%s", log[max(0, len(log)-8000):])
	for i, m := range o.machines {
		journal, _ := m.run(o.ctx, "journalctl", "-u", "skep", "--no-pager", "-n", "30", "-o", "short-precise")
		o.Logf("m%d:\n%s", i+1, journal)
	}
}

// members is the list's machines on the command line.
var members = []string{upHosts[0], upHosts[1], upHosts[2], "--workers", upHosts[3]}

// isToldAllProblems has one machine without an engine, one behind a firewall, and one whose port another has.
func (o *operator) isToldAllProblems() {
	o.on(0, "systemctl", "stop", "docker.socket", "docker")
	o.on(1, "iptables", "-I", "INPUT", "-p", "udp", "--dport", "7946", "-j", "DROP")
	o.on(2, "systemd-run", "--unit=thief", "systemd-socket-activate", "--accept", "--listen=2377", "/bin/cat")
	shown, err := o.tries("", "skep", append([]string{"check"}, members...)...)
	o.Logf("%s", shown)
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		o.Errorf("check ended with %v, want status 2", err)
	}
	for _, want := range []string{
		"m1: there is no Docker Engine that answers", "m3: another program has 2377/tcp",
		"m1: it doesn't reach 7946/udp (no answer) of m2", "m3: it doesn't reach 7946/udp (no answer) of m2", "ann@m4: it doesn't reach 7946/udp (no answer) of m2",
	} {
		if !strings.Contains(shown, want) {
			o.Errorf("it doesn't say %q", want)
		}
	}
	for i := range o.machines {
		if left := o.on(i, "sh", "-c", "ls -A /usr/local/bin; pgrep -a skep; true"); left != "" {
			o.Errorf("m%d has %s after a check", i+1, left)
		}
	}
	o.on(0, "systemctl", "start", "docker")
	o.on(1, "iptables", "-D", "INPUT", "-p", "udp", "--dport", "7946", "-j", "DROP")
	o.on(2, "systemctl", "stop", "thief")
	if shown := o.does("skep", append([]string{"up", "--dry-run"}, members...)...); !strings.Contains(shown, "m1: make a cluster, reached at 10.77.77.11") || fileThere(filepath.Join(o.dir, "cluster.yml")) {
		o.Error("that is no dry run")
	}
}

// goesOnAfterBeingKilled kills the command while the second manager joins.
func (o *operator) goesOnAfterBeingKilled() {
	shown, err := o.tries("m2: join as a manager", "skep", append([]string{"up", "--label", "zone=a"}, members...)...)
	o.Logf("killed: %v\n%s", err, shown)
	if err == nil {
		o.Fatal("it wasn't killed")
	}
	shown = o.does("skep", "up")
	if strings.Contains(shown, "make a cluster") {
		o.Error("a second cluster was made")
	}
	o.allReady(4)
}

// allReady asks by docker, through the context that was made.
func (o *operator) allReady(n int) {
	o.Helper()
	if out := o.does("docker", "--context", "skep", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"); strings.Count(out, "Ready") != n || strings.Count(out, "Reachable")+strings.Count(out, "Leader") != 3 {
		o.Errorf("the nodes are\n%s", out)
	}
}

func (o *operator) hasNothingToDo() {
	pids := o.pids()
	if shown := o.does("skep", "up"); !strings.Contains(shown, "Nothing was to be done: 4 machines") {
		o.Error("it did something")
	}
	if shown := o.does("skep", append([]string{"up"}, members...)...); !strings.Contains(shown, "Nothing was to be done") {
		o.Error("with the machines on the command line it did something")
	}
	if now := o.pids(); !slices.Equal(now, pids) {
		o.Errorf("daemons were restarted: %v, %v", pids, now)
	}
	if labels := o.does("docker", "--context", "skep", "node", "inspect", "--format", "{{.Spec.Labels.zone}}", "m4"); strings.TrimSpace(labels) != "a" {
		o.Errorf("m4 has label zone=%s", labels)
	}
	log, err := os.ReadFile(filepath.Join(o.dir, "cluster.log"))
	if err != nil || bytes.Contains(log, []byte("SWMTKN")) || bytes.Contains(log, []byte(upPassword)) || !bytes.Contains(log, []byte("swarm join --token-file -")) {
		o.Errorf("the log has a secret, or not what was run: %v", err)
	}
}

func (o *operator) pids() (all []string) {
	for i := range o.machines {
		all = append(all, o.on(i, "systemctl", "show", "--value", "-p", "MainPID", "skep"))
	}
	return all
}

// pushesImages brings an image with a layer to all, and then one that is the same but for its settings.
func (o *operator) pushesImages() {
	engine, err := connect(defaultEngine)
	if err != nil {
		o.Fatal(err)
	}
	defer engine.Close()
	for _, version := range []int{1, 2} {
		dockerfile := fmt.Sprintf("FROM scratch\nCOPY guest /guest\nENV GUEST_VERSION=%d\nENTRYPOINT [\"/guest\"]\n", version)
		if err := buildImage(o.ctx, defaultEngine, guestImage(version), dockerfile, filepath.Join(o.bin, "guest")); err != nil {
			o.Fatal(err)
		}
	}
	defer func() {
		for _, version := range []int{1, 2} {
			_, _ = engine.ImageRemove(context.WithoutCancel(o.ctx), guestImage(version), image.RemoveOptions{Force: true, PruneChildren: true})
		}
	}()
	if shown := o.does("skep", "image", "push", guestImage(1)); strings.Count(shown, "1 of 1 layers were sent") != 4 {
		o.Error("the layer didn't go to all")
	}
	if shown := o.does("skep", "image", "push", guestImage(1), "m2"); !strings.Contains(shown, "m2: has it\n") {
		o.Error("it went there again")
	}
	if shown := o.does("skep", "image", "push", guestImage(2)); strings.Count(shown, "0 of 1 layers were sent") != 4 {
		o.Error("a layer went that all have")
	}
	o.compose()
	o.does("docker", "--context", "skep", "stack", "deploy", "--resolve-image", "never", "--compose-file", "compose.yml", "shop")
	o.runs(time.Minute)
}

// compose writes the load's stack.
func (o *operator) compose() {
	o.Helper()
	compose := "services:\n  web:\n    image: " + guestImage(2) + "\n    command: serve\n    ports: [\"8080:80\"]\n    deploy: {replicas: 6}\n"
	if err := os.WriteFile(filepath.Join(o.dir, "compose.yml"), []byte("version: \"3.8\"\n"+compose), 0o600); err != nil {
		o.Fatal(err)
	}
}

// runs waits until all tasks of the stack run and answer everywhere.
func (o *operator) runs(limit time.Duration) {
	o.Helper()
	if err := until(o.ctx, limit, "the stack to run", func(ctx context.Context) error {
		out, err := o.tries("", "docker", "--context", "skep", "service", "ls", "--format", "{{.Replicas}}")
		if err == nil && !strings.HasPrefix(strings.TrimSpace(out), "6/6") {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		o.Fatal(err)
	}
	if err := until(o.ctx, limit, "it to answer", func(ctx context.Context) error {
		for _, m := range o.machines[:3] {
			if out, err := exec.CommandContext(ctx, filepath.Join(o.bin, "guest"), "get", "http://"+m.addr+":8080/").CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		return nil
	}); err != nil {
		o.Fatal(err)
	}
}

// versionOf is what a skep calls its version.
func (o *operator) versionOf(binary string) string {
	o.Helper()
	out, err := exec.CommandContext(o.ctx, binary, "--version").Output()
	if err != nil {
		o.Fatal(err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "skep version ")
}

// upgradesUnderLoad brings another version to all while clients ask: this source to nodes of the last release or,
// while there is none, a later one to nodes of this source.
func (o *operator) upgradesUnderLoad() {
	older, next, made := twoVersions(o.T)
	o.Logf("from %s to %s", older.name, next.name)
	if !made {
		o.does("skep", "up", "--force", "--binary", older.binary)
		o.runs(time.Minute)
	}
	newer, version := next.binary, o.versionOf(next.binary)
	shown, err := o.tries("", newer, "up")
	if err == nil || !strings.Contains(shown, "in the way of an upgrade to skep "+version+": there is no backup") {
		o.Errorf("without a backup: %v\n%s", err, shown)
	}
	writeFile(o.T, filepath.Join(o.dir, "pass"), "of a backup of the machines")
	o.env = append(o.env, "SKEP_HOST=ssh://m1/run/skep/skep.sock")
	o.does("skep", "cluster", "backup", "--passphrase-file", "pass", "backup")
	before := o.on(0, "sh", "-c", "docker ps -q --no-trunc | sort")
	loaded, stop := context.WithCancel(o.ctx)
	load := exec.CommandContext(loaded, filepath.Join(o.bin, "guest"), "load", "-pause", "50ms", "http://"+o.machines[0].addr+":8080/", "http://"+o.machines[1].addr+":8080/", "http://"+o.machines[2].addr+":8080/", "http://"+o.machines[3].addr+":8080/")
	load.Cancel = func() error { return load.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	load.Stdout = &out
	if err := load.Start(); err != nil {
		o.Fatal(err)
	}
	ended := sync.OnceValue(func() error { stop(); return load.Wait() })
	defer func() { _ = ended() }()
	begin := time.Now()
	shown = o.does(newer, "up")
	took := time.Since(begin)
	_ = ended()
	var result struct {
		Requests, Failed int
		Longest          time.Duration
		Failures         []struct{ URL, Error string }
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		o.Fatalf("%v: %s", err, out.String())
	}
	o.Logf("upgraded in %v: %d requests, %d failed, the slowest took %v", took.Round(100*time.Millisecond), result.Requests, result.Failed, result.Longest.Round(time.Millisecond))
	if result.Failed > 0 || result.Requests < 100 {
		o.Errorf("failed: %+v", result.Failures[:min(5, len(result.Failures))])
	}
	steps := regexp.MustCompile(`(\S+): upgrade from skep \S+ to `+regexp.QuoteMeta(version)+` \((a follower|the leader|a worker)`).FindAllStringSubmatch(shown, -1)
	var order []string
	for _, s := range steps {
		order = append(order, s[2])
	}
	if got := strings.Join(order, ", "); got != "a follower, a follower, the leader, a worker" {
		o.Errorf("upgraded in the order %s", got)
	}
	if after := o.on(0, "sh", "-c", "docker ps -q --no-trunc | sort"); after != before {
		o.Errorf("m1 had containers\n%s\nand has\n%s", before, after)
	}
	for i := range o.machines {
		if v := o.on(i, "skep", "--version"); v != "skep version "+version {
			o.Errorf("m%d has %s", i+1, v)
		}
	}
	// From here on the operator has the newer one.
	if err := os.Rename(newer, filepath.Join(o.bin, "skep")); err != nil {
		o.Fatal(err)
	}
	if shown := o.does("skep", "up"); !strings.Contains(shown, "Nothing was to be done") {
		o.Error("it did something again")
	}
}

// removesAMachine takes the worker off the list.
func (o *operator) removesAMachine() {
	path := filepath.Join(o.dir, "cluster.yml")
	text, err := os.ReadFile(path)
	if err != nil {
		o.Fatal(err)
	}
	all, _, _ := strings.Cut(string(text), "  - host: ann@m4")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		o.Fatal(err)
	}
	if shown := o.does("skep", "up"); !strings.Contains(shown, "node m4 (10.77.77.14) is in the cluster and not in the list") {
		o.Error("it doesn't say so")
	}
	o.does("skep", "up", "--remove", upHosts[3])
	o.allReady(3)
	o.clean(3)
	o.runs(30 * time.Second)
}

// clean wants nothing of skep on a machine.
func (o *operator) clean(i int) {
	o.Helper()
	left := o.on(i, "sh", "-c", `find / -xdev \( -path /proc -o -path /sys -o -path /var/lib/docker -o -path /var/log \) -prune -o -name '*skep*' -print
ls -d /var/lib/skep /run/skep 2>/dev/null
docker ps -aq; docker network ls -q --filter driver=bridge --format '{{.Name}}' | grep -v '^bridge$'
ip -o link | grep -v -E ': (lo|eth0|docker0)[:@]'; nft list tables 2>/dev/null | grep skep
pgrep -a skep; systemctl list-units --all --plain --no-legend 'skep*'; true`)
	if left != "" {
		o.Errorf("on %s there is still\n%s", o.machines[i].name, left)
	}
}

func (o *operator) leavesNothing() {
	o.does("skep", "down")
	for i := range o.machines {
		o.clean(i)
	}
	if out, err := o.tries("", "docker", "context", "inspect", "skep"); err == nil {
		o.Errorf("there is still a context: %s", out)
	}
	if shown := o.does("skep", "down", "--yes"); !strings.Contains(shown, "Nothing is left on the machines.") {
		o.Error("it did something again")
	}
}

// deploysWithTwoCommands is what the README tells: from three fresh machines to a stack that runs.
func (o *operator) deploysWithTwoCommands() {
	if err := os.Remove(filepath.Join(o.dir, "cluster.yml")); err != nil {
		o.Fatal(err)
	}
	begin := time.Now()
	o.does("skep", "up", upHosts[0], upHosts[1], upHosts[2])
	up := time.Since(begin)
	o.does("skep", "stack", "deploy", "--resolve-image", "never", "-c", "compose.yml", "shop") // The images are still there.
	o.runs(time.Minute)
	o.Logf("three machines were a cluster after %v, and ran a stack after %v", up.Round(100*time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
}

// rebootsAll reboots all at once, and does nothing more.
func (o *operator) rebootsAll() {
	const since = "systemctl show --value -p UserspaceTimestamp"
	var booted []string
	for i := range o.machines[:3] {
		booted = append(booted, o.on(i, "sh", "-c", since))
	}
	begin := time.Now()
	for i := range o.machines[:3] {
		o.on(i, "systemctl", "--no-block", "reboot")
	}
	for i, m := range o.machines[:3] {
		if err := until(o.ctx, time.Minute, m.name+" to boot", func(ctx context.Context) error {
			if now, err := m.run(ctx, "sh", "-c", since); err != nil || strings.TrimSpace(now) == booted[i] {
				return fmt.Errorf("up since %s, %w", now, err)
			}
			return nil
		}); err != nil {
			o.Fatal(err)
		}
	}
	o.runs(3 * time.Minute)
	o.Logf("after a reboot of all three the stack ran again in %v", time.Since(begin).Round(100*time.Millisecond))
	if shown := o.does("skep", "up"); !strings.Contains(shown, "Nothing was to be done") {
		o.Error("it did something")
	}
}
