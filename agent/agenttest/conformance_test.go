package agenttest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/docker"
	"skep/agent/simulate"
	"skep/cluster"
)

// behaviour is what a test wants of a container, of whatever driver.
type behaviour struct {
	exitAfter    time.Duration
	code         int
	disobeys     bool
	every        time.Duration
	healthyAfter time.Duration
}

// rig is a driver under test.
type rig struct {
	driver agent.Driver
	// again returns a driver that knows nothing but what the engine knows.
	again func(t *testing.T) agent.Driver
	node  func(t *testing.T) string
	// revision makes a revision that behaves; missing one whose image isn't there.
	revision func(behaviour) *cluster.Revision
	missing  func() *cluster.Revision
	kill     func(t *testing.T, taskID string)
	vanish   func(t *testing.T, taskID string)
	// sees lists the files of secrets and configs that a running task sees, as the
	// probe's -cat shows them.
	sees func(t *testing.T, taskID string) []string
}

func TestConformance_Simulate(t *testing.T) {
	driver := simulate.New(simulate.Config{})
	nodes := 0
	conform(t, rig{
		driver: driver,
		again:  func(*testing.T) agent.Driver { return driver },
		node:   func(*testing.T) string { nodes++; return "node" + strconv.Itoa(nodes) },
		revision: func(b behaviour) *cluster.Revision {
			labels := map[string]string{}
			if b.exitAfter > 0 {
				labels["skep.simulate.run-for"] = b.exitAfter.String()
				labels["skep.simulate.exit-code"] = strconv.Itoa(b.code)
			}
			if b.disobeys {
				labels["skep.simulate.stop-delay"] = "1h"
			}
			if b.every > 0 {
				labels["skep.simulate.log-every"] = b.every.String()
			}
			if b.healthyAfter > 0 {
				labels["skep.simulate.health-delay"] = b.healthyAfter.String()
			}
			return plain("anything:1", b, labels, nil)
		},
		missing: func() *cluster.Revision {
			return plain("anything:1", behaviour{}, map[string]string{"skep.simulate.reject-rate": "1"}, nil)
		},
		kill:   func(_ *testing.T, taskID string) { driver.Kill(taskID, 137) },
		vanish: func(_ *testing.T, taskID string) { driver.Vanish(taskID) },
		sees: func(_ *testing.T, taskID string) (lines []string) {
			for _, f := range driver.Files(taskID) {
				lines = append(lines, fmt.Sprintf("file %s %d:%d %o fs=1021994 read-only %q", f.Target, f.UID, f.GID, f.Mode, f.Data))
			}
			return lines
		},
	})
}

func TestConformance_Docker(t *testing.T) {
	e := needEngine(t)
	cfg := docker.Config{RuntimeDir: e.runtimeDir(t)}
	driver := e.newDriver(t, cfg)
	conform(t, rig{
		driver:   driver,
		again:    func(t *testing.T) agent.Driver { return e.newDriver(t, cfg) },
		sees:     func(t *testing.T, taskID string) []string { return shown(t, driver, taskID) },
		node:     e.newNode,
		revision: e.revision,
		missing:  func() *cluster.Revision { return plain("localhost:1/skep-test-missing:1", behaviour{}, nil, nil) },
		kill:     func(t *testing.T, taskID string) { e.kill(t, taskID, "KILL") },
		vanish:   e.rm,
	})
}

// revision makes a revision of the probe that behaves.
func (e *engine) revision(b behaviour) *cluster.Revision {
	args := []string{}
	if b.exitAfter > 0 {
		args = append(args, "-exit-after", b.exitAfter.String(), "-code", strconv.Itoa(b.code))
	}
	if b.disobeys {
		args = append(args, "-ignore-term")
	}
	if b.every > 0 {
		args = append(args, "-every", b.every.String())
	}
	if b.healthyAfter > 0 {
		args = append(args, "-healthy-after", b.healthyAfter.String())
	}
	return plain(e.image, b, nil, args)
}

// plain makes a revision.
func plain(image string, b behaviour, labels map[string]string, args []string) *cluster.Revision {
	spec := &swarm.ContainerSpec{Image: image, Args: args}
	if b.healthyAfter > 0 {
		// The probe says no until healthyAfter: what it says before its first yes must not
		// count, or an engine quick enough to ask twice in that time ends the task.
		spec.Healthcheck = &container.HealthConfig{
			Test: []string{"CMD", "/probe", "-check"}, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second, Retries: 2,
			StartPeriod: time.Minute,
		}
	}
	return &cluster.Revision{ServiceID: "s1", Number: 1, ServiceName: "web", ServiceLabels: labels, Spec: swarm.TaskSpec{ContainerSpec: spec}}
}

