package console

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/goleak"

	"skep/cluster"
)

// TestStatic_IsSmall: there is no build step, and nothing of others in it.
func TestStatic_IsSmall(t *testing.T) {
	total := int64(0)
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if total > 120_000 {
		t.Errorf("all templates and static files have %d bytes", total)
	}
	b := newBench(t)
	for _, name := range []string{"console.css", "console.js", "icon.svg"} {
		w := b.get(Root + "static/" + name)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", name, w.Code)
		}
		if again := b.get(Root+"static/"+name, "If-None-Match", w.Header().Get("Etag")); again.Code != http.StatusNotModified {
			t.Errorf("%s again: %d", name, again.Code)
		}
	}
	if w := b.get(Root + "static/../templates/base.html"); w.Code == http.StatusOK {
		t.Error("templates are served")
	}
}

// TestPages_EscapeAndKeepSecrets reads all pages of the shop.
func TestPages_EscapeAndKeepSecrets(t *testing.T) {
	b := shop(t)
	for name, path := range shownPages {
		w := b.get(Root + path)
		body := w.Body.String()
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", name, w.Code, body)
		}
		if strings.Contains(body, "<b>can't") {
			t.Errorf("%s: what a task said isn't escaped", name)
		}
		if at := strings.Index(body, "canary"); at >= 0 {
			t.Errorf("%s shows a secret: …%s…", name, body[max(0, at-200):at+50])
		}
		for _, inline := range []string{" style=", " onclick=", "<style", "javascript:"} {
			if strings.Contains(body, inline) {
				t.Errorf("%s has %q, which the policy forbids", name, inline)
			}
		}
	}
	if w := b.get(Root + "nonsense"); w.Code != http.StatusNotFound {
		t.Errorf("a page that isn't there: %d", w.Code)
	}
}

func TestOverview_SaysHowTheClusterIs(t *testing.T) {
	b := shop(t)
	body := b.get(Root).Body.String()
	for _, want := range []string{
		"Node w5 (w5) is down: heartbeat failure.", "2 more", "3 of 3 with a vote answer: 1 more may fail.", "7 of 8 nodes ready, 18 of 23 tasks running.",
		"Seen by m1, which leads; entry 48\u202f213", "leads now", "replicas 1 → 3", `title="shop_web.4 preparing for 4 s"`, "train.2 waiting for 20 min: no suitable node",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("there is no %q in\n%s", want, body)
		}
	}
}

// TestOverview_WithoutALeader: it is the moment when people look.
func TestOverview_WithoutALeader(t *testing.T) {
	b := shop(t)
	b.manager.set(func(m *fakeManager) {
		m.leader, m.self.Leader, m.self.Ready, m.self.State, m.self.LastContact = "", false, false, "candidate", 12*time.Second
		m.status.LeaderID = ""
		m.status.Problems = []string{"there is no leader: 1 of 3 managers answer, and 2 are needed"}
		for i := range m.status.Managers {
			m.status.Managers[i].Leader, m.status.Managers[i].Reachable = false, i == 0
		}
	})
	b.manager.self.AppliedIndex = 48210
	w := b.get(Root)
	if w.Code != http.StatusOK {
		t.Fatalf("got %d", w.Code)
	}
	for _, want := range []string{
		"There is no leader: 1 of 3 managers answer, and 2 are needed.", "which has heard of no leader for 12 s; entry 48\u202f210, 3 behind",
		"1 of 3 with a vote answer, and 2 are needed: nothing can be changed.", "unreachable",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("there is no %q in\n%s", want, w.Body)
		}
	}
}

// TestConsole_OfANodeThatIsNoManager says what to do.
func TestConsole_OfANodeThatIsNoManager(t *testing.T) {
	c := New(Config{
		Manager: func() Manager { return nil }, ManagerChanged: func() <-chan struct{} { return nil }, Now: (&manual{at: noon}).now,
		NotManager: func() error { return cluster.Errorf(cluster.ErrNotManager, "this node <is> a worker") },
	})
	r := httptest.NewRequest("GET", Root, nil)
	r.Header.Set(GrantHeader, GrantRead)
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "this node &lt;is&gt; a worker") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestParts_AreWhatWasAskedFor(t *testing.T) {
	b := shop(t)
	w := b.get(Root, partsHeader, "events health nonsense")
	body := w.Body.String()
	if w.Code != http.StatusOK || strings.Count(body, "<section") != 1 || !strings.Contains(body, `<section id="events"`) || !strings.Contains(body, `id="health"`) || strings.Contains(body, "<html") {
		t.Errorf("got %d %s", w.Code, body)
	}
	if again := b.get(Root, partsHeader, "events health nonsense", "If-None-Match", w.Header().Get("Etag")); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("again: got %d %s", again.Code, again.Body)
	}
}

