package agenttest_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/docker"
	"skep/cluster"
)

// reaches waits until a task is reported in a state.
func (m *manager) reaches(taskID string, state cluster.State) cluster.TaskStatus {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		got := m.reported(taskID)
		if got.State == state {
			return got
		}
		if got.State > state || time.Now().After(deadline) {
			m.t.Fatalf("task %s is %v %q %q, want %v", taskID, got.State, got.Message, got.Err, state)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// assign sends tasks, with one revision for all of them.
func (m *manager) assign(full bool, from, to uint64, r *cluster.Revision, tasks ...*cluster.Task) {
	m.t.Helper()
	for _, task := range tasks {
		task.Version = to
	}
	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{Full: full, From: from, To: to, Tasks: tasks, Revisions: []*cluster.Revision{r}}})
}

// keepAlive sends heartbeats until the test ends.
func (m *manager) keepAlive(t *testing.T) {
	done := make(chan struct{})
	var beats sync.WaitGroup
	t.Cleanup(func() { close(done); beats.Wait() })
	beats.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(heartbeat / 3):
				cluster.WriteFrame(m.conn, &cluster.FromManager{})
			}
		}
	})
}

// hello waits until the probe of a task listens to signals.
func hello(t *testing.T, driver agent.Driver, taskID string) {
	t.Helper()
	said := false
	eventually(t, "the first line", func() bool {
		driver.Logs(t.Context(), taskID, cluster.LogOptions{Stdout: true, Tail: -1}, func(lines []cluster.LogLine) error {
			said = said || len(lines) > 0
			return nil
		})
		return said
	})
}

func TestDocker_ATasksLife(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	killed, removed, stopped := newTask(nodeID), newTask(nodeID), newTask(nodeID)
	m.assign(true, 0, 10, e.revision(behaviour{every: 50 * time.Millisecond}), killed, removed, stopped)
	running := m.reaches(killed.ID, cluster.StateRunning)
	m.reaches(removed.ID, cluster.StateRunning)
	m.reaches(stopped.ID, cluster.StateRunning)
	hello(t, b.runs, stopped.ID)

	found, err := e.client.ContainerInspect(t.Context(), running.ContainerID)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/web.1." + killed.ID; found.Name != want {
		t.Errorf("name = %q, want %q", found.Name, want)
	}
	for label, want := range map[string]string{
		"com.docker.swarm.task": "", "com.docker.swarm.task.id": killed.ID, "com.docker.swarm.task.name": "web.1." + killed.ID,
		"com.docker.swarm.node.id": nodeID, "com.docker.swarm.service.id": "s1", "com.docker.swarm.service.name": "web",
	} {
		if got, ok := found.Config.Labels[label]; !ok || got != want {
			t.Errorf("label %s = %q, want %q", label, got, want)
		}
	}
	if int(running.PID) != found.State.Pid {
		t.Errorf("pid = %d, want %d", running.PID, found.State.Pid)
	}

	hello(t, b.runs, killed.ID)
	e.kill(t, killed.ID, "KILL")
	if got := m.reaches(killed.ID, cluster.StateFailed); got.Err != "task: non-zero exit (137)" || got.ExitCode != 137 {
		t.Errorf("killed: %+v", got)
	}
	e.rm(t, removed.ID)
	if got := m.reaches(removed.ID, cluster.StateFailed); got.Err != "task: non-zero exit (137)" || got.ExitCode != 137 {
		t.Errorf("removed: %+v", got)
	}
	stop := *stopped
	stop.Desired = cluster.StateShutdown
	m.assign(false, 10, 11, e.revision(behaviour{}), &stop)
	if got := m.reaches(stopped.ID, cluster.StateShutdown); got.Err != "" || got.ExitCode != 0 {
		t.Errorf("stopped: %+v", got)
	}

	// The log of a dead task is still there.
	m.send(&cluster.FromManager{Logs: &cluster.LogRequest{ID: 1, TaskID: killed.ID, Query: cluster.LogOptions{Stdout: true, Tail: -1}}})
	eventually(t, "the log", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.logs) > 0 && m.logs[len(m.logs)-1].Done
	})
	if lines := m.logs[0].Lines; len(lines) == 0 || string(lines[0].Data) != "hello\n" {
		t.Errorf("log = %+v", m.logs)
	}

	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{From: 11, To: 12, Removed: []string{killed.ID, removed.ID, stopped.ID}}})
	eventually(t, "the containers to go", func() bool { return len(e.containers(t, nodeID)) == 0 })
}

