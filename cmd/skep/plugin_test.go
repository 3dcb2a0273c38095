package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asPlugin makes a directory of docker's configuration that has the command among its plugins.
func asPlugin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "cli-plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "cli-plugins", pluginProgram)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPlugin_IsTheCommand(t *testing.T) {
	node := newFakeNode(t)
	node.answer("DELETE /services/skep", "{}")
	plugin := filepath.Join(asPlugin(t), "cli-plugins", pluginProgram)
	for _, args := range []string{
		"--host " + node.url + " skep service ls",
		"skep --host " + node.url + " service ls",
		"--config " + t.TempDir() + " -D -H " + node.url + " skep service rm skep",
		"__complete skep --host " + node.url + " service l",
	} {
		cmd := exec.Command(plugin, strings.Fields(args)...)
		cmd.Env = []string{asCommand + "=1", "HOME=" + t.TempDir()}
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(args, "__complete") && !strings.Contains(string(out), "logs") {
			t.Errorf("docker %s: %v\n%s", args, err, out)
		}
	}
	if got := node.asked("/services"); len(got) != 2 {
		t.Errorf("the node was asked %d times for services, want 2", len(got))
	}
	if got := node.asked("/services/skep"); len(got) != 1 {
		t.Errorf("the node was asked %d times for the service skep, want 1", len(got))
	}
	// By its own name it takes no other.
	if r := skep(t, nil, "skep", "service", "ls"); r.status != 125 {
		t.Errorf("skep skep: status %d: %s", r.status, r.stderr)
	}
}

// The real docker finds it, and what docker's contexts say changes nothing.
func TestPlugin_IsFoundByDocker(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("there is no docker command")
	}
	node := newFakeNode(t)
	run := func(args ...string) (string, error) {
		cmd := exec.Command(docker, args...)
		cmd.Env = []string{asCommand + "=1", "HOME=" + t.TempDir(), "DOCKER_CONFIG=" + asPlugin(t), "DOCKER_HOST=tcp://192.0.2.1:1", "SKEP_HOST=" + node.url}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("--help"); err != nil || !strings.Contains(out, "skep*") {
		t.Errorf("docker --help: %v\n%s", err, out)
	}
	if out, err := run("help", "skep"); err != nil || !strings.Contains(out, "Usage:  skep") {
		t.Errorf("docker help skep: %v\n%s", err, out)
	}
	if out, err := run("skep", "service", "ls"); err != nil || !strings.Contains(out, "REPLICAS") {
		t.Errorf("docker skep service ls: %v\n%s", err, out)
	}
	if out, err := run("--context", "other", "skep", "service", "ls"); err == nil || !strings.Contains(out, "has no contexts") {
		t.Errorf("docker --context other skep service ls: %v\n%s", err, out)
	}
}

func TestVersion_SaysWhatItIsMadeOf(t *testing.T) {
	r := skep(t, []string{"SKEP_HOST=unix:///nowhere"}, "version", "--json")
	var c contents
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil || r.status != 0 {
		t.Fatalf("status %d, %v: %s%s", r.status, err, r.stdout, r.stderr)
	}
	if c.Version != version || c.Level == 0 || c.Go == "" || c.OS != "linux" || c.Commit == "" {
		t.Errorf("%+v", c)
	}
	modules := map[string]linkedModule{}
	for _, m := range c.Modules {
		modules[m.Path] = m
	}
	if raft := modules["github.com/hashicorp/raft"]; raft.Version == "" || !strings.HasPrefix(raft.Sum, "h1:") {
		t.Errorf("it is made of %v", c.Modules)
	}
	for _, other := range []string{"--cluster", "--format=x"} {
		if r := skep(t, nil, "version", "--json", other); r.status != 1 || !strings.Contains(r.stderr, "about this command alone") {
			t.Errorf("with %s: status %d: %s", other, r.status, r.stderr)
		}
	}
}