// watched collects what Watch tells.
type watched struct {
	mu   sync.Mutex
	news map[string]int
}

// watch follows a driver until the test ends.
func watch(t *testing.T, driver agent.Driver, nodeID string) *watched {
	t.Helper()
	w := &watched{news: make(map[string]int)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- driver.Watch(ctx, nodeID, func(taskID string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.news[taskID]++
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("watch goes on after the end of its context")
		}
	})
	eventually(t, "the stream to stand", func() bool { return w.count("") > 0 })
	return w
}

func (w *watched) count(taskID string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news[taskID]
}

// eventually waits for a condition, for half a minute at most.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// prepare makes the container of a task, as an agent would.
func prepare(t *testing.T, driver agent.Driver, task *cluster.Task, revision *cluster.Revision) agent.Container {
	t.Helper()
	c, err := driver.Prepare(t.Context(), agent.Assignment{Task: task, Revision: revision, Hostname: "host1"})
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	return c
}

// newTask returns a task for a node.
func newTask(nodeID string) *cluster.Task {
	return &cluster.Task{
		ID: cluster.NewID(rand.Reader), ServiceID: "s1", Revision: 1, Slot: 1, NodeID: nodeID, Desired: cluster.StateRunning,
		Status: cluster.TaskStatus{State: cluster.StateAssigned},
	}
}

