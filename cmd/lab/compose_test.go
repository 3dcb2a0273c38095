package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// composeNodes are the nodes of docker-compose.yml.
var composeNodes = []string{"manager-1", "manager-2", "manager-3", "worker-1", "worker-2"}

// composeUp has a host with an engine at its usual place, which has the image of a node.
func composeUp(r *rack, ctx context.Context) error {
	if err := r.wire(1); err != nil {
		return err
	}
	h := r.hosts[0]
	h.engine.flags = append(h.engine.flags, "-H", "unix:///var/run/docker.sock")
	if err := errors.Join(h.in.tool("mount", "-t", "tmpfs", "tmpfs", "/dev/shm"), h.power(ctx)); err != nil {
		return err
	}
	return runImage(ctx, lab{engine: h.engine.socket(), bin: r.bin}, nil)
}

// composed is the cluster of docker-compose.yml.
type composed struct {
	*rackPart
	command []string
}

// compose runs the command that users have.
func (c *composed) compose(args ...string) (string, error) {
	c.Helper()
	args = slices.Concat(c.command[1:], []string{"-f", "../../docker-compose.yml", "-p", "skep"}, args)
	return c.engineOn(1).command(c.command[0], args...)
}

func (c *composed) must(args ...string) string {
	c.Helper()
	out, err := c.compose(args...)
	if err != nil {
		c.Fatalf("docker-compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// skep runs a command in a node.
func (c *composed) skep(node string, args ...string) string {
	c.Helper()
	return c.must(append([]string{"exec", "-T", node, "skep"}, args...)...)
}

// nodes waits until these nodes are ready, as one of them says, and no others.
func (c *composed) nodes(asked string, ready ...string) {
	c.Helper()
	c.eventually(fmt.Sprintf("%v to be ready", ready), 90*time.Second, func(context.Context) error {
		out, err := c.compose("exec", "-T", asked, "skep", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		var found []string
		for line := range strings.Lines(out) {
			name, is, _ := strings.Cut(strings.TrimSpace(line), " ")
			manager := strings.HasPrefix(name, "manager-")
			if is == "Ready Leader" || is == "Ready Reachable" || is == "Ready" && !manager {
				found = append(found, name)
			}
		}
		if slices.Sort(found); err != nil || !slices.Equal(found, ready) {
			return errors.New(out)
		}
		return nil
	})
}

// tasks waits until a service has that many running tasks.
func (c *composed) tasks(asked, service string, want int) {
	c.Helper()
	c.eventually(fmt.Sprintf("%d tasks of %s", want, service), time.Minute, func(context.Context) error {
		out, err := c.compose("exec", "-T", asked, "skep", "service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format", "{{.CurrentState}} {{.Image}} {{.Error}}", service)
		if n := strings.Count(out, "Running "); err != nil || n != want || strings.Count(out, "\n") != want {
			return errors.New(out)
		}
		return nil
	})
}

// answers calls web by its name from each task of asker, and by its port on the host.
func (c *composed) reachesAll(version string, tasks int) {
	c.Helper()
	var web []*seat
	c.eventually("names to know the tasks", 20*time.Second, func(context.Context) error {
		web = c.seats("web")
		for _, s := range c.seats("asker") {
			if got := s.lookup("tasks.web"); len(web) != tasks || len(got) != tasks {
				return fmt.Errorf("of %d containers tasks.web on %s is %v", len(web), s.task, got)
			}
		}
		return nil
	})
	checked := func(ask func() (reply, error)) func() (reply, error) {
		return func() (reply, error) {
			r, err := ask()
			if err == nil && r.Version != version {
				err = fmt.Errorf("it is version %s, want %s", r.Version, version)
			}
			return r, err
		}
	}
	for _, s := range c.seats("asker") {
		c.reaches("http://web from "+s.task, taskNames(web), checked(func() (reply, error) { return s.get("http://web/") }))
	}
	for _, to := range []string{"127.0.0.1", c.hosts[0].addr} {
		c.reaches("the port at "+to, taskNames(web), checked(func() (reply, error) {
			return parseReply(c.hosts[0].program(c.Context(), filepath.Join(c.bin, "guest"), "get", "http://"+to+":8080/"))
		}))
	}
	c.reaches("the port from outside", taskNames(web), checked(func() (reply, error) { return c.get("http://" + c.hosts[0].addr + ":8080/") }))
}

// left is what the host has of the cluster.
func (c *composed) left() (has []string) {
	c.Helper()
	has = c.kernel()
	for what, args := range map[string][]string{
		"container": {"ps", "-aq"}, "volume": {"volume", "ls", "-q"}, "network": {"network", "ls", "-q", "--filter", "type=custom"},
	} {
		for _, name := range strings.Fields(c.engineOn(1).docker(args...)) {
			has = append(has, what+": "+name)
		}
	}
	processes, _ := filepath.Glob(c.hosts[0].engine.proc + "/[0-9]*/cmdline")
	for _, file := range processes {
		if line, _ := os.ReadFile(file); strings.HasPrefix(string(line), "skep\x00") {
			has = append(has, "process: "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	files, err := c.hosts[0].program(c.Context(), "find", "/dev/shm", "-mindepth", "1")
	if err != nil {
		c.Error(err)
	}
	for _, file := range strings.Fields(files) {
		has = append(has, "file: "+file)
	}
	return has
}

// TestCompose plays docker-compose.yml: the cluster of the README's beginning, on an engine of its own.
func TestCompose(t *testing.T) {
	needRack(t)
	command := []string{"docker-compose"}
	if _, err := exec.LookPath(command[0]); err != nil {
		command = []string{"docker", "compose"}
		if out, err := exec.Command(command[0], "compose", "version").CombinedOutput(); err != nil {
			if os.Getenv(requireDocker) == "1" {
				t.Fatalf("there is no docker-compose: %s", out)
			}
			t.Skip("NOTICE: there is no docker-compose: docker-compose.yml was not tested")
		}
	}
	c := &composed{&rackPart{t, rackUp(t, composeUp)}, command}
	defer func() {
		if t.Failed() {
			for _, node := range composeNodes {
				out, _ := c.compose("logs", "--no-color", "--tail=25", node)
				t.Logf("%s", out)
			}
		}
	}()
	var now phases
	now.begin(c.rackPart, "up")
	c.must("up", "-d")
	c.nodes("manager-1", composeNodes...)
	c.eventually("the containers to be healthy", 30*time.Second, func(context.Context) error {
		if out := c.must("ps"); strings.Count(out, "(healthy)") != len(composeNodes) {
			return errors.New(out)
		}
		return nil
	})

	now.begin(c.rackPart, "services")
	c.skep("manager-1", "network", "create", "-d", "overlay", "net")
	create := []string{"service", "create", "--detach", "--no-resolve-image", "--network", "net", "--env", "TASK={{.Task.Name}}"}
	c.skep("manager-1", append(slices.Clone(create), "--name", "asker", "--mode", "global", guestImage(1), "sleep")...)
	c.skep("manager-2", append(slices.Clone(create), "--name", "web", "--replicas", "4", "--publish", "8080:80", guestImage(1), "serve")...)
	c.tasks("manager-1", "asker", len(composeNodes))
	c.tasks("manager-3", "web", 4)
	c.reachesAll("1", 4)

	now.begin(c.rackPart, "rolling update")
	out := c.calling(8080, c.hosts[0])
	c.skep("manager-1", "service", "update", "--image", guestImage(2), "--no-resolve-image", "--update-parallelism", "1", "--update-order", "start-first", "web")
	c.tasks("manager-1", "web", 4)
	c.reachesAll("2", 4)
	out.end().without(out, now)

	now.begin(c.rackPart, "kill of a manager")
	c.engineOn(1).docker("kill", c.must("ps", "-q", "manager-1"))
	c.nodes("manager-2", composeNodes[1:]...)
	c.tasks("manager-2", "web", 4)
	now.begin(c.rackPart, "return of the manager")
	c.must("start", "manager-1")
	c.nodes("manager-1", composeNodes...)
	c.tasks("manager-1", "asker", len(composeNodes))
	c.reachesAll("2", 4)

	now.begin(c.rackPart, "restart of a worker")
	c.must("restart", "worker-1")
	c.nodes("manager-1", composeNodes...)
	c.tasks("manager-1", "asker", len(composeNodes))
	c.reachesAll("2", 4)

	now.begin(c.rackPart, "down, and up again")
	for _, kind := range []string{"link", "table", "firewall", "engine's network", "container", "volume", "process", "file"} {
		if has := c.left(); !slices.ContainsFunc(has, func(one string) bool { return strings.HasPrefix(one, kind+": ") }) {
			t.Errorf("there is no %s of the cluster's among\n%s", kind, strings.Join(has, "\n"))
		}
	}
	c.must("down")
	if left := c.left(); len(left) != len(composeNodes)+1 {
		t.Errorf("after docker-compose down there are not just volumes but\n%s", strings.Join(left, "\n"))
	}
	c.must("up", "-d")
	c.nodes("manager-1", composeNodes...)
	c.tasks("manager-1", "asker", len(composeNodes))
	c.tasks("manager-1", "web", 4)
	c.reachesAll("2", 4)

	now.begin(c.rackPart, "down -v")
	c.must("down", "-v")
	now.begin(c.rackPart, "the end")
	if left := c.left(); len(left) > 0 {
		t.Errorf("after docker-compose down -v there are\n%s", strings.Join(left, "\n"))
	}
}
