package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
)

// testMachines has the tests on machines run, which take minutes and an installer.
const testMachines = "SKEP_TEST_MACHINES"

func TestHost_SaysWhyItIsUnfit(t *testing.T) {
	fit := host{root: true, engine: "unix:///var/run/docker.sock", info: system.Info{OSType: "linux", CgroupVersion: "2"}}
	if err := fit.unfit(); err != nil {
		t.Errorf("a host that can have machines: %v", err)
	}
	for says, change := range map[string]func(*host){
		"need root":                  func(h *host) { h.root = false },
		"must their engine be":       func(h *host) { h.engine = "tcp://10.0.0.1:2375" },
		"maps users":                 func(h *host) { h.info.SecurityOptions = []string{"name=seccomp,profile=default", "name=rootless"} },
		"runs windows containers":    func(h *host) { h.info.OSType = "windows" },
		"mount -t cgroup -o none,na": func(h *host) { h.info.CgroupVersion = "1" },
	} {
		h := fit
		change(&h)
		if err := h.unfit(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want something with %q", err, says)
		}
	}
	old := fit
	old.info.CgroupVersion, old.mounts = "1", "cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n"
	if err := old.unfit(); err != nil {
		t.Errorf("a host with cgroups of version 1: %v", err)
	}
}

func TestMachines_RefusesWhatMakesNoSense(t *testing.T) {
	for args, says := range map[string]string{
		"up 0": "want a number from 1 to 32", "up many": "want a number", "up 33": "want a number",
		"up 1 --authorized-keys /nowhere": "no such file",
	} {
		err := runMachines(t.Context(), lab{engine: "unix:///nowhere"}, append(strings.Fields(args), "--cache", t.TempDir()))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("machines %s: %v, want something with %q", args, err, says)
		}
	}
}

func TestRoot_NeedsAnInstaller(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cache := filepath.Join(t.TempDir(), "cache")
	if err := makeRoot(t.Context(), rootFile(cache), testWriter{t}); err == nil || !strings.Contains(err.Error(), "install one of these Debian packages") {
		t.Errorf("without an installer: %v", err)
	}
	if _, err := os.Stat(cache); err == nil {
		t.Error("something was written")
	}
}

