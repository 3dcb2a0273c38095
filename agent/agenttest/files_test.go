package agenttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/agent"
	"skep/agent/docker"
	"skep/cluster"
)

// runtimeDir is a directory for secrets and configs; after the test it must be
// empty, and no mount be left.
func (e *engine) runtimeDir(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOTICE: mounting a tmpfs needs root, so this was not tested")
	}
	return filepath.Join(t.TempDir(), "tasks")
}

// shown waits until the probe has shown its files, and returns the lines.
func shown(t *testing.T, driver agent.Driver, taskID string) (lines []string) {
	t.Helper()
	eventually(t, "the files", func() bool {
		lines = nil
		over := false
		driver.Logs(t.Context(), taskID, cluster.LogOptions{Stdout: true, Tail: -1}, func(more []cluster.LogLine) error {
			for _, line := range more {
				if text := strings.TrimSuffix(string(line.Data), "\n"); strings.HasPrefix(text, "file ") {
					lines = append(lines, text)
				} else {
					over = over || text == "hello"
				}
			}
			return nil
		})
		return over
	})
	return lines
}

// files lists what is below a directory.
func filesIn(t *testing.T, dir string) (paths []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

// mountsBelow counts the mounts below a directory.
func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), " "+dir)
}

// A secret is in the container's file, which is in memory, and nowhere in what the
// engine tells of the container; it goes with the container's end, however it ends.
func TestDocker_SecretsAreInMemoryWhileNeeded(t *testing.T) {
	e := needEngine(t)
	for name, end := range map[string]func(t *testing.T, d *docker.Driver, taskID, dir string){
		"stop": func(t *testing.T, d *docker.Driver, taskID, dir string) { d.Stop(t.Context(), taskID, time.Second) },
		"die":  func(t *testing.T, d *docker.Driver, taskID, dir string) { e.kill(t, taskID, "KILL") },
		"rm":   func(t *testing.T, d *docker.Driver, taskID, dir string) { e.rm(t, taskID) },
		"leave": func(t *testing.T, d *docker.Driver, taskID, dir string) {
			// The engine didn't answer when the node left, so the container runs on.
			if dirs, _ := filepath.Glob(filepath.Join(dir, "*")); len(dirs) != 1 {
				t.Errorf("directories of nodes: %q", dirs)
			} else if err := d.Forget(filepath.Base(dirs[0])); err != nil {
				t.Error(err)
			}
		},
		"restart": func(t *testing.T, d *docker.Driver, taskID, dir string) {
			// The daemon isn't there when the container ends; the next one cleans up.
			e.kill(t, taskID, "KILL")
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodeID := e.newNode(t)
			cfg := docker.Config{RuntimeDir: e.runtimeDir(t)}
			driver := e.newDriver(t, cfg)
			a, want := withFiles(nodeID, e.revision(behaviour{}))
			if name != "restart" {
				watch(t, driver, nodeID)
			}
			if _, err := driver.Prepare(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if _, err := driver.Start(t.Context(), a.Task.ID); err != nil {
				t.Fatal(err)
			}
			if got := shown(t, driver, a.Task.ID); len(got) != 3 || got[0] != want[0] {
				t.Errorf("the container sees %q", got)
			}
			found, err := e.client.ContainerInspect(t.Context(), e.container(t, a.Task.ID))
			if err != nil {
				t.Fatal(err)
			}
			if text, _ := json.Marshal(found); strings.Contains(string(text), "canary") {
				t.Errorf("inspect shows the secret: %s", text)
			}
			// Tools look for a tmpfs in the list of mounts, as Docker has it.
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", found.State.Pid))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count("\n"+string(mounts), "\ntmpfs /run/secrets/key tmpfs ro"); n != 1 {
				t.Errorf("the container's mounts are\n%s", mounts)
			}
			if paths := filesIn(t, cfg.RuntimeDir); len(paths) != 3 || mountsBelow(t, cfg.RuntimeDir) == 0 {
				t.Errorf("%d mounts below %s, files %q", mountsBelow(t, cfg.RuntimeDir), cfg.RuntimeDir, paths)
			}
			// Another run of the daemon leaves them to the container that runs.
			if _, err := e.newDriver(t, cfg).List(t.Context(), nodeID); err != nil || len(filesIn(t, cfg.RuntimeDir)) != 3 {
				t.Errorf("after a listing: %v, %d files", err, len(filesIn(t, cfg.RuntimeDir)))
			}
			end(t, driver, a.Task.ID, cfg.RuntimeDir)
			deadline := time.Now().Add(5 * time.Second)
			for len(filesIn(t, cfg.RuntimeDir)) > 0 || mountsBelow(t, cfg.RuntimeDir) > 0 {
				if name == "restart" {
					if _, err := e.newDriver(t, cfg).List(t.Context(), nodeID); err != nil {
						t.Fatal(err)
					}
				}
				if time.Now().After(deadline) {
					t.Fatalf("5 s later there are %d mounts, files %q", mountsBelow(t, cfg.RuntimeDir), filesIn(t, cfg.RuntimeDir))
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// Nothing is left of a task whose container couldn't be made, or that was stopped
// before it started.
func TestDocker_SecretsOfWhatNeverRanGo(t *testing.T) {
	e := needEngine(t)
	cfg := docker.Config{RuntimeDir: e.runtimeDir(t)}
	driver := e.newDriver(t, cfg)
	a, _ := withFiles(e.newNode(t), plain("localhost:1/skep-test-missing:1", behaviour{}, nil, nil))
	if _, err := driver.Prepare(t.Context(), a); !errors.Is(err, cluster.ErrNotFound) || mountsBelow(t, cfg.RuntimeDir) > 0 {
		t.Errorf("%v, %d mounts", err, mountsBelow(t, cfg.RuntimeDir))
	}
	a, _ = withFiles(e.newNode(t), e.revision(behaviour{}))
	if _, err := driver.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := driver.Stop(t.Context(), a.Task.ID, time.Second); err != nil || mountsBelow(t, cfg.RuntimeDir) > 0 {
		t.Errorf("%v, %d mounts", err, mountsBelow(t, cfg.RuntimeDir))
	}
}

// Through the whole agent: a task with a secret runs when the secret comes, not
// before, and the record doesn't have it.
func TestDocker_ATaskWithASecret(t *testing.T) {
	e := needEngine(t)
	nodeID := e.newNode(t)
	b := newRealBench(t, nodeID, e.newDriver(t, docker.Config{RuntimeDir: e.runtimeDir(t)}))
	b.start()
	defer b.stop()
	m := b.accept()
	m.keepAlive(t)
	a, want := withFiles(nodeID, e.revision(behaviour{}))
	a.Task.Version = 10
	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{Full: true, To: 10, Tasks: []*cluster.Task{a.Task}, Revisions: []*cluster.Revision{a.Revision}}})
	eventually(t, "the task to say what it waits for", func() bool {
		return m.reported(a.Task.ID).Err == "waiting for a manager to send secret key"
	})
	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
		From: 10, To: 10, Secrets: []*cluster.Secret{a.Secrets["x1"]}, Configs: []*cluster.Config{a.Configs["x2"], a.Configs["x3"]},
	}})
	m.reaches(a.Task.ID, cluster.StateRunning)
	if got := shown(t, b.runs, a.Task.ID); len(got) != 3 || got[0] != want[0] {
		t.Errorf("the container sees %q", got)
	}
	time.Sleep(300 * time.Millisecond) // the record is written
	if strings.Contains(string(b.record.now()), "canary") {
		t.Error("the secret is in the agent's record")
	}
	if err := b.runs.Remove(context.Background(), a.Task.ID); err != nil {
		t.Error(err)
	}
}

