package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// requireDocker makes a missing engine a failure instead of a reason to skip.
const requireDocker = "SKEP_REQUIRE_DOCKER"

// binaries builds what the lab runs, and more if need be.
func binaries(t *testing.T, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", append([]string{"build", "-trimpath", "-o", dir + string(filepath.Separator), "skep/cmd/skep", "skep/cmd/timecheck"}, more...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// testWriter sends what is played to the test's log.
type testWriter struct{ *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.Logf("%s", p)
	return len(p), nil
}

// tell plays the story on five processes and wants every line of it.
func tell(t *testing.T, driver, cli string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	l := lab{bin: binaries(t), engine: defaultEngine}
	if driver == "docker" {
		if err := buildTimecheck(ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	steps, err := parseStory(storyText, driver == "docker")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlayer(ctx, l, driver, cli, testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			for _, n := range p.cluster.nodes {
				t.Logf("the log of %s ends:\n%s", n.name, n.lastLog())
			}
		}
		if err := p.cluster.close(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}()
	if err := p.play(ctx, steps); err != nil {
		t.Fatal(err)
	}
}

// needDocker skips a test where there is no engine or no docker command.
func needDocker(t *testing.T) {
	t.Helper()
	missing := ""
	if !engineAnswers(t.Context(), defaultEngine) {
		missing = "no Docker Engine answers at " + defaultEngine
	} else if _, err := exec.LookPath("docker"); err != nil {
		missing = "there is no docker command"
	}
	switch {
	case missing == "":
	case os.Getenv(requireDocker) == "1":
		t.Fatal(missing)
	default:
		t.Skip("NOTICE: " + missing + ": not tested on real containers")
	}
}

// needProgram skips a test where a program isn't installed.
func needProgram(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv(requireDocker) == "1" {
		t.Fatalf("there is no %s, and %s=1: .ci/run knows the packages", program, requireDocker)
	}
	t.Skipf("NOTICE: there is no %s: what needs it was not tested (.ci/run knows the packages)", program)
}

func TestStory_WithDockersCommandOnRealContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	needDocker(t)
	tell(t, "docker", "docker")
}

func TestStory_WithOurCommandOnSimulatedTasks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	tell(t, "simulate", "skep")
}