func TestDocker_RejectsAndFails(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	index := uint64(0)
	for name, test := range map[string]struct {
		change func(*cluster.Revision)
		state  cluster.State
		want   string
	}{
		"missing image": {func(r *cluster.Revision) { r.Spec.ContainerSpec.Image = "localhost:1/skep-test-missing:1" }, cluster.StateRejected, "No such image: localhost:1/skep-test-missing:1 (pull: "},
		"missing bind source": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/skep-no-such-path", Target: "/x"}}
		}, cluster.StateRejected, "bind source path does not exist"},
		"credential spec": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Privileges = &swarm.Privileges{CredentialSpec: &swarm.CredentialSpec{File: "x"}}
		}, cluster.StateRejected, "credential specs are not supported"},
		"missing program": {func(r *cluster.Revision) { r.Spec.ContainerSpec.Command = []string{"/nothing"} }, cluster.StateFailed, "starting container failed: "},
		"bad exit":        {func(r *cluster.Revision) { r.Spec.ContainerSpec.Args = []string{"-exit-after", "1ms", "-code", "7"} }, cluster.StateFailed, "task: non-zero exit (7)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.revision(behaviour{})
			index++
			r.Number = index
			test.change(r)
			task := newTask(nodeID)
			task.Revision = index
			m.assign(index == 1, index-1, index, r, task)
			if got := m.reaches(task.ID, test.state); !strings.Contains(got.Err, test.want) {
				t.Errorf("err = %q, want %q", got.Err, test.want)
			}
		})
	}
}

func TestDocker_UnhealthyIsStopped(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	task := newTask(nodeID)
	m.assign(true, 0, 10, e.revision(behaviour{healthyAfter: 700 * time.Millisecond}), task)
	m.reaches(task.ID, cluster.StateStarting)
	m.reaches(task.ID, cluster.StateRunning)
	e.kill(t, task.ID, "USR1")
	if got := m.reaches(task.ID, cluster.StateFailed); !strings.HasSuffix(got.Err, "dockerexec: unhealthy container") {
		t.Errorf("%+v", got)
	}
	if list := e.containers(t, nodeID); len(list) != 1 || list[0].State != container.StateExited {
		t.Errorf("containers = %+v", list)
	}
}

func TestDocker_AgentsShareAnEngine(t *testing.T) {
	e := needEngine(t)
	one, two := e.newNode(t), e.newNode(t)
	driver := e.newDriver(t, docker.Config{})

	// Somebody else's container that looks like ours but for the mark.
	other, err := e.client.ContainerCreate(t.Context(), &container.Config{Image: e.image, Labels: map[string]string{
		docker.LabelTask: "", docker.LabelTaskID: "foreign" + one, docker.LabelNodeID: one,
	}}, nil, &network.NetworkingConfig{}, nil, "skep-test-"+one)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.client.ContainerRemove(context.Background(), other.ID, container.RemoveOptions{Force: true})
	})

	// Containers of both nodes, which neither agent knows of.
	strangers := map[string]string{}
	for _, nodeID := range []string{one, two} {
		task := newTask(nodeID)
		prepare(t, driver, task, e.revision(behaviour{}))
		if _, err := driver.Start(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		}
		strangers[nodeID] = task.ID
	}
	b := newRealBench(t, one, e.newDriver(t, docker.Config{}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	task := newTask(one)
	m.assign(true, 0, 10, e.revision(behaviour{}), task)
	m.reaches(task.ID, cluster.StateRunning)
	eventually(t, "the stranger to go", func() bool { return len(e.containers(t, one)) == 1 })
	if list := e.containers(t, two); len(list) != 1 || list[0].State != container.StateRunning {
		t.Errorf("the other node's containers = %+v", list)
	}
	if _, err := e.client.ContainerInspect(t.Context(), other.ID); err != nil {
		t.Errorf("the foreign container: %v", err)
	}
}

func TestDocker_RestartTakesContainersOver(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{}))
	b.start()
	m := b.accept()
	m.keepAlive(t)
	stays, dies, vanishes := newTask(nodeID), newTask(nodeID), newTask(nodeID)
	m.assign(true, 0, 10, e.revision(behaviour{}), stays, dies, vanishes)
	before := m.reaches(stays.ID, cluster.StateRunning)
	m.reaches(dies.ID, cluster.StateRunning)
	m.reaches(vanishes.ID, cluster.StateRunning)
	hello(t, b.runs, dies.ID)
	b.stop()
	e.kill(t, dies.ID, "INT")
	e.rm(t, vanishes.ID)

	b.runs = e.newDriver(t, docker.Config{})
	b.start()
	defer b.stop()
	m = b.accept()
	m.keepAlive(t)
	if after := m.reaches(stays.ID, cluster.StateRunning); after.ContainerID != before.ContainerID || after.PID != before.PID || after.Since != before.Since {
		t.Errorf("before %+v, after %+v", before, after)
	}
	m.reaches(dies.ID, cluster.StateComplete)
	if got := m.reaches(vanishes.ID, cluster.StateFailed); got.Err == "" {
		t.Errorf("vanished: %+v", got)
	}
}