// An image may have links where secrets and configs go, to places of the machine. They
// lead nowhere but into the container: nothing is written, or shown, beyond it.
func TestDocker_SecretsFollowNoLinkOutOfTheContainer(t *testing.T) {
	e := needEngine(t)
	for name, up := range map[string]string{"absolute": "", "upwards": "../../../../../../../.."} {
		t.Run(name, func(t *testing.T) {
			victim := t.TempDir()
			if err := os.WriteFile(filepath.Join(victim, "plain"), []byte("the machine's own"), 0o600); err != nil {
				t.Fatal(err)
			}
			image := e.imageWith(t, map[string]string{
				"run/secrets": up + victim, "etc/deep": up + victim, "plain": up + victim + "/plain",
			})
			driver := e.newDriver(t, docker.Config{RuntimeDir: e.runtimeDir(t)})
			nodeID := e.newNode(t)
			a, want := withFiles(nodeID, plain(image, behaviour{}, nil, nil))
			if _, err := driver.Prepare(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if _, err := driver.Start(t.Context(), a.Task.ID); err != nil {
				t.Logf("the engine refuses it: %v", err)
			} else if got := shown(t, driver, a.Task.ID); len(got) != 3 || got[0] != want[0] || strings.Contains(fmt.Sprint(got), "machine's own") {
				t.Errorf("the container sees %q", got)
			}
			out, err := e.client.ContainerExport(t.Context(), e.container(t, a.Task.ID))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			layers, err := io.ReadAll(out)
			if err != nil || bytes.Contains(layers, []byte("canary")) {
				t.Errorf("the secret is in the container's layers, on the disk (%v)", err)
			}
			if kept, err := os.ReadFile(filepath.Join(victim, "plain")); string(kept) != "the machine's own" {
				t.Errorf("the machine's file is %q, %v", kept, err)
			}
			if paths := filesIn(t, victim); len(paths) != 1 {
				t.Errorf("on the machine there are %q", paths)
			}
			if err := driver.Remove(t.Context(), a.Task.ID); err != nil {
				t.Error(err)
			}
		})
	}
}
