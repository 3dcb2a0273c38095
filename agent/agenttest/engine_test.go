package agenttest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"skep/agent/docker"
	"skep/cluster"
)

// engine is the real engine, with an image to run on it.
type engine struct {
	client *client.Client
	image  string
	probe  []byte // the image's only file
	err    error
}

// realEngine is made at the first use and cleaned up by TestMain.
var realEngine = sync.OnceValue(func() *engine {
	e := &engine{image: fmt.Sprintf("skep-test-probe:%d", os.Getpid())}
	e.client, e.err = client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	if e.err != nil {
		return e
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	short, cancelShort := context.WithTimeout(ctx, 5*time.Second)
	defer cancelShort()
	if _, e.err = e.client.Ping(short); e.err != nil {
		return e
	}
	e.err = e.build(ctx)
	return e
})

// build makes the image out of testdata/probe.
func (e *engine) build(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "skep-test-probe")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "probe")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", binary, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build probe: %w: %s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	e.probe = data
	return e.load(ctx, e.image, data, nil)
}

// load makes an image of the probe and of links, each with where it leads.
func (e *engine) load(ctx context.Context, name string, probe []byte, links map[string]string) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	w.WriteHeader(&tar.Header{Name: "probe", Mode: 0o755, Size: int64(len(probe))})
	w.Write(probe)
	for link, to := range links {
		w.WriteHeader(&tar.Header{Name: link, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777})
	}
	w.Close()
	progress, err := e.client.ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, name,
		image.ImportOptions{Changes: []string{`ENTRYPOINT ["/probe"]`}})
	if err != nil {
		return err
	}
	defer progress.Close()
	_, err = io.Copy(io.Discard, progress)
	return err
}

// imageWith makes an image that has links beside the probe, until the test ends.
func (e *engine) imageWith(t *testing.T, links map[string]string) string {
	t.Helper()
	name := fmt.Sprintf("skep-test-links:%d-%d", os.Getpid(), imagesMade.Add(1))
	if err := e.load(t.Context(), name, e.probe, links); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.client.ImageRemove(context.Background(), name, image.RemoveOptions{Force: true}) })
	return name
}

var imagesMade atomic.Int32

func TestMain(m *testing.M) {
	code := m.Run()
	if engineUsed.Load() {
		realEngine().clean()
	}
	os.Exit(code)
}

// engineUsed is set when a test asked for the engine.
var engineUsed atomic.Bool

// clean removes the image.
func (e *engine) clean() {
	if e.err == nil {
		e.client.ImageRemove(context.Background(), e.image, image.RemoveOptions{Force: true})
	}
}

// needEngine returns the real engine, or skips the test where there is none.
func needEngine(t *testing.T) *engine {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a container engine")
	}
	engineUsed.Store(true)
	e := realEngine()
	if e.err == nil {
		return e
	}
	if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
		t.Fatalf("no container engine: %v", e.err)
	}
	t.Skipf("NOTICE: no container engine answers, so this was not tested: %v", e.err)
	return nil
}

// newNode returns the ID of a node that no other test uses; its containers are
// removed after the test.
func (e *engine) newNode(t *testing.T) string {
	t.Helper()
	id := cluster.NewID(rand.Reader)
	t.Cleanup(func() {
		for _, c := range e.containers(t, id) {
			e.client.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		}
	})
	return id
}

// containers are those of a node.
func (e *engine) containers(t *testing.T, nodeID string) []container.Summary {
	t.Helper()
	list, err := e.client.ContainerList(context.Background(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", docker.LabelNode+"="+nodeID))})
	if err != nil {
		t.Errorf("list containers: %v", err)
	}
	return list
}

// container returns the ID of a task's container.
func (e *engine) container(t *testing.T, taskID string) string {
	t.Helper()
	list, err := e.client.ContainerList(context.Background(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", docker.LabelTaskID+"="+taskID))})
	if err != nil || len(list) != 1 {
		t.Fatalf("task %s has %d containers (%v)", taskID, len(list), err)
	}
	return list[0].ID
}

// kill sends a signal to a task's container.
func (e *engine) kill(t *testing.T, taskID, signal string) {
	t.Helper()
	if err := e.client.ContainerKill(context.Background(), e.container(t, taskID), signal); err != nil {
		t.Fatal(err)
	}
}

// rm removes a task's container by force.
func (e *engine) rm(t *testing.T, taskID string) {
	t.Helper()
	if err := e.client.ContainerRemove(context.Background(), e.container(t, taskID), container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// newDriver returns a driver on the engine.
func (e *engine) newDriver(t *testing.T, cfg docker.Config) *docker.Driver {
	t.Helper()
	driver, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	return driver
}
