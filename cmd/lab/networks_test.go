package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetworks_OfTheEngine has tasks on the networks that each engine has, by services
// and by a stack, as Docker's command makes them.
func TestNetworks_OfTheEngine(t *testing.T) {
	b := newSolo(t)
	image := b.image()
	mode := func(service, want string) {
		t.Helper()
		b.eventually("Running", "service", "ps", "--filter", "desired-state=running", "--format", "{{.CurrentState}}", service)
		place{"HostConfig/NetworkMode", fmt.Sprintf("%q", want)}.check(t, "--network", "the container of "+service, b.container(service, "--filter", "desired-state=running"))
	}
	b.docker("service", "create", "-d", "--no-resolve-image", "--name", "on", "--network", "host", "--hostname", "there", "--publish", "mode=host,target=18099,published=18099", image)
	mode("on", "host")
	if got := b.docker("service", "inspect", "--pretty", "on"); !strings.Contains(got, "Networks: host") {
		t.Errorf("service inspect says\n%s", got)
	}
	if got := b.docker("inspect", "-f", "{{range .NetworksAttachments}}{{.Network.Spec.Name}}{{end}}", b.docker("service", "ps", "-q", "--no-trunc", "on")); got != "host" {
		t.Errorf("the task is on %q", got)
	}
	b.docker("service", "update", "--no-resolve-image", "--network-rm", "host", "--network-add", "none", "--publish-rm", "mode=host,target=18099,published=18099", "on")
	mode("on", "none")
	b.docker("service", "update", "--no-resolve-image", "--network-rm", "none", "on")
	mode("on", "default")
	b.docker("service", "rm", "on")

	file := filepath.Join(t.TempDir(), "stack.yml")
	text := `
version: "3.8"
services:
  web:
    image: ` + image + `
    networks: [hostnet]
    ports:
      - {target: 18098, published: 18098, mode: host}
  quiet:
    image: ` + image + `
    networks: [nonet]
networks:
  hostnet: {external: true, name: host}
  nonet: {external: true, name: none}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // The second time changes nothing.
		b.docker("stack", "deploy", "--detach=false", "--resolve-image", "never", "-c", file, "st")
		mode("st_web", "host")
		mode("st_quiet", "none")
	}
	if got := b.docker("stack", "ps", "-q", "st"); strings.Count(got, "\n") != 1 {
		t.Errorf("the tasks of the stack are\n%s", got)
	}
	b.docker("stack", "rm", "st")
	b.eventually("", "service", "ls", "-q")
	if got := b.docker("network", "ls", "--filter", "scope=swarm", "--format", "{{.Name}}"); got != "ingress" {
		t.Errorf("networks of the cluster: %s", got)
	}
}