// conform checks what the agent relies on.
func conform(t *testing.T, r rig) {
	// run makes a container and starts it.
	run := func(t *testing.T, nodeID string, b behaviour) (string, agent.Container) {
		t.Helper()
		task := newTask(nodeID)
		prepare(t, r.driver, task, r.revision(b))
		c, err := r.driver.Start(t.Context(), task.ID)
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		if b.exitAfter == 0 {
			hello(t, r.driver, task.ID)
		}
		return task.ID, c
	}
	exited := func(t *testing.T, taskID string) agent.Container {
		t.Helper()
		var c agent.Container
		eventually(t, "the exit", func() bool {
			var err error
			if c, err = r.driver.Inspect(t.Context(), taskID); err != nil {
				t.Fatalf("inspect: %v", err)
			}
			return c.Phase == agent.Exited
		})
		return c
	}

	t.Run("describes the machine", func(t *testing.T) {
		d, err := r.driver.Describe(t.Context())
		if err != nil || d.Hostname == "" || d.Platform.OS != "linux" || d.Platform.Architecture == "" ||
			d.Resources.NanoCPUs < 1e9 || d.Resources.MemoryBytes < 1<<20 || d.Engine.EngineVersion == "" {
			t.Errorf("description = %+v, %v", d, err)
		}
		for _, builtIn := range []swarm.PluginDescription{{Type: "Log", Name: "json-file"}, {Type: "Log", Name: "local"}, {Type: "Log", Name: "syslog"}, {Type: "Volume", Name: "local"}} {
			if !slices.Contains(d.Engine.Plugins, builtIn) {
				t.Errorf("%+v isn't among %+v", builtIn, d.Engine.Plugins)
			}
		}
	})
	t.Run("prepares once, without starting", func(t *testing.T) {
		task := newTask(r.node(t))
		first := prepare(t, r.driver, task, r.revision(behaviour{}))
		second := prepare(t, r.driver, task, r.revision(behaviour{}))
		third := prepare(t, r.again(t), task, r.revision(behaviour{}))
		if first.ID == "" || first.ID != second.ID || first.ID != third.ID {
			t.Errorf("containers %q, %q, %q", first.ID, second.ID, third.ID)
		}
		if c, err := r.driver.Inspect(t.Context(), task.ID); err != nil || c.Phase != agent.Created {
			t.Errorf("after prepare: %+v, %v", c, err)
		}
	})
	t.Run("starts once", func(t *testing.T) {
		taskID, first := run(t, r.node(t), behaviour{})
		second, err := r.driver.Start(t.Context(), taskID)
		third, err2 := r.again(t).Start(t.Context(), taskID)
		if err != nil || err2 != nil || first.Phase != agent.Running || first.PID == 0 || second.PID != first.PID || third.PID != first.PID {
			t.Errorf("%+v, %+v %v, %+v %v", first, second, err, third, err2)
		}
	})
	t.Run("publishes ports on the host, and tells which", func(t *testing.T) {
		number := freePort(t)
		nodeID := r.node(t)
		start := func() (string, agent.Container, error) {
			task, revision := newTask(nodeID), r.revision(behaviour{})
			revision.Endpoint = &swarm.EndpointSpec{Ports: cluster.ParsePorts(fmt.Sprintf("%d:80/tcp,0:81/tcp", number))}
			prepare(t, r.driver, task, revision)
			c, err := r.driver.Start(t.Context(), task.ID)
			return task.ID, c, err
		}
		taskID, first, err := start()
		ports := cluster.ParsePorts(first.Ports)
		if err != nil || !strings.Contains(first.Ports, fmt.Sprintf("%d:80/tcp", number)) || len(ports) < 2 || slices.ContainsFunc(ports, func(p swarm.PortConfig) bool { return p.PublishedPort == 0 }) {
			t.Fatalf("%+v, %v", first, err)
		}
		if c, err := r.again(t).Inspect(t.Context(), taskID); err != nil || c.Ports != first.Ports {
			t.Errorf("another daemon sees %+v, %v", c, err)
		}
		if _, _, err := start(); err == nil || errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), "port is already allocated") {
			t.Errorf("a port twice: %v", err)
		}
		if c, err := r.driver.Stop(t.Context(), taskID, 10*time.Second); err != nil || c.Ports != "" {
			t.Errorf("stopped: %+v, %v", c, err)
		}
		if _, _, err := start(); err != nil {
			t.Errorf("a port that is free again: %v", err)
		}
	})
	t.Run("does not start again what has ended", func(t *testing.T) {
		taskID, _ := run(t, r.node(t), behaviour{exitAfter: 50 * time.Millisecond, code: 3})
		exited(t, taskID)
		if c, err := r.again(t).Start(t.Context(), taskID); err != nil || c.Phase != agent.Exited || c.ExitCode != 3 {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("tells of an exit, with its code", func(t *testing.T) {
		nodeID := r.node(t)
		w := watch(t, r.driver, nodeID)
		taskID, _ := run(t, nodeID, behaviour{exitAfter: 50 * time.Millisecond, code: 3})
		eventually(t, "news", func() bool { return w.count(taskID) > 0 })
		if c, err := r.driver.Inspect(t.Context(), taskID); err != nil || c.Phase != agent.Exited || c.ExitCode != 3 {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("remembers the exit of what was removed by hand", func(t *testing.T) {
		nodeID := r.node(t)
		w := watch(t, r.driver, nodeID)
		taskID, _ := run(t, nodeID, behaviour{})
		r.vanish(t, taskID)
		eventually(t, "news", func() bool { return w.count(taskID) > 0 })
		if c, err := r.driver.Inspect(t.Context(), taskID); err != nil || c.Phase != agent.Exited || c.ExitCode != 137 {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("tells of a kill", func(t *testing.T) {
		nodeID := r.node(t)
		w := watch(t, r.driver, nodeID)
		taskID, _ := run(t, nodeID, behaviour{})
		r.kill(t, taskID)
		eventually(t, "news", func() bool { return w.count(taskID) > 0 })
		if c := exited(t, taskID); c.ExitCode != 137 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("tells of its own node only", func(t *testing.T) {
		one, two := r.node(t), r.node(t)
		w := watch(t, r.driver, one)
		other, _ := run(t, two, behaviour{exitAfter: 50 * time.Millisecond})
		own, _ := run(t, one, behaviour{exitAfter: 50 * time.Millisecond})
		eventually(t, "news", func() bool { return w.count(own) > 0 })
		exited(t, other)
		if w.count(other) > 0 {
			t.Error("another node's news")
		}
		list, err := r.driver.List(t.Context(), one)
		if err != nil || len(list) != 1 || list[0].TaskID != own || list[0].ID == "" {
			t.Errorf("list = %v, %v", list, err)
		}
	})
	t.Run("stops with the signal", func(t *testing.T) {
		taskID, _ := run(t, r.node(t), behaviour{})
		c, err := r.driver.Stop(t.Context(), taskID, 30*time.Second)
		again, err2 := r.driver.Stop(t.Context(), taskID, 30*time.Second)
		if err != nil || err2 != nil || c.Phase != agent.Exited || c.ExitCode != 0 || again.ExitCode != 0 {
			t.Errorf("%+v %v, %+v %v", c, err, again, err2)
		}
	})
	t.Run("kills after the grace period", func(t *testing.T) {
		taskID, _ := run(t, r.node(t), behaviour{disobeys: true})
		began := time.Now()
		c, err := r.driver.Stop(t.Context(), taskID, time.Second)
		if took := time.Since(began); err != nil || c.Phase != agent.Exited || c.ExitCode != 137 || took < 900*time.Millisecond {
			t.Errorf("%+v, %v, after %v", c, err, took)
		}
	})
	t.Run("stops nothing that is not there", func(t *testing.T) {
		if _, err := r.driver.Stop(t.Context(), newTask(r.node(t)).ID, time.Second); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("stop: %v", err)
		}
		if err := r.driver.Remove(t.Context(), newTask(r.node(t)).ID); err != nil {
			t.Errorf("remove: %v", err)
		}
		if _, err := r.driver.Inspect(t.Context(), newTask(r.node(t)).ID); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("inspect: %v", err)
		}
	})
	t.Run("stops what was only prepared", func(t *testing.T) {
		task := newTask(r.node(t))
		prepare(t, r.driver, task, r.revision(behaviour{}))
		if c, err := r.driver.Stop(t.Context(), task.ID, time.Second); err != nil || c.Phase != agent.Created {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("removes what runs", func(t *testing.T) {
		nodeID := r.node(t)
		taskID, _ := run(t, nodeID, behaviour{disobeys: true})
		if err := r.again(t).Remove(t.Context(), taskID); err != nil {
			t.Fatal(err)
		}
		if list, err := r.driver.List(t.Context(), nodeID); err != nil || len(list) != 0 {
			t.Errorf("list = %v, %v", list, err)
		}
	})
	t.Run("says that an image is missing", func(t *testing.T) {
		revision := r.missing()
		_, err := r.driver.Prepare(t.Context(), agent.Assignment{Task: newTask(r.node(t)), Revision: revision})
		if !errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrUnavailable) ||
			len(err.Error()) < 13 || err.Error()[:14] != "No such image:" {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("waits for health", func(t *testing.T) {
		nodeID := r.node(t)
		w := watch(t, r.driver, nodeID)
		taskID, c := run(t, nodeID, behaviour{healthyAfter: 300 * time.Millisecond})
		if c.Health != agent.HealthStarting {
			t.Errorf("at the start: %+v", c)
		}
		eventually(t, "news", func() bool { return w.count(taskID) > 0 })
		if c, err := r.driver.Inspect(t.Context(), taskID); err != nil || c.Health != agent.HealthGood {
			t.Errorf("then: %+v, %v", c, err)
		}
	})
	t.Run("gives secrets and configs as files", func(t *testing.T) { conformFiles(t, r) })
	t.Run("reads logs", func(t *testing.T) { conformLogs(t, r, run) })
}

// withFiles makes a revision and an assignment of it that has a secret and two
// configs, one of them a template, and the lines by which the probe shows them.
func withFiles(nodeID string, revision *cluster.Revision) (agent.Assignment, []string) {
	c := revision.Spec.ContainerSpec
	c.Env = []string{"COLOUR=blue"}
	c.Args = append(c.Args, "-cat", "/run/secrets/key", "/etc/deep/site", "/plain")
	c.Secrets = []*swarm.SecretReference{{SecretID: "x1", SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: "key", UID: "12", GID: "34", Mode: 0o440}}}
	c.Configs = []*swarm.ConfigReference{
		{ConfigID: "x2", ConfigName: "site", File: &swarm.ConfigReferenceFileTarget{Name: "/etc/deep/site", UID: "0", GID: "0", Mode: 0o444}},
		{ConfigID: "x3", ConfigName: "plain", File: &swarm.ConfigReferenceFileTarget{Name: "plain", Mode: 0o644}},
	}
	secret, site, plain := &cluster.Secret{ID: "x1"}, &cluster.Config{ID: "x2"}, &cluster.Config{ID: "x3"}
	secret.Spec.Name, secret.Spec.Data = "key", []byte("canary-{{9}}\x00\xff")
	site.Spec.Data = []byte(`{{.Service.Name}} on {{.Node.Hostname}} is {{env "COLOUR"}}`)
	site.Spec.Templating = &swarm.Driver{Name: "golang"}
	plain.Spec.Data = []byte("{{untouched}}")
	return agent.Assignment{
			Task: newTask(nodeID), Revision: revision, Hostname: "host1",
			Secrets: map[string]*cluster.Secret{"x1": secret}, Configs: map[string]*cluster.Config{"x2": site, "x3": plain},
		}, []string{
			fmt.Sprintf("file /run/secrets/key 12:34 440 fs=1021994 read-only %q", secret.Spec.Data),
			`file /etc/deep/site 0:0 444 fs=1021994 read-only "web on host1 is blue"`,
			`file /plain 0:0 644 fs=1021994 read-only "{{untouched}}"`,
		}
}

// conformFiles checks what tasks see of secrets and configs.
func conformFiles(t *testing.T, r rig) {
	a, want := withFiles(r.node(t), r.revision(behaviour{}))
	lacking := a
	lacking.Secrets = nil
	if _, err := r.driver.Prepare(t.Context(), lacking); !errors.Is(err, cluster.ErrUnavailable) || err.Error() != "waiting for a manager to send secret key" {
		t.Errorf("before the secret came: %v", err)
	}
	lacking.Secrets = map[string]*cluster.Secret{"x1": nil}
	if _, err := r.driver.Prepare(t.Context(), lacking); errors.Is(err, cluster.ErrUnavailable) || err == nil || err.Error() != "secret key not found: it was removed" {
		t.Errorf("after the secret was removed: %v", err)
	}
	c, err := r.driver.Prepare(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	// A container that is there needs nothing any more.
	if again, err := r.again(t).Prepare(t.Context(), lacking); err != nil || again.ID != c.ID {
		t.Errorf("prepared again: %+v, %v", again, err)
	}
	if _, err := r.driver.Start(t.Context(), a.Task.ID); err != nil {
		t.Fatal(err)
	}
	hello(t, r.driver, a.Task.ID)
	if got := r.sees(t, a.Task.ID); !slices.Equal(got, want) {
		t.Errorf("the container sees\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := r.driver.Remove(t.Context(), a.Task.ID); err != nil {
		t.Error(err)
	}
}

// conformLogs checks the reading of logs.
func conformLogs(t *testing.T, r rig, run func(*testing.T, string, behaviour) (string, agent.Container)) {
	taskID, _ := run(t, r.node(t), behaviour{every: 100 * time.Millisecond})
	read := func(t *testing.T, o cluster.LogOptions) (lines []cluster.LogLine) {
		t.Helper()
		if err := r.driver.Logs(t.Context(), taskID, o, func(more []cluster.LogLine) error {
			lines = append(lines, more...)
			return nil
		}); err != nil {
			t.Errorf("logs: %v", err)
		}
		return lines
	}
	both := cluster.LogOptions{Stdout: true, Stderr: true, Tail: -1}
	eventually(t, "five lines", func() bool { return len(read(t, both)) >= 5 })

	if lines := read(t, cluster.LogOptions{Stdout: true, Stderr: true, Tail: 2}); len(lines) != 2 {
		t.Errorf("tail 2 gives %d lines", len(lines))
	}
	if lines := read(t, cluster.LogOptions{Stderr: true, Tail: -1}); len(lines) != 0 {
		t.Errorf("%d lines on stderr before the end", len(lines))
	}
	all := read(t, both)
	sinceFourth := both
	sinceFourth.Since = all[3].Time
	if lines := read(t, sinceFourth); len(lines) == 0 || lines[0].Time != all[3].Time || string(lines[0].Data) != string(all[3].Data) {
		t.Errorf("since the fourth line: %v", lines)
	}
	follow := both
	follow.Follow = true
	time.AfterFunc(300*time.Millisecond, func() { r.driver.Stop(context.Background(), taskID, 10*time.Second) })
	lines := read(t, follow) // ends with the container
	if len(lines) <= len(all) || !lines[len(lines)-1].Stderr {
		t.Errorf("following gave %d lines after %d", len(lines), len(all))
	}
	for i, line := range lines {
		if line.Time.IsZero() || len(line.Data) == 0 || line.Data[len(line.Data)-1] != '\n' {
			t.Errorf("line %d = %+v", i, line)
		}
		if i > 0 && line.Time < lines[i-1].Time {
			t.Errorf("line %d is before line %d", i, i-1)
		}
	}
	if dead := read(t, both); len(dead) != len(lines) {
		t.Errorf("the dead container's log has %d lines, want %d", len(dead), len(lines))
	}
	broken := errors.New("reader gone")
	if err := r.driver.Logs(t.Context(), taskID, both, func([]cluster.LogLine) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("an error of the reader: %v", err)
	}
	if err := r.driver.Logs(t.Context(), newTask("nowhere").ID, both, func([]cluster.LogLine) error { return nil }); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("logs of nothing: %v", err)
	}

	live, _ := run(t, r.node(t), behaviour{})
	ctx, cancel := context.WithCancel(t.Context())
	err := r.driver.Logs(ctx, live, follow, func([]cluster.LogLine) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a follower that is cancelled: %v", err)
	}
}

// freePort finds a port that nobody has, and that isn't one of those that connections are given:
// the engine would now and then find it taken a moment later.
func freePort(t *testing.T) int {
	for range 100 {
		port := 20000 + mrand.IntN(10000)
		if l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
