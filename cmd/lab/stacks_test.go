package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// stacks are the files of each stack, in testdata/stacks, by its name.
var stacks = map[string][]string{
	"shop": {"shop"}, "watch": {"watch"}, "agents": {"agents"}, "job": {"job"}, "colours": {"colours", "green"},
}

func stackFile(name string) string { return filepath.Join("testdata", "stacks", name+".yml") }

// stackPlay deploys stacks as users have them, by Docker's command. What it calls in between asks
// the tasks, where there are real ones.
type stackPlay struct {
	*testing.T
	any    func() *console // one whose node answers
	docker func(args ...string) string
	// works asks all stacks, live the colour that should answer, watches the monitoring stack.
	works   func()
	live    func(colour string)
	watches func()
}

// deploy deploys files as a stack, with options, and with what is set in the environment.
func (p stackPlay) deploy(stack string, files []string, with ...string) {
	p.Helper()
	var env []string
	args := []string{"docker", "stack", "deploy", "--resolve-image", "never"}
	for _, w := range with {
		if strings.HasPrefix(w, "-") {
			args = append(args, w)
		} else {
			env = append(env, w)
		}
	}
	for _, f := range files {
		args = append(args, "-c", f)
	}
	if out, err := p.any().command("env", slices.Concat(env, args, []string{stack})...); err != nil {
		all, _ := p.any().run("stack", "ps", "--no-trunc", stack)
		p.Fatalf("deploy %s: %v\n%s\n%s", stack, err, out, all)
	}
}

// deployed deploys a stack of testdata.
func (p stackPlay) deployed(stack string, with ...string) {
	p.Helper()
	var files []string
	for _, name := range stacks[stack] {
		files = append(files, stackFile(name))
	}
	p.deploy(stack, files, with...)
}

// whole waits until all services have what they want: tasks that run or, a job's, that are complete.
func (p stackPlay) whole() {
	p.Helper()
	if err := until(p.Context(), 90*time.Second, "all services to be whole", func(context.Context) error {
		out, err := p.any().run("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for line := range strings.Lines(out) {
			fields := strings.Fields(line) // A job's are followed by how many are complete.
			have, want, _ := strings.Cut(fields[1], "/")
			if len(fields) > 2 && strings.Contains(fields[2], "/") {
				have, want, _ = strings.Cut(strings.TrimPrefix(fields[2], "("), "/")
			}
			if have != want {
				all, _ := p.any().run("service", "ps", "--no-trunc", fields[0])
				return fmt.Errorf("%s%s", out, all)
			}
		}
		return nil
	}); err != nil {
		p.Fatal(err)
	}
}

// states is what each service is, as another deployment must leave it: its spec, addresses and tasks.
func (p stackPlay) states() map[string]string {
	p.Helper()
	all := map[string]string{}
	names := strings.Fields(p.docker("service", "ls", "--format", "{{.Name}}"))
	add := func(out string) {
		lines := strings.Split(out, "\n")
		slices.Sort(lines)
		for _, line := range lines {
			line = strings.TrimLeft(line, ` \_`) // before the tasks that others followed
			name, _, _ := strings.Cut(strings.Fields(line)[0], ".")
			all[name] += line + "\n"
		}
	}
	add(p.docker(append([]string{"service", "inspect", "-f", "{{.Spec.Name}} {{json .Spec}} {{json .Endpoint}}"}, names...)...))
	add(p.docker(append([]string{"service", "ps", "--no-trunc", "--format", "{{.Name}} {{.ID}}"}, names...)...))
	return all
}

// unchanged wants services to be as they were, and only those of but to have other tasks.
func (p stackPlay) unchanged(before map[string]string, but ...string) {
	p.Helper()
	after := p.states()
	if was, is := slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)); !slices.Equal(was, is) {
		p.Errorf("the services were %v and are %v", was, is)
	}
	for name, was := range before {
		if is := after[name]; slices.Contains(but, name) == (is == was) {
			p.Errorf("%s was\n%s\nand is\n%s", name, was, is)
		}
	}
}

