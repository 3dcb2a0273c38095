package api

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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

// TestConsole_CanBeSwitchedOff: the cluster says what pages may do, also those of sessions that are open.
func TestConsole_CanBeSwitchedOff(t *testing.T) {
	b := newBench(t)
	b.create(spec("web"))
	for _, c := range []struct {
		use           string
		shown, forms  bool
		reads, writes string // what a session is refused with
	}{
		{use: "", shown: true, writes: "this cluster's console only shows: `skep cluster update --console=write`"},
		{use: "write", shown: true, forms: true},
		{use: "read", shown: true, writes: "this cluster's console only shows"},
		{use: "off", reads: "this cluster has its console switched off: `skep cluster update --console=read`", writes: "switched off"},
	} {
		if c.use != "" {
			b.label("skep.console", c.use)
		}
		for _, grant := range []string{console.GrantRead, console.GrantWrite} {
			a := b.do("GET", console.Root+"services/web", nil, console.GrantHeader, grant)
			forms := strings.Contains(a.body, `method="post"`)
			if c.shown != (a.status == 200) || !c.shown && !strings.Contains(strings.ToLower(a.body), c.reads) || forms != (c.forms && grant == console.GrantWrite) {
				t.Errorf("%q: a session to %s gets %d, with forms %v: %s", c.use, grant, a.status, forms, a.body)
			}
		}
		for write, refusal := range map[bool]string{false: c.reads, true: c.writes} {
			if a := b.do("POST", "/skep/v1/console/session", cluster.ConsoleRequest{Write: write}); (a.status == 200) != (refusal == "") || !strings.Contains(a.body, refusal) {
				t.Errorf("%q: write %v: %d %s, want %q", c.use, write, a.status, a.body, refusal)
			}
		}
	}
	b.do("POST", "/swarm/update?version=1", map[string]any{"Labels": map[string]string{"skep.console": "yes"}}).want(t, 400, "it takes off, read or write")
}

// TestConsole_OffEndsStreams: a page that is open hears nothing more, and says why.
func TestConsole_OffEndsStreams(t *testing.T) {
	b := newBench(t)
	b.create(spec("web"))
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, "GET", server.URL+console.Root+"live", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set(console.GrantHeader, console.GrantRead)
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	if line, err := lines.ReadString('\n'); err != nil || answer.StatusCode != 200 {
		t.Fatalf("%d, %q, %v", answer.StatusCode, line, err)
	}
	b.label("skep.console", "off")
	if rest, err := io.ReadAll(lines); ctx.Err() != nil {
		t.Errorf("it goes on: %q, %v", rest, err)
	}
	for path, status := range map[string]int{"": 403, "live": 403, "services": 403, "static/console.css": 200} {
		if a := b.do("GET", console.Root+path, nil, console.GrantHeader, console.GrantRead); a.status != status || status == 403 && !strings.Contains(a.body, "<p>This cluster has its console switched off: `skep cluster update --console=read`") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestConsole_GivesCodes(t *testing.T) {
	b := newBench(t)
	b.label("skep.console", "write")
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