func TestParts_AreMadeOnceForAll(t *testing.T) {
	var cache partCache
	clock := &manual{at: noon}
	made := 0
	get := func(key string) string {
		body, err := cache.get(key, clock.now, func() ([]byte, error) { made++; return fmt.Appendf(nil, "%d", made), nil })
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, key := range []string{"a", "a", "b", "a"} {
		get(key)
	}
	if made != 2 {
		t.Errorf("%d were made", made)
	}
	clock.set(noon.Add(partAge))
	if get("a") != "3" {
		t.Error("what is old is kept")
	}
	for i := range 2 * keptParts {
		get(fmt.Sprint(i))
	}
	if n := len(cache.kept); n > keptParts {
		t.Errorf("%d are kept", n)
	}
}

// crowd is a cluster of many nodes and tasks.
func crowd(t testing.TB, nodes, tasks int) *bench {
	b := newBench(t)
	b.put(&cluster.Cluster{ID: "crowded"})
	s := b.service("web", uint64(tasks))
	var all []any
	for i := range nodes {
		n := &cluster.Node{ID: fmt.Sprintf("node%021d", i), Role: swarm.NodeRoleWorker, Status: cluster.NodeStatus{State: cluster.NodeReady, Addr: "10.1.2.3"}}
		n.Spec.Availability = swarm.NodeAvailabilityActive
		n.Description.Hostname = fmt.Sprintf("machine-%04d.example.org", i)
		all = append(all, n)
		b.manager.status.Nodes = append(b.manager.status.Nodes, cluster.NodeHealth{NodeID: n.ID, Hostname: n.Description.Hostname, Gossip: "alive", Session: "m1"})
	}
	for i := range tasks {
		all = append(all, &cluster.Task{
			ID: fmt.Sprintf("task%021d", i), ServiceID: s.ID, Revision: 1, Slot: uint32(i + 1), NodeID: fmt.Sprintf("node%021d", i%nodes), Desired: cluster.StateRunning,
			Status: cluster.TaskStatus{State: cluster.StateRunning, Since: cluster.At(noon)},
		})
	}
	b.put(all...)
	b.clock.set(noon)
	return b
}

func TestOverview_OfALargeClusterIsSmall(t *testing.T) {
	b := crowd(t, 1000, 10000)
	w := b.get(Root)
	if n := w.Body.Len(); w.Code != http.StatusOK || n > 300_000 {
		t.Errorf("got %d, %d bytes", w.Code, n)
	}
	if !strings.Contains(w.Body.String(), "10\u202f000 of 10\u202f000 tasks running") {
		t.Error("tasks aren't counted")
	}
}

// open opens tabs, and waits until each has its stream.
func open(ctx context.Context, t *testing.T, url string, tabs int) []*http.Response {
	t.Helper()
	var all []*http.Response
	for range tabs {
		r, err := http.NewRequestWithContext(ctx, "GET", url+Root+"live", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			t.Fatalf("got %s", response.Status)
		}
		all = append(all, response)
	}
	return all
}

// TestLive_TellsAndLeavesNothing opens as many tabs as there may be, and closes them.
func TestLive_TellsAndLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	b := crowd(t, 10, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(GrantHeader, GrantRead)
		b.console.ServeHTTP(w, r)
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tabs := open(ctx, t, server.URL, maxTabs)
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+Root+"live", nil)
	if err != nil {
		t.Fatal(err)
	}
	if more, err := http.DefaultClient.Do(r); err != nil || more.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more tab: %v, %v", more, err)
	} else {
		_ = more.Body.Close()
	}
	stacks := make([]byte, 8<<20)
	if n := strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*hub).run("); n != 1 {
		t.Errorf("%d goroutines follow the database", n)
	}
	b.event(0, "service", "create", "web", "web")
	for _, tab := range tabs {
		told := false
		for lines := bufio.NewScanner(tab.Body); !told && lines.Scan(); {
			told = strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), topicAll)
		}
		if !told {
			t.Fatal("a tab heard nothing")
		}
	}
	for _, tab := range tabs {
		_ = tab.Body.Close()
	}
	cancel()
	http.DefaultClient.CloseIdleConnections()
}

