package api

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/api/console"
)

func TestConsole_IsServedWithoutALeader(t *testing.T) {
	b := newBench(t)
	b.create(spec("web"))
	b.manager.set(func(m *fakeManager) { m.none = true })
	a := b.do("GET", console.Root, nil, console.GrantHeader, console.GrantRead)
	if a.status != 200 || !strings.Contains(a.body, "n1") || !strings.Contains(a.body, "which knows of no leader") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := b.do("GET", console.Root, nil); a.status != 403 {
		t.Errorf("without a grant: %d %s", a.status, a.body)
	}
	// By other managers nothing of it can be reached.
	ask(t, b.server.Remote(), "GET", console.Root, nil, console.GrantHeader, console.GrantRead).want(t, 404, "page not found")
}

func TestConsole_GivesCodes(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		write bool
		want  string
	}{{false, "read"}, {true, "write"}} {
		var code cluster.ConsoleCode
		b.do("POST", "/skep/v1/console/session", cluster.ConsoleRequest{Write: c.write}).want(t, 200, "Code").into(t, &code)
		var grant cluster.ConsoleGrant
		b.do("POST", "/skep/v1/console/redeem", code).want(t, 200, "").into(t, &grant)
		if grant.Grant != c.want {
			t.Errorf("got %q, want %q", grant.Grant, c.want)
		}
		b.do("POST", "/skep/v1/console/redeem", code).want(t, 403, "used already")
	}
	b.do("POST", "/skep/v1/console/session", `{"Write":true,"More":1}`).want(t, 400, "unknown field")
	b.node.setManager(nil)
	b.node.mu.Lock()
	b.node.info = swarm.Info{LocalNodeState: swarm.LocalNodeStateActive}
	b.node.mu.Unlock()
	b.do("POST", "/skep/v1/console/session", cluster.ConsoleRequest{}).want(t, 503, "managers have the console")
}
