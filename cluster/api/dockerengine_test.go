package api

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/versions"
)

// realEngine gives the address of an engine that answers. Without one the test is
// skipped with a notice, or fails when SKEP_REQUIRE_DOCKER=1.
func realEngine(t *testing.T) string {
	t.Helper()
	address := os.Getenv("DOCKER_HOST")
	if !strings.HasPrefix(address, "unix://") {
		address = "unix:///var/run/docker.sock"
	}
	conn, err := net.DialTimeout("unix", strings.TrimPrefix(address, "unix://"), time.Second)
	if err != nil {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			t.Fatalf("no Docker Engine answers at %s, and SKEP_REQUIRE_DOCKER=1: %v", address, err)
		}
		t.Skipf("NOTICE: no Docker Engine answers at %s: the proxy is not tested against a real one", address)
	}
	conn.Close()
	return address
}

// tool is what runs in the test's containers.
const tool = `package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	switch os.Args[1] {
	case "sleep":
		time.Sleep(time.Minute)
	case "cat":
		data, _ := io.ReadAll(os.Stdin)
		fmt.Printf("heard %d bytes, ending in %q\n", len(data), data[max(0, len(data)-4):])
		os.Exit(3)
	case "say":
		fmt.Println(os.Args[2:])
	}
}
`

// toolImage imports an image of nothing but tool, through the proxy.
func toolImage(t *testing.T, c *cli) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(tool), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "tool"), filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	binary, err := os.ReadFile(filepath.Join(dir, "tool"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	if err := writer.WriteHeader(&tar.Header{Name: "tool", Mode: 0o755, Size: int64(len(binary))}); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(binary); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	name := "skep-test-api-" + suffix(t)
	if output, err := c.run(archive.String(), "import", "-c", `ENTRYPOINT ["/tool"]`, "-", name); err != nil {
		t.Fatalf("import: %v: %s", err, output)
	}
	t.Cleanup(func() {
		if output, err := c.run("", "image", "rm", "-f", name); err != nil {
			t.Errorf("image rm: %v: %s", err, output)
		}
	})
	return name
}

func suffix(t *testing.T) string {
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(random[:])
}

// TestRealEngine plays through the proxy what people do with containers while
// their DOCKER_HOST is a manager.
func TestRealEngine(t *testing.T) {
	address := realEngine(t)
	b := newBench(t, func(c *Config) { c.Engine = address })
	c := newCLI(t, b)
	c.docker(`CONTAINER ID`, "ps")
	c.docker(`(?s)Server Version: .*Swarm: active\n +NodeID: node0*1`, "info")
	c.docker(`(?s)Engine:.*API version: +1\.\d+.*skep:`, "version")
	c.docker(`bridge`, "network", "ls")
	c.refused(`(?i)no such object: nothing-of-this-name`, "inspect", "nothing-of-this-name")
	image := toolImage(t, c)
	c.docker(`\[a b\]`, "run", "--rm", image, "say", "a", "b")

	// The output comes after the input has ended, and the exit code too.
	input := strings.Repeat("x", 1<<20) + "end"
	output, err := c.run(input, "run", "--rm", "-i", image, "cat")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || !strings.Contains(output, `heard 1048579 bytes, ending in "xend"`) {
		t.Fatalf("%v: %s", err, output)
	}
	name := "skep-test-api-" + suffix(t)
	c.docker(`^[0-9a-f]{64}`, "run", "-d", "--name", name, image, "sleep")
	t.Cleanup(func() { _, _ = c.run("", "rm", "-f", name) }) // mostly gone already
	c.docker(`\[inside\]`, "exec", name, "/tool", "say", "inside")
	output, err = c.run("word", "exec", "-i", name, "/tool", "cat")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || !strings.Contains(output, `heard 4 bytes, ending in "word"`) {
		t.Fatalf("%v: %s", err, output)
	}
	c.docker(name, "ps", "--format", "{{.Names}}")
	c.docker(name, "ps", "--filter", "is-task=false", "--format", "{{.Names}}")
	if listed := c.docker("", "ps", "--filter", "is-task=true", "--format", "{{.Names}}"); strings.Contains(listed, name) {
		t.Errorf("a container that is no task's is listed as one: %s", listed)
	}
	if _, engine := b.server.engine.versions(t.Context()); versions.LessThan(engine, "1.45") {
		c.refused(`VolumeOptions.Subpath needs an engine of API v1.45`, "run", "--rm", "--mount", "type=volume,source="+name+",target=/data,volume-subpath=inner", image, "say", "a")
	}
	c.docker(name, "rm", "-f", name)

	// Asking a registry that isn't there is answered soon.
	began := time.Now()
	c.docker(`could not be accessed on a registry`, "service", "create", "-d", "127.0.0.1:1/none:1.0")
	if took := time.Since(began); took > distributionTimeout+5*time.Second {
		t.Errorf("took %s", took)
	}
}