// An installer that fails leaves nothing, and says what it said.
func TestRoot_RemovesWhatIsHalfDone(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\nfor made; do :; done\necho half >\"$made\"\necho no mirror answers >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, installers[0]), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := makeRoot(t.Context(), rootFile(cache), testWriter{t}); err == nil || !strings.Contains(err.Error(), "no mirror answers") {
		t.Errorf("%v, want what the installer said", err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// fleet is a cluster on machines, set up as the README says.
type fleet struct {
	*testing.T
	ctx      context.Context
	machines []*machine
	apis     []*client.Client // of the nodes
	engines  []*client.Client // of the machines
	service  string           // of replicas tasks, with a secret
}

// replicas is how many tasks a fleet runs.
const replicas = 8

// timed runs a part of a test, and tells how long it took.
func timed(t *testing.T, name string, part func(*testing.T)) (ok bool) {
	begin := time.Now()
	ok = t.Run(name, part)
	t.Logf("%s took %v", name, time.Since(begin).Round(100*time.Millisecond))
	return ok
}

// TestMachines has the README's unit under a real systemd, on four machines: three managers
// and a worker.
func TestMachines(t *testing.T) {
	if os.Getenv(testMachines) != "1" {
		t.Skip("make test-machines: takes minutes, and Debian's packages the first time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 14*time.Minute)
	defer cancel()
	f := newFleet(ctx, t, 4)
	for _, step := range []struct {
		name string
		test func(*fleet)
	}{
		{"Status", (*fleet).showsItsStatus},
		{"Warnings", (*fleet).showsWarnings},
		{"Crash", (*fleet).keepsTasksOverACrash},
		{"Restart", (*fleet).keepsTasksOverARestart},
		{"FailedStarts", (*fleet).triesUntilItCan},
		{"Reboot", (*fleet).healsAfterAReboot},
		{"Hung", (*fleet).isRestartedWhenItHangs},
		{"PowerCut", (*fleet).spreadsAfterAPowerCut},
	} {
		ok := timed(t, step.name, func(t *testing.T) {
			f.T = t
			step.test(f)
		})
		if f.T = t; !ok {
			f.tell()
		}
	}
}

// newFleet makes the machines and the cluster on them.
func newFleet(ctx context.Context, t *testing.T, n int) *fleet {
	t.Helper()
	begin := time.Now()
	bin := binaries(t)
	took := func(what string) {
		t.Logf("%s after %v", what, time.Since(begin).Round(100*time.Millisecond))
	}
	took("binaries")
	machines := newMachines(ctx, t, n, nil)
	took("machines")
	f := &fleet{T: t, ctx: ctx, machines: machines}
	skep, err := os.ReadFile(filepath.Join(bin, "skep"))
	if err != nil {
		t.Fatal(err)
	}
	unit, err := os.ReadFile("../skep/skep.service")
	if err != nil {
		t.Fatal(err)
	}
	var work errgroup.Group
	for _, m := range machines {
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
			if err := errors.Join(
				m.put(ctx, "/usr/local/bin/skep", 0o755, skep),
				m.put(ctx, "/etc/systemd/system/skep.service", 0o644, unit),
				buildTimecheck(ctx, lab{bin: bin, engine: "unix://" + socket}),
			); err != nil {
				return err
			}
			_, err = m.run(ctx, "sh", "-c", "systemctl daemon-reload && systemctl enable --now skep")
			return err
		})
	}
	if err := work.Wait(); err != nil {
		f.tell()
		t.Fatal(err)
	}
	took("daemons")
	f.on(0, "skep", "swarm", "init", "--advertise-addr", machines[0].addr)
	for i := 1; i < n; i++ {
		role := "manager"
		if i > 2 {
			role = "worker"
		}
		token := f.on(0, "skep", "swarm", "join-token", "-q", role)
		if _, err := machines[i].feed(ctx, strings.NewReader(token), "skep", "swarm", "join", "--token-file", "-", machines[0].addr+":2377"); err != nil {
			f.Fatal(err)
		}
	}
	f.ready(time.Minute)
	took("a cluster")
	if _, err := machines[0].feed(ctx, strings.NewReader("as it should be"), "skep", "secret", "create", "word", "-"); err != nil {
		t.Fatal(err)
	}
	f.service = strings.Fields(f.on(0, "skep", "service", "create", "-q", "--detach", "--name", "web", "--replicas", fmt.Sprint(replicas), "--restart-delay", "0s",
		"--secret", "word", "--no-resolve-image", oldImage))[0]
	f.runs(time.Minute)
	took("a service with a secret")
	return f
}

// newMachines makes machines, which are removed with all that there is of them when the test ends. Who has
// an authorized key is let in as root by ssh.
func newMachines(ctx context.Context, t *testing.T, n int, authorized []byte) []*machine {
	t.Helper()
	cache, err := machinesCache()
	if err != nil {
		t.Fatal(err)
	}
	before := hostState(ctx, t)
	if err := makeRoot(ctx, rootFile(cache), testWriter{t}); err != nil {
		t.Fatal(err)
	}
	machines, err := machinesUp(ctx, defaultEngine, n, cache, authorized, testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := machinesDown(ctx, defaultEngine); err != nil {
			t.Errorf("remove the machines: %v", err)
		}
		if after := hostState(ctx, t); !slices.Equal(before, after) {
			t.Errorf("the host had\n%s\nand now has\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		t.Logf("the machines were removed in %v", time.Since(begin).Round(100*time.Millisecond))
	})
	return machines
}

// hostState is what the host has that machines are made of, without what they don't make.
func hostState(ctx context.Context, t *testing.T) []string {
	t.Helper()
	engine, err := connect(defaultEngine)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	var all []string
	containers, err := engine.ContainerList(ctx, container.ListOptions{All: true})
	for _, c := range containers {
		all = append(all, "container "+c.ID)
	}
	images, imageErr := engine.ImageList(ctx, image.ListOptions{All: true})
	for _, i := range images {
		all = append(all, "image "+i.ID)
	}
	volumes, volumeErr := engine.VolumeList(ctx, volume.ListOptions{})
	for _, v := range volumes.Volumes {
		all = append(all, "volume "+v.Name)
	}
	networks, networkErr := engine.NetworkList(ctx, network.ListOptions{})
	for _, n := range networks {
		all = append(all, "network "+n.Name)
	}
	info, infoErr := engine.Info(ctx)
	mounts, mountErr := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		// Elsewhere other tests may be mounting.
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, info.DockerRootDir+"/") || strings.HasPrefix(at, "/run/docker/") {
			all = append(all, "mount "+at)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/docker/*", "/sys/fs/cgroup/*/docker/*", "/sys/fs/cgroup/system.slice/docker-*", "/sys/class/net/*", "/run/netns/*"} {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				all = append(all, "there is "+path)
			}
		}
	}
	if err := errors.Join(err, imageErr, volumeErr, networkErr, infoErr, mountErr); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// on runs a command on a machine, which must succeed, and returns what it printed.
func (f *fleet) on(i int, command ...string) string {
	f.Helper()
	out, err := f.machines[i].run(f.ctx, command...)
	if err != nil {
		f.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// tell says how the machines' daemons are, for whoever reads the failure.
func (f *fleet) tell() {
	for _, m := range f.machines {
		ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
		status, _ := m.run(ctx, "systemctl", "status", "--no-pager", "skep")
		journal, _ := m.run(ctx, "journalctl", "-u", "skep", "--no-pager", "-n", "60", "-o", "short-precise")
		cancel()
		f.Logf("%s:\n%s\n%s", m.name, status, journal)
	}
	for _, m := range f.machines[:min(3, len(f.machines))] {
		if tasks, err := m.run(f.ctx, "skep", "service", "ps", "--no-trunc", "web"); err == nil {
			status, _ := m.run(f.ctx, "skep", "cluster", "status")
			f.Logf("the tasks:\n%s\n%s", tasks, status)
			return
		}
	}
}

// ready waits until all are in the cluster, and well.
func (f *fleet) ready(limit time.Duration) {
	f.Helper()
	if err := until(f.ctx, limit, "all nodes to be ready", func(ctx context.Context) error {
		var errs []error
		for _, api := range f.apis[:min(3, len(f.apis))] {
			list, err := api.NodeList(ctx, swarm.NodeListOptions{})
			if err == nil {
				err = allThere(list, min(3, len(f.apis)), len(f.apis))
			}
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}); err != nil {
		f.Fatal(err)
	}
}

// tasks are the service's running tasks, by any manager.
func (f *fleet) tasks(ctx context.Context) ([]swarm.Task, error) {
	var errs []error
	for _, api := range f.apis[:min(3, len(f.apis))] {
		list, err := api.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", f.service), filters.Arg("desired-state", "running"))})
		if err == nil {
			return slices.DeleteFunc(list, func(t swarm.Task) bool { return t.Status.State != swarm.TaskStateRunning }), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// runs waits until all tasks run.
func (f *fleet) runs(limit time.Duration) {
	f.Helper()
	if err := until(f.ctx, limit, "the service to be whole", func(ctx context.Context) error {
		tasks, err := f.tasks(ctx)
		if err == nil && len(tasks) != replicas {
			err = fmt.Errorf("%d of %d tasks run", len(tasks), replicas)
		}
		return err
	}); err != nil {
		out, _ := f.machines[0].run(f.ctx, "skep", "service", "ps", "--no-trunc", "web")
		f.Fatalf("%v\n%s", err, out)
	}
}

// settled makes the tasks evenly spread: each part begins with that.
func (f *fleet) settled() {
	f.Helper()
	f.ready(time.Minute)
	f.runs(time.Minute)
	if f.spread() {
		return
	}
	f.on(0, "skep", "service", "rebalance", "web")
	f.runs(time.Minute)
	if !f.spread() {
		f.Fatalf("after a rebalance the tasks are %v", f.perNode())
	}
}

// perNode is how many tasks run on each node.
func (f *fleet) perNode() map[string]int {
	tasks, err := f.tasks(f.ctx)
	if err != nil {
		return nil // No leader yet: nothing is known to run.
	}
	n := map[string]int{}
	for _, t := range tasks {
		n[t.NodeID]++
	}
	return n
}

// spread tells whether all machines run as many tasks.
func (f *fleet) spread() bool {
	n := f.perNode()
	each := slices.Collect(maps.Values(n))
	return len(n) == len(f.machines) && slices.Min(each) == slices.Max(each)
}

// containers are the tasks' containers as the engines have them: by ID, with the time of the
// start, which a task that was replaced or started anew doesn't have.
func (f *fleet) containers() map[string]string {
	f.Helper()
	all := map[string]string{}
	for i, engine := range f.engines {
		list, err := engine.ContainerList(f.ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", nodeLabel))})
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range list {
			is, err := engine.ContainerInspect(f.ctx, c.ID)
			if err != nil {
				f.Fatal(err)
			}
			all[c.ID] = fmt.Sprintf("%s on %s since %s", is.Config.Labels["com.docker.swarm.task.id"], f.machines[i].name, is.State.StartedAt)
		}
	}
	return all
}

// kept compares the containers with those that were there before.
func (f *fleet) kept(before map[string]string, what string) {
	f.Helper()
	now := f.containers()
	kept := 0
	for id, was := range before {
		if now[id] == was {
			kept++
		}
	}
	f.Logf("%s: %d of %d containers kept", what, kept, len(before))
	if len(before) != replicas || !maps.Equal(before, now) {
		f.Errorf("%s: the containers were\n%v\nand are\n%v", what, before, now)
	}
}

// property is what systemd says of the daemon.
func (f *fleet) property(i int, name string) string {
	f.Helper()
	return f.on(i, "systemctl", "show", "--value", "-p", name, "skep")
}

// id is the node's ID of a machine.
func (f *fleet) id(i int) string {
	f.Helper()
	return f.on(i, "skep", "info", "--format", "{{.Swarm.NodeID}}")
}

// leader is the machine of the manager that leads.
func (f *fleet) leader() int {
	f.Helper()
	for i := range f.machines {
		if f.on(i, "skep", "info", "--format", "{{.Swarm.ControlAvailable}}") != "true" {
			continue
		}
		if n, _, err := f.apis[i].NodeInspectWithRaw(f.ctx, f.id(i)); err == nil && n.ManagerStatus != nil && n.ManagerStatus.Leader {
			return i
		}
	}
	f.Fatal("no manager leads")
	return 0
}

func (f *fleet) showsItsStatus() {
	said := regexp.MustCompile(`Status: "(leader|follower), term [1-9][0-9]*, nodes: 4"`)
	if err := until(f.ctx, 40*time.Second, "the status of each", func(ctx context.Context) error {
		for i, m := range f.machines {
			out, err := m.run(ctx, "systemctl", "status", "--no-pager", "skep")
			if err != nil {
				return err
			}
			if i < 3 && !said.MatchString(out) || i == 3 && !strings.Contains(out, `Status: "worker"`) {
				return fmt.Errorf("%s says\n%s", m.name, out)
			}
		}
		return nil
	}); err != nil {
		f.Error(err)
	}
	for i := range f.machines {
		tasks, err := f.engines[i].ContainerList(f.ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", nodeLabel))})
		if err != nil || len(tasks) == 0 {
			f.Fatalf("tasks on %s: %d, %v", f.machines[i].name, len(tasks), err)
		}
		is, err := f.engines[i].ContainerInspect(f.ctx, tasks[0].ID)
		if err != nil {
			f.Fatal(err)
		}
		// The image has nothing but its program, so it can't print the file.
		if got := f.on(i, "cat", fmt.Sprintf("/proc/%d/root/run/secrets/word", is.State.Pid)); got != "as it should be" {
			f.Errorf("the secret on %s is %q", f.machines[i].name, got)
		}
	}
}

// showsWarnings knows one: the daemon's own clock, which it says at its start, since nothing
// else is wrong here.
func (f *fleet) showsWarnings() {
	const said = "--clock-ahead is for experiments only"
	const last = 3
	f.on(last, "sh", "-c", `mkdir -p /run/systemd/system/skep.service.d && printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/skep daemon --clock-ahead 1ms\n' >/run/systemd/system/skep.service.d/warn.conf && systemctl daemon-reload && systemctl restart skep`)
	warnings := f.on(last, "journalctl", "-u", "skep", "-p", "warning", "--no-pager", "-o", "cat")
	everything := f.on(last, "journalctl", "-u", "skep", "--no-pager", "-o", "cat")
	if !strings.Contains(warnings, said) || strings.Contains(warnings, "level=INFO") || !strings.Contains(everything, "level=INFO") {
		f.Errorf("journalctl -p warning says\n%s\nof\n%s", warnings, everything)
	}
	f.on(last, "sh", "-c", "rm -r /run/systemd/system/skep.service.d && systemctl daemon-reload && systemctl restart skep")
}

func (f *fleet) keepsTasksOverACrash() {
	f.settled()
	before := f.containers()
	for i, m := range f.machines {
		was := f.property(i, "MainPID")
		f.on(i, "kill", "-9", was)
		begin := time.Now()
		if err := until(f.ctx, 30*time.Second, "the daemon to be back", func(ctx context.Context) error {
			if now := f.property(i, "MainPID"); now == was || now == "0" || f.property(i, "ActiveState") != "active" {
				return fmt.Errorf("systemd says PID %s", now)
			}
			return nil
		}); err != nil {
			f.Fatal(err)
		}
		f.Logf("the daemon of %s was there again after %v at most", m.name, time.Since(begin).Round(10*time.Millisecond))
		f.ready(time.Minute)
		if !f.stays(before, 3*time.Second) {
			f.kept(before, "after kill -9 on "+m.name)
			return
		}
	}
	f.kept(before, "after kill -9 on each")
}

// stays tells whether the containers are the same ones for that long.
func (f *fleet) stays(before map[string]string, long time.Duration) bool {
	f.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if !maps.Equal(before, f.containers()) {
			return false
		}
	}
	return true
}

func (f *fleet) keepsTasksOverARestart() {
	f.settled()
	before := f.containers()
	for i := range f.machines {
		f.on(i, "systemctl", "restart", "skep")
		f.ready(time.Minute)
	}
	f.stays(before, 3*time.Second)
	f.kept(before, "after systemctl restart on each")
}

// triesUntilItCan has another hold the port for 16 s, and then the binary away for as long as
// systemd takes for more than the five starts that are its own patience.
func (f *fleet) triesUntilItCan() {
	const last, patience = 3, 5
	f.settled()
	f.on(last, "systemctl", "stop", "skep")
	begin := time.Now()
	var holder errgroup.Group
	holder.Go(func() error {
		_, err := f.machines[last].run(f.ctx, "perl", "-MIO::Socket::INET", "-e",
			`my $s = IO::Socket::INET->new(LocalPort => 7946, Listen => 1, ReuseAddr => 1) or die "$@"; sleep 16`)
		return err
	})
	if err := until(f.ctx, 5*time.Second, "the port to be taken", func(ctx context.Context) error {
		_, err := f.machines[last].run(ctx, "grep", "-q", ":1F0A ", "/proc/net/tcp")
		return err
	}); err != nil {
		f.Fatal(err)
	}
	f.on(last, "systemctl", "start", "skep")
	const why = "7946: bind: address already in use"
	if err := until(f.ctx, 10*time.Second, "the status to say why", func(ctx context.Context) error {
		if said := f.property(last, "StatusText"); !strings.Contains(said, why) {
			return errors.New(said)
		}
		return nil
	}); err != nil {
		f.Error(err)
	}
	if err := holder.Wait(); err != nil {
		f.Fatal(err)
	}
	f.Logf("the port was taken for %v", time.Since(begin).Round(100*time.Millisecond))
	f.ready(30 * time.Second)
	if said := f.on(last, "journalctl", "-u", "skep", "-p", "err", "--no-pager", "-o", "cat"); !strings.Contains(said, why) {
		f.Errorf("journalctl -p err doesn't say why:\n%s", said)
	}

	f.on(last, "sh", "-c", "mv /usr/local/bin/skep /usr/local/bin/away && systemctl kill -s KILL skep")
	begin = time.Now()
	if err := until(f.ctx, time.Minute, "starts that fail", func(ctx context.Context) error {
		if n := f.property(last, "NRestarts"); len(n) == 1 && n <= fmt.Sprint(patience+1) {
			return fmt.Errorf("%s starts", n)
		}
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	f.on(last, "mv", "/usr/local/bin/away", "/usr/local/bin/skep")
	f.ready(30 * time.Second)
	f.Logf("after %s failed starts in %v the daemon is there", f.property(last, "NRestarts"), time.Since(begin).Round(100*time.Millisecond))
	f.runs(time.Minute) // Away for longer than a restart may take, it lost its tasks.
}

// healsAfterAReboot compares a reboot in order with a machine that is gone at once.
func (f *fleet) healsAfterAReboot() {
	took := map[string][]time.Duration{}
	for _, round := range []struct {
		name string
		i    int
		down func(i int) error
	}{
		{"power cut", 3, func(i int) error { return f.machines[i].cut(f.ctx) }},
		{"reboot", 3, f.reboot},
		{"power cut", 1, func(i int) error { return f.machines[i].cut(f.ctx) }},
		{"reboot", 1, f.reboot},
		{"reboot of the leader", -1, f.reboot},
	} {
		f.settled()
		if round.i < 0 {
			round.i = f.leader()
		}
		gone, other := f.id(round.i), f.apis[(round.i+1)%3]
		begin := time.Now()
		if err := round.down(round.i); err != nil {
			f.Fatal(err)
		}
		var down, placed time.Duration
		if err := until(f.ctx, time.Minute, "the others to run all tasks", func(ctx context.Context) error {
			n, _, err := other.NodeInspectWithRaw(ctx, gone)
			if err != nil {
				return err
			}
			if down == 0 && n.Status.State == swarm.NodeStateDown {
				down = time.Since(begin)
				if round.name != "power cut" && n.Status.Message != "the machine was stopped in order" {
					f.Errorf("%s is down since %q", f.machines[round.i].name, n.Status.Message)
				}
			}
			tasks, err := other.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", f.service), filters.Arg("desired-state", "running"))})
			if err != nil {
				return err
			}
			elsewhere, running := 0, 0
			for _, t := range tasks {
				if t.NodeID != "" && t.NodeID != gone {
					elsewhere++
					if t.Status.State == swarm.TaskStateRunning {
						running++
					}
				}
			}
			if placed == 0 && elsewhere == replicas {
				placed = time.Since(begin)
			}
			if running != replicas {
				return fmt.Errorf("%d of %d tasks are elsewhere, and %d of them run", elsewhere, replicas, running)
			}
			return nil
		}); err != nil {
			f.Fatalf("after a %s of %s: %v", round.name, f.machines[round.i].name, err)
		}
		f.Logf("%s of %s: down after %v, its tasks placed elsewhere after %v, running after %v", round.name, f.machines[round.i].name,
			down.Round(10*time.Millisecond), placed.Round(10*time.Millisecond), time.Since(begin).Round(10*time.Millisecond))
		took[round.name] = append(took[round.name], placed)
		if round.name == "power cut" {
			if err := f.machines[round.i].restore(f.ctx); err != nil {
				f.Fatal(err)
			}
		}
		f.ready(2 * time.Minute)
	}
	// What follows, starting the tasks, isn't compared: here the machine that boots takes the
	// others' processors, and one without power doesn't.
	if cut, reboot := slices.Max(took["power cut"]), slices.Max(took["reboot"]); reboot > cut {
		f.Errorf("after reboots tasks were placed elsewhere in %v, after power cuts in %v", took["reboot"], took["power cut"])
	}
}

// reboot is what an operator does.
func (f *fleet) reboot(i int) error {
	_, err := f.machines[i].run(f.ctx, "systemctl", "reboot")
	if err != nil && !strings.Contains(err.Error(), "exit status") {
		err = nil // The machine went before it had answered.
	}
	return err
}

// isRestartedWhenItHangs stops the daemon for longer than WatchdogSec.
func (f *fleet) isRestartedWhenItHangs() {
	const last = 3
	f.settled()
	was := f.property(last, "MainPID")
	f.on(last, "kill", "-STOP", was)
	begin := time.Now()
	if err := until(f.ctx, 2*time.Minute, "systemd to start it anew", func(ctx context.Context) error {
		time.Sleep(500 * time.Millisecond)
		if now := f.property(last, "MainPID"); now == was || now == "0" {
			return fmt.Errorf("systemd says PID %s", now)
		}
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	f.Logf("a daemon that stood still was started anew after %v", time.Since(begin).Round(100*time.Millisecond))
	f.ready(time.Minute)
	f.runs(time.Minute)
	if said := f.on(last, "journalctl", "-u", "skep", "--no-pager", "-o", "cat"); !strings.Contains(said, "Watchdog timeout") {
		f.Errorf("it wasn't the watchdog:\n%s", said)
	}
}

// spreadsAfterAPowerCut takes the power off all at once; two come back first.
func (f *fleet) spreadsAfterAPowerCut() {
	f.settled()
	first := f.id(0)
	each := func(machines []*machine, do func(*machine) error) {
		f.Helper()
		var work errgroup.Group
		for _, m := range machines {
			work.Go(func() error { return do(m) })
		}
		if err := work.Wait(); err != nil {
			f.Fatal(err)
		}
	}
	each(f.machines, func(m *machine) error { return m.cut(f.ctx) })
	restore := func(m *machine) error { return m.restore(f.ctx) }
	begin := time.Now()
	each(f.machines[:2], restore)
	if err := until(f.ctx, 3*time.Minute, "the first two to run all tasks", func(ctx context.Context) error {
		// What the others ran counts as running until they are found down.
		if n := f.perNode(); len(n) != 2 || n[first] != replicas/2 {
			return fmt.Errorf("the nodes run %v", n)
		}
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	f.Logf("two of four machines ran all tasks %v after the power was back", time.Since(begin).Round(100*time.Millisecond))
	begin = time.Now()
	each(f.machines[2:], restore)
	f.ready(2 * time.Minute)
	f.Logf("all nodes ready %v after the power was back on the others", time.Since(begin).Round(100*time.Millisecond))
	if err := until(f.ctx, 3*time.Minute, "the tasks to be spread again", func(ctx context.Context) error {
		if !f.spread() {
			return fmt.Errorf("the nodes run %v", f.perNode())
		}
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	f.Logf("spread again %v after the power was back on the others", time.Since(begin).Round(100*time.Millisecond))
	f.ready(time.Minute)
}