// prints wants a command to print lines, in any order.
func (p stackPlay) prints(lines []string, args ...string) {
	p.Helper()
	if got := strings.Split(p.docker(args...), "\n"); !same(got, lines) {
		p.Errorf("docker %s prints\n%s\nwant\n%s", strings.Join(args, " "), strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

// play deploys all stacks, and again, makes another colour live, and removes all.
func (p stackPlay) play() {
	p.docker("network", "create", "-d", "overlay", "edge")
	p.docker("secret", "create", "licence", filepath.Join("testdata", "stacks", "password.txt"))
	p.docker("config", "create", "site-1", filepath.Join("testdata", "stacks", "routes.txt"))
	names := slices.Sorted(maps.Keys(stacks))
	for _, name := range names {
		p.deployed(name)
		p.whole() // Thirty containers that start at once are too many for a small machine.
	}
	p.prints([]string{"agents 2", "colours 3", "job 3", "shop 5", "watch 4"}, "stack", "ls", "--format", "{{.Name}} {{.Services}}")
	p.prints([]string{"shop_proxy 2/2 (max 1 per node) *:8080->80/tcp", "shop_api 3/3", "shop_worker 2/2", "shop_cache 1/1", "shop_db 1/1"},
		"stack", "services", "--format", "{{.Name}} {{.Replicas}}{{with .Ports}} {{.}}{{end}}", "shop")
	p.prints([]string{"n1 Running", "n2 Running", "n3 Running"},
		"stack", "ps", "--filter", "desired-state=running", "--filter", "name=agents_agent", "--format", "{{.Node}} {{.DesiredState}}", "agents")
	p.works()

	// Deployed again, nothing changes but what ends: it runs once more, as after any update of a job.
	before := p.states()
	for _, name := range names {
		p.deployed(name)
	}
	shown := filepath.Join(p.TempDir(), "shown.yml")
	if err := os.WriteFile(shown, []byte(p.docker("stack", "config", "-c", stackFile("shop"))), 0o600); err != nil {
		p.Fatal(err)
	}
	p.deploy("shop", []string{shown}) // What the command shows of a file is that file.
	p.whole()
	p.unchanged(before, "job_migrate", "job_sweep")
	p.works()

	p.live("blue")
	p.deployed("colours", "--detach=false", "BLUE=last", "GREEN=live")
	p.live("green")
	p.deployed("colours", "--detach=false")
	p.live("blue")
	before = p.states()
	p.deploy("colours", []string{stackFile("colours")}, "--detach=false")
	p.unchanged(before) // What the files no longer name stays,
	p.deploy("colours", []string{stackFile("colours")}, "--detach=false", "--prune")
	delete(before, "colours_green") // until it is to go.
	p.unchanged(before)
	p.live("blue")

	// One comes again at once, another is removed while it comes. What was there before them stays.
	p.docker(append([]string{"stack", "rm"}, names...)...)
	p.deployed("watch")
	p.prints([]string{"watch"}, "stack", "ls", "--format", "{{.Name}}")
	p.whole()
	p.watches()
	p.deployed("shop")
	p.docker("stack", "rm", "shop", "watch")
	for what, name := range map[string]string{"network": "edge", "secret": "licence", "config": "site-1"} {
		p.docker(what, "rm", name)
	}
	p.prints([]string{"ingress"}, "network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}")
	for _, what := range []string{"service", "secret", "config", "stack"} {
		p.prints([]string{""}, what, "ls", "--format", "{{.Name}}")
	}
}

// simulated is Docker's command, spoken to the first of nodes that simulate their tasks.
func simulated(t *testing.T, nodes int) *console {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	needProgram(t, "docker")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, err := newProcesses(ctx, lab{bin: binaries(t), engine: defaultEngine}, "simulate", nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the node ends:\n%s", cluster.nodes[0].lastLog())
		}
		if err := cluster.close(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := cluster.form(ctx, 1); err != nil {
		t.Fatal(err)
	}
	return &console{t, cluster.nodes[0].socket(), t.TempDir()}
}

// TestStacks_Simulated holds what needs no containers of what TestHosts plays of stacks.
func TestStacks_Simulated(t *testing.T) {
	c := simulated(t, 3)
	nothing := func() {}
	stackPlay{T: t, any: func() *console { return c }, docker: c.docker, works: nothing, watches: nothing, live: func(string) {}}.play()
}

// TestStacks_AsTheCommandsOwnTests holds what the tests of Docker's command ask of a cluster and a
// stack (docker/cli, e2e/stack): which objects are made, by which names; how many tasks are to
// run; that all is removed by one call, that a second one finds nothing, and that what a file
// says can be shown.
func TestStacks_AsTheCommandsOwnTests(t *testing.T) {
	c := simulated(t, 1)
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	prints := stackPlay{T: t, docker: c.docker}.prints

	file("data", "some text")
	named := file("named.yml", `
version: "3.8"
services:
  page:
    image: page
    networks: [mine, own]
    volumes: [mine, own]
    secrets: [mine, own]
    configs: [mine, own] # Where they go is nobody's matter: as in that test.
networks: {mine: {name: my-network}, own: {}}
volumes: {mine: {name: my-volume}, own: {}}
secrets: {mine: {name: my-secret, file: data}, own: {file: data}}
configs: {mine: {name: my-config, file: data}, own: {file: data}}
`)
	deploy := []string{"stack", "deploy", "--detach", "--resolve-image", "never", "-c"}
	prints([]string{
		"Creating network my-network", "Creating network st_own", "Creating secret my-secret", "Creating secret st_own",
		"Creating config my-config", "Creating config st_own", "Creating service st_page",
	}, append(slices.Clone(deploy), named, "st")...)
	prints([]string{"Updating service st_page (id: " + c.docker("service", "inspect", "-f", "{{.ID}}", "st_page") + ")"}, append(slices.Clone(deploy), named, "st")...)
	prints([]string{
		"Removing service st_page", "Removing secret my-secret", "Removing secret st_own", "Removing config my-config",
		"Removing config st_own", "Removing network my-network", "Removing network st_own",
	}, "stack", "rm", "st")

	two := file("two.yml", `
version: "3.3"
services:
  one: {image: one, command: top}
  two: {image: two, command: top}
`)
	if said := c.docker("stack", "config", "--compose-file="+two); !strings.Contains(said, "image: two") {
		t.Errorf("stack config prints\n%s", said)
	}
	// count wants so many tasks that are to run. There is a line above them, and another text for none.
	count := func(stack string, want int) {
		t.Helper()
		if err := until(t.Context(), patience, "tasks", func(context.Context) error {
			if said, _ := c.run("stack", "ps", stack, "-f=desired-state=running"); len(strings.Split(strings.TrimSpace(said), "\n"))-1 != want {
				return fmt.Errorf("want %d tasks:\n%s", want, said)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	c.docker(append(slices.Clone(deploy), two, "twice")...)
	count("twice", 2)
	prints([]string{"Removing service twice_one", "Removing service twice_two", "Removing network twice_default"}, "stack", "rm", "twice")
	if said, err := c.run("stack", "rm", "twice"); err != nil || said != "Nothing found in stack: twice\n" {
		t.Errorf("a second stack rm: %v, %s", err, said)
	}
	count("twice", 0)
	c.refused("nothing found in stack: twice", "stack", "ps", "twice")

	// As deployment by deployment, so removal by removal: nothing is left, and the names are free.
	for range 5 {
		c.docker(append(slices.Clone(deploy), named, "st")...)
		c.docker("stack", "rm", "st")
	}
	for what, want := range map[string]string{"service": "", "secret": "", "config": "", "stack": "", "network": "ingress"} {
		list := []string{what, "ls", "--format", "{{.Name}}"}
		if what == "network" {
			list = append(list, "--filter", "driver=overlay")
		}
		if got := c.docker(list...); got != want {
			t.Errorf("docker %s ls shows %q, want %q", what, got, want)
		}
	}
}