// TestLive_TwiceASecond: however much changes, a tab hears of it twice a second.
func TestLive_TwiceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		tab, ok := b.console.hub.join()
		if !ok {
			t.Fatal("there is no room")
		}
		defer func() {
			b.console.hub.leave(tab)
			synctest.Wait()
		}()
		heard := 0
		for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
			b.service("web", 1)
			select {
			case <-tab.ready:
				heard++
				b.console.hub.take(tab)
			default:
			}
		}
		if heard < 9 || heard > 10 {
			t.Errorf("a tab heard %d times in 5 s", heard)
		}
	})
}

// TestLive_HundredTabsAreCheap holds what tabs take to a bound: each tab asks for the map of
// a large cluster, as all do when something changes.
func TestLive_HundredTabsAreCheap(t *testing.T) {
	b := crowd(t, 1000, 10000)
	before := heap()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(GrantHeader, GrantRead)
		b.console.ServeHTTP(w, r)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tabs := open(ctx, t, server.URL, 100)
	for range tabs {
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+Root, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(partsHeader, "map health")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close() // It isn't read: what waits for the browser waits here.
	}
	if more := int64(heap()) - int64(before); more > 100<<20 {
		t.Errorf("100 tabs take %d MB", more>>20)
	}
	for _, tab := range tabs {
		_ = tab.Body.Close()
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestHub_TellsASlowTabToShowAllAnew(t *testing.T) {
	h := &hub{tabs: map[*tab]struct{}{}}
	one := &tab{ready: make(chan struct{}, 1), pending: map[string]struct{}{}}
	h.tabs[one] = struct{}{}
	h.tell(context.Background(), map[string]struct{}{topicTasks: {}, topicNodes: {}})
	h.tell(context.Background(), map[string]struct{}{topicTasks: {}})
	if got := h.take(one); len(got) != 2 || got[0] != topicNodes {
		t.Errorf("got %v", got)
	}
	many := map[string]struct{}{}
	for i := range maxPending + 1 {
		many[topicService+fmt.Sprint(i)] = struct{}{}
	}
	h.tell(context.Background(), many)
	if got := h.take(one); len(got) != 1 || got[0] != topicAll {
		t.Errorf("got %v", got)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{count(7), "7"}, {count(1234), "1\u202f234"}, {count(1234567), "1\u202f234\u202f567"}, {plural(1, "node"), "1 node"}, {plural(0, "node"), "0 nodes"},
		{span(31 * time.Millisecond), "31 ms"}, {span(90 * time.Second), "90 s"}, {span(5 * time.Minute), "5 min"}, {span(26 * time.Hour), "26 h"}, {span(80 * 24 * time.Hour), "80 d"},
		{sentence("no leader"), "No leader."}, {sentence(""), ""}, {size(16 << 30), "16 GiB"}, {size(3 << 29), "1.5 GiB"}, {size(512 << 20), "512 MiB"},
		{imageOf("nginx:1.2@sha256:0123456789abcdef").Digest, "0123456789ab"}, {imageOf("nginx").Name, "nginx"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for name, want := range map[string]string{"m1.example.org": "m1", "10.0.0.1": "10.0.0.1", "fd00::1": "fd00::1", "m": "m", "": ""} {
		if got := host(name); got != want {
			t.Errorf("host(%q) is %q", name, got)
		}
	}
	for _, names := range [][2]string{{"n2", "n10"}, {"a", "b"}, {"n", "n1"}, {"n01", "n2"}, {"web", "web-2"}} {
		if compareNames(names[0], names[1]) >= 0 || compareNames(names[1], names[0]) <= 0 {
			t.Errorf("%s isn't before %s", names[0], names[1])
		}
	}
}
