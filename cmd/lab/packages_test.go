package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/errgroup"
)

// TestMachines_Packages has the life of a package on two machines: installed, set going, upgraded, removed,
// purged, and installed again.
func TestMachines_Packages(t *testing.T) {
	if os.Getenv(testMachines) != "1" {
		t.Skip("make test-machines: takes minutes, and Debian's packages the first time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	bin := binaries(t, "skep/cmd/lab/guest")
	old, next := packageOf(t, "0.0.1"), packageOf(t, "0.0.2")
	f := &fleet{T: t, ctx: ctx, machines: newMachines(ctx, t, 2, nil)}
	var work errgroup.Group
	for _, m := range f.machines {
		api, err := m.serves("/run/skep/skep.sock")
		if err != nil {
			t.Fatal(err)
		}
		engine, err := m.serves("/run/docker.sock")
		if err != nil {
			t.Fatal(err)
		}
		f.apis, f.engines = append(f.apis, api), append(f.engines, engine)
		work.Go(func() error {
			socket, err := m.socket(ctx, "/run/docker.sock")
			if err != nil {
				return err
			}
			return errors.Join(
				m.put(ctx, "/old.deb", 0o644, old), m.put(ctx, "/next.deb", 0o644, next),
				buildImage(ctx, "unix://"+socket, guestImage(1), "FROM scratch\nCOPY guest /guest\nENTRYPOINT [\"/guest\"]\n", filepath.Join(bin, "guest")),
			)
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		test func(*fleet)
	}{
		{"Install", (*fleet).installsAndStartsNothing},
		{"Run", (*fleet).runsUnderThePackagesUnit},
		{"Group", (*fleet).letsTheGroupIn},
		{"Plugin", (*fleet).isOneOfDockersCommands},
		{"Upgrade", (*fleet).upgradesAndRestartsNothing},
		{"Remove", (*fleet).removesAndKeepsTheNode},
	} {
		ok := timed(t, step.name, func(t *testing.T) {
			f.T = t
			step.test(f)
		})
		if f.T = t; !ok {
			f.tell()
			t.FailNow() // Each goes on from where the one before it ended.
		}
	}
}

// packageOf is the package of the working tree as some version, for this host's processor.
func packageOf(t *testing.T, version string) []byte {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "-C", "../pack", ".", "-uncommitted", "-arch", runtime.GOARCH, "-version", version, "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("make a package: %v\n%s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("skep_%s_%s.deb", version, runtime.GOARCH)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// says runs a command, wants some words in what it prints, and returns that.
func (f *fleet) says(i int, words string, command ...string) string {
	f.Helper()
	out := f.on(i, command...)
	if !strings.Contains(out, words) {
		f.Errorf("%s on %s says nothing of %q:\n%s", strings.Join(command, " "), f.machines[i].name, words, out)
	}
	return out
}

func (f *fleet) installsAndStartsNothing() {
	for i := range f.machines {
		// As udev has it on machines that are none of a container.
		f.on(i, "sh", "-c", "[ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; }")
		f.says(i, "systemctl enable --now skep", "dpkg", "--install", "/old.deb")
		if got := f.on(i, "sh", "-c", "systemctl is-active skep; systemctl is-enabled skep; systemctl is-system-running; ls -d /var/lib/skep /run/skep 2>/dev/null; getent group skep | cut -d: -f1,4"); got != "inactive\ndisabled\nrunning\nskep:" {
			f.Errorf("after the package was installed on %s:\n%s", f.machines[i].name, got)
		}
		f.says(i, "skep version 0.0.1", "skep", "--version")
		f.on(i, "sed", "-i", `s/^SKEP_OPTS=.*/SKEP_OPTS="--log-format json"/`, "/etc/default/skep")
		f.on(i, "systemctl", "enable", "--now", "skep")
	}
	f.on(0, "skep", "swarm", "init", "--advertise-addr", f.machines[0].addr)
	token := f.on(0, "skep", "swarm", "join-token", "-q", "manager")
	if _, err := f.machines[1].feed(f.ctx, strings.NewReader(token), "skep", "swarm", "join", "--token-file", "-", f.machines[0].addr+":2377"); err != nil {
		f.Fatal(err)
	}
	f.ready(time.Minute)
}

// runsUnderThePackagesUnit has a service with a secret that only a group may read, on a network that
// is encrypted, by a process of ours where the kernel has no WireGuard.
func (f *fleet) runsUnderThePackagesUnit() {
	if _, err := f.machines[0].feed(f.ctx, strings.NewReader("as it should be"), "skep", "secret", "create", "word", "-"); err != nil {
		f.Fatal(err)
	}
	f.on(0, "skep", "network", "create", "--driver", "overlay", "--opt", "encrypted", "net")
	f.service = strings.Fields(f.on(0, "skep", "service", "create", "-q", "--detach", "--name", "web", "--replicas", fmt.Sprint(replicas), "--network", "net", "--publish", "8080:80",
		"--secret", "source=word,gid=4321,mode=0440", "--no-resolve-image", guestImage(1), "serve"))[0]
	f.runs(time.Minute)
	for i := range f.machines {
		f.readsItsSecret(i)
		f.reachesAll(i)
	}
}

// some is a container of a task on a machine.
func (f *fleet) some(i int) container.InspectResponse {
	f.Helper()
	for id, says := range f.containers() {
		if strings.Contains(says, " on "+f.machines[i].name+" ") {
			is, err := f.engines[i].ContainerInspect(f.ctx, id)
			if err != nil {
				f.Fatal(err)
			}
			return is
		}
	}
	f.Fatalf("no task runs on %s", f.machines[i].name)
	return container.InspectResponse{}
}

func (f *fleet) readsItsSecret(i int) {
	f.Helper()
	file := fmt.Sprintf("/proc/%d/root/run/secrets/word", f.some(i).State.Pid)
	if got := f.on(i, "sh", "-c", `cat "$1"; stat -c " %u %g %a" "$1"`, "read", file); got != "as it should be 0 4321 440" {
		f.Errorf("the secret on %s is %q", f.machines[i].name, got)
	}
}

// reachesAll calls the service by its name from a task, and by its port from the other machine, until tasks of
// both machines have answered.
func (f *fleet) reachesAll(i int) {
	f.Helper()
	here := f.some(i).ID
	for what, call := range map[string]func(context.Context) (string, error){
		"the service's name": func(ctx context.Context) (string, error) {
			return f.machines[i].run(ctx, "docker", "exec", here, "/guest", "get", "http://web/")
		},
		"the published port": func(ctx context.Context) (string, error) {
			return f.machines[i].run(ctx, "curl", "--no-progress-meter", "--max-time", "3", "http://"+f.machines[1-i].addr+":8080/")
		},
	} {
		tasks := map[string]bool{}
		if err := until(f.ctx, 30*time.Second, "all tasks to answer by "+what, func(ctx context.Context) error {
			out, err := call(ctx)
			if err != nil {
				return err
			}
			var r reply
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if tasks[r.Task] = true; len(tasks) < replicas {
				return fmt.Errorf("%d tasks answered", len(tasks))
			}
			return nil
		}); err != nil {
			f.Error(err)
		}
	}
}

func (f *fleet) letsTheGroupIn() {
	if got := f.on(0, "stat", "-c", "%U %G %a", "/run/skep/skep.sock"); got != "root skep 660" {
		f.Errorf("the socket is of %s", got)
	}
	if got := f.on(0, "stat", "-c", "%U %G %a", "/var/lib/skep", "/run/skep/tasks"); got != "root root 700\nroot root 700" {
		f.Errorf("the node's directories are of %s", got)
	}
	f.on(0, "sh", "-c", "useradd ann && useradd --groups skep bob")
	f.says(0, "web", "su", "bob", "-c", "skep service ls")
	if out, err := f.machines[0].run(f.ctx, "su", "ann", "-c", "skep service ls"); err == nil || !strings.Contains(out, "permission denied") {
		f.Errorf("who isn't in the group is told %v, %s", err, out)
	}
}

func (f *fleet) isOneOfDockersCommands() {
	f.says(0, "skep*", "docker", "help")
	f.says(0, "m1", "docker", "skep", "node", "ls")
	// Two managers are a problem, which is another status than that of a command that docker hasn't got.
	f.says(0, "two managers tolerate no failure", "sh", "-c", "docker skep cluster status; test $? = 2")
	f.on(0, "docker", "context", "create", "skep", "--docker", "host=unix:///run/skep/skep.sock")
	f.says(0, "web", "docker", "--context", "skep", "service", "ls")
	f.says(0, "complete -o default -F __start_skep skep", "bash", "-c", ". /usr/share/bash-completion/completions/skep; complete -p skep")
}

func (f *fleet) upgradesAndRestartsNothing() {
	before := f.containers()
	for i := range f.machines {
		was := f.property(i, "MainPID")
		f.says(i, "wasn't restarted", "dpkg", "--install", "/next.deb")
		if now := f.property(i, "MainPID"); now != was || f.property(i, "NeedDaemonReload") != "no" {
			f.Errorf("the daemon of %s was process %s and is %s after the package was upgraded", f.machines[i].name, was, now)
		}
		f.says(i, "skep version 0.0.2", "skep", "--version")
	}
	if !f.stays(before, 3*time.Second) {
		f.kept(before, "after the packages were upgraded")
	}
	if out, err := f.machines[0].run(f.ctx, "skep", "upgrade", "status"); err == nil || !strings.Contains(out, "To be upgraded to skep 0.0.2") {
		f.Errorf("skep upgrade status: %v\n%s", err, out)
	}
	for i := range f.machines {
		f.on(i, "systemctl", "restart", "skep")
		f.ready(time.Minute)
		f.says(i, "--log-format\x00json", "sh", "-c", "cat /proc/$(systemctl show --value -p MainPID skep)/cmdline")
	}
	f.kept(before, "after the daemons were restarted with the upgraded packages")
	f.says(0, "All nodes run skep 0.0.2", "skep", "upgrade", "status")
	for i := range f.machines {
		f.readsItsSecret(i)
	}
}

// removesAndKeepsTheNode takes the package off one machine, whose tasks go on, and puts it back.
func (f *fleet) removesAndKeepsTheNode() {
	const i = 1
	id, begin := f.id(i), f.containers()
	f.says(i, "run on", "dpkg", "--remove", "skep")
	gone := `pgrep -f '^/usr/bin/skep daemon'; ls /usr/bin/skep /usr/lib/systemd/system/skep.service /etc/systemd/system/multi-user.target.wants/skep.service 2>/dev/null; true`
	if got := f.on(i, "sh", "-c", gone); got != "" {
		f.Errorf("after the package was removed there are\n%s", got)
	}
	f.says(i, "SKEP_OPTS=\"--log-format json", "cat", "/etc/default/skep")
	f.says(i, "/var/lib/skep is kept", "dpkg", "--purge", "skep")
	f.says(i, "node.sealed", "ls", "/var/lib/skep")
	if got := f.on(i, "sh", "-c", "ls /etc/default/skep /etc/needrestart/conf.d/skep.conf 2>/dev/null; true"); got != "" {
		f.Errorf("after the package was purged there are\n%s", got)
	}
	now := f.containers()
	maps.DeleteFunc(now, func(id, was string) bool { return begin[id] == was })
	if len(now) > 0 || len(f.containers()) != len(begin) {
		f.Errorf("removing the package changed the containers: %s", slices.Collect(maps.Values(now)))
	}
	f.says(i, "nothing was started", "dpkg", "--install", "/next.deb")
	f.on(i, "sed", "-i", `s/^SKEP_OPTS=.*/SKEP_OPTS="--log-format json"/`, "/etc/default/skep")
	f.on(i, "systemctl", "enable", "--now", "skep")
	f.ready(time.Minute)
	f.runs(time.Minute)
	if got := f.id(i); got != id {
		f.Errorf("the node was %s and is %s after it was installed again", id, got)
	}
}