// proxy stands between a driver and the engine, and can be broken.
type proxy struct {
	path string

	mu       sync.Mutex // guards the fields below
	listener net.Listener
	conns    map[net.Conn]bool
}

func newProxy(t *testing.T) *proxy {
	p := &proxy{path: filepath.Join(t.TempDir(), "engine.sock"), conns: make(map[net.Conn]bool)}
	p.mend(t)
	t.Cleanup(p.cut)
	return p
}

// mend lets connections through.
func (p *proxy) mend(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = listener
	p.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			engine, err := net.Dial("unix", "/var/run/docker.sock")
			if err != nil {
				conn.Close()
				continue
			}
			p.mu.Lock()
			p.conns[conn], p.conns[engine] = true, true
			p.mu.Unlock()
			for _, pair := range [][2]net.Conn{{conn, engine}, {engine, conn}} {
				go func() {
					io.Copy(pair[0], pair[1])
					conn.Close()
					engine.Close()
				}()
			}
		}
	}()
}

// cut breaks all connections and refuses new ones.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	for conn := range p.conns {
		conn.Close()
	}
	clear(p.conns)
}

func TestDocker_EngineAway(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	p := newProxy(t)
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{Host: "unix://" + p.path}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	stays, dies, comes := newTask(nodeID), newTask(nodeID), newTask(nodeID)
	m.assign(true, 0, 10, e.revision(behaviour{}), stays, dies)
	before := m.reaches(stays.ID, cluster.StateRunning)
	m.reaches(dies.ID, cluster.StateRunning)

	p.cut()
	e.kill(t, dies.ID, "KILL")
	m.assign(false, 10, 11, e.revision(behaviour{}), comes)
	eventually(t, "the reason", func() bool { return m.reported(comes.ID).Err != "" })
	if got := m.reported(comes.ID); got.State != cluster.StatePreparing || !strings.HasPrefix(got.Err, "the engine does not answer: ") {
		t.Errorf("while away: %+v", got)
	}
	if got := m.reported(dies.ID); got.State != cluster.StateRunning {
		t.Errorf("an exit that nobody could see: %+v", got)
	}

	p.mend(t)
	if got := m.reaches(dies.ID, cluster.StateFailed); got.ExitCode != 137 {
		t.Errorf("back again: %+v", got)
	}
	m.reaches(comes.ID, cluster.StateRunning)
	if after := m.reported(stays.ID); after.ContainerID != before.ContainerID || after.State != cluster.StateRunning {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestDocker_EngineAwayFromTheStart(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	p := newProxy(t)
	p.cut()
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{Host: "unix://" + p.path}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	if m.hello.Description.Platform.OS != "linux" {
		t.Errorf("hello = %+v", m.hello)
	}
	task := newTask(nodeID)
	m.assign(true, 0, 10, e.revision(behaviour{}), task)
	eventually(t, "the reason", func() bool { return m.reported(task.ID).Err != "" })
	p.mend(t)
	m.reaches(task.ID, cluster.StateRunning)
}

func TestDocker_PassesTheSpecOn(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	driver := e.newDriver(t, docker.Config{})
	yes := true
	for name, tty := range map[string]bool{"pipe": false, "terminal": true} {
		t.Run(name, func(t *testing.T) {
			r := e.revision(behaviour{})
			r.ServiceLabels = map[string]string{"tier": "front"}
			c := r.Spec.ContainerSpec
			c.Command, c.Args = []string{"/probe", "-env"}, []string{"one", "two"}
			c.Env = []string{"A=1", "SLOT={{.Task.Slot}}", "NODE={{.Node.Hostname}}", "TIER={{.Service.Labels.tier}}"}
			c.Hostname = "{{.Service.Name}}-{{.Task.Slot}}"
			c.TTY, c.ReadOnly, c.Init = tty, true, &yes
			c.Dir, c.User, c.Groups = "/", "1000", []string{"2000"}
			c.Hosts = []string{"10.1.2.3 db database"}
			c.StopSignal = "SIGINT"
			c.CapabilityDrop, c.CapabilityAdd = []string{"ALL"}, []string{"CAP_CHOWN"}
			c.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"}
			c.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}
			c.OomScoreAdj = 100
			c.DNSConfig = &swarm.DNSConfig{Nameservers: []string{"10.9.9.9"}, Search: []string{"example.org"}, Options: []string{"ndots:2"}}
			c.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/tmp", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20}}, {Type: mount.TypeBind, Source: "/etc/hostname", Target: "/{{.Task.Slot}}", ReadOnly: true}}
			c.Privileges = &swarm.Privileges{NoNewPrivileges: true}
			r.Spec.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 5e8, MemoryBytes: 64 << 20, Pids: 50}}
			r.Spec.LogDriver = &swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m", "labels": "com.docker.swarm.service.name"}}
			r.Endpoint = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishMode: swarm.PortConfigPublishModeHost}}}
			task := newTask(nodeID)
			task.Slot = 4
			made := prepare(t, driver, task, r)
			if _, err := driver.Start(t.Context(), task.ID); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the end", func() bool {
				c, err := driver.Inspect(t.Context(), task.ID)
				if err != nil {
					t.Fatal(err)
				}
				return c.Phase == 2
			})
			text := ""
			if err := driver.Logs(t.Context(), task.ID, cluster.LogOptions{Stdout: true, Stderr: true, Tail: -1}, func(lines []cluster.LogLine) error {
				for _, line := range lines {
					text += strings.ReplaceAll(string(line.Data), "\r", "")
					if line.Attrs["com.docker.swarm.service.name"] != "web" {
						t.Errorf("line without what the log driver was told to add: %+v", line)
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"hostname web-4\n", "env A=1\n", "env SLOT=4\n", "env NODE=host1\n", "env TIER=front\n", "arg one\n", "arg two\n"} {
				if !strings.Contains(text, want) {
					t.Errorf("the container didn't say %q: %q", want, text)
				}
			}
			found, err := e.client.ContainerInspect(t.Context(), made.ID)
			if err != nil {
				t.Fatal(err)
			}
			h := found.HostConfig
			if !h.ReadonlyRootfs || h.Init == nil || !*h.Init || h.OomScoreAdj != 100 || h.NanoCPUs != 5e8 || h.Memory != 64<<20 ||
				h.PidsLimit == nil || *h.PidsLimit != 50 || len(h.Ulimits) != 1 || len(h.ExtraHosts) != 2 || len(h.DNS) != 1 || len(h.DNSSearch) != 1 ||
				len(h.DNSOptions) != 1 || len(h.SecurityOpt) != 1 || len(h.CapDrop) != 1 || len(h.CapAdd) != 1 || len(h.Sysctls) != 1 ||
				len(h.GroupAdd) != 1 || h.LogConfig.Config["max-size"] != "1m" || len(h.PortBindings) != 1 || len(h.Mounts) != 2 || h.Mounts[1].Target != "/4" ||
				found.Config.StopSignal != "SIGINT" || found.Config.User != "1000" {
				t.Errorf("host config = %+v, config = %+v", h, found.Config)
			}
		})
	}
}
