package console

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pictures is where TestChromium leaves its pictures, for people to look at:
// go test ./cluster/api/console -run Chromium -pictures DIR.
var pictures = flag.String("pictures", "", "keep pictures of the pages in this folder")

var only = flag.String("only", "", "pictures of this page only")

// chromiumLimit is how long a picture may take on a machine that does much else.
const chromiumLimit = 3 * time.Minute

// chromium runs the browser, or skips the test where there is none.
func chromium(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium")
	}
	ctx, cancel := context.WithTimeout(context.Background(), chromiumLimit)
	defer cancel()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + t.TempDir()}, args...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = nil
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium %v: %v", args, err)
	}
	return string(out)
}

// served is the console at an address, with the grant that a proxy would give.
func (b *bench) served(grant string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(GrantHeader, grant)
		b.console.ServeHTTP(w, r)
	}))
	b.t.Cleanup(server.Close)
	b.t.Cleanup(server.CloseClientConnections)
	return server.URL
}

// shownPages are those that there are pictures of.
var shownPages = map[string]string{
	"overview": "", "services": "services", "service": "services/shop_web", "waiting": "services/train", "placed": "services/shop_db", "nodes": "nodes", "node": "nodes/w2", "networks": "networks",
	"stacks": "stacks", "data": "data", "events": "events", "raft": "raft", "logs": "services/shop_web/logs",
}

// TestChromium_DrawsThePages makes pictures of each page, wide and narrow, light and dark.
func TestChromium_DrawsThePages(t *testing.T) {
	if testing.Short() || *pictures == "" {
		t.Skip("pictures are for people: give -pictures DIR")
	}
	b := shop(t)
	url := b.served(GrantWrite)
	for name, path := range shownPages {
		if *only != "" && !strings.Contains(","+*only+",", ","+name+",") {
			continue
		}
		for _, how := range []struct{ name, size, dark string }{{"1280", "1280,1000", ""}, {"360", "360,1400", ""}, {"1280-dark", "1280,1000", "dark"}, {"360-dark", "360,1400", "dark"}} {
			file := filepath.Join(*pictures, name+"-"+how.name+".png")
			args := []string{"--window-size=" + how.size, "--screenshot=" + file}
			if how.dark != "" {
				args = append(args, "--blink-settings=preferredColorScheme=0")
			}
			chromium(t, append(args, url+Root+path)...)
			if info, err := os.Stat(file); err != nil || info.Size() < 5000 {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// TestChromium_NeedsNoScript reads a page as a browser has it that may run no script.
func TestChromium_NeedsNoScript(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	b := shop(t)
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		r.Header.Set(GrantHeader, GrantRead)
		page := httptest.NewRecorder()
		b.console.ServeHTTP(page, r)
		maps.Copy(w.Header(), page.Header())
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'")
		w.WriteHeader(page.Code)
		_, _ = w.Write(page.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	dom := chromium(t, "--dump-dom", server.URL+Root)
	for _, want := range []string{"Node w5 (w5) is down", "shop_web", "leads now", "m2"} {
		if !strings.Contains(dom, want) {
			t.Errorf("there is no %q in\n%s", want, dom)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Contains(asked, Root+"live") {
		t.Error("a script ran")
	}
}

// TestChromium_SwapsWhatChanges opens a page and changes the cluster when its stream is there. The
// browser takes a page for loaded when all pictures are: one more comes when the page has asked
// for the part that changed, and for something after it.
func TestChromium_SwapsWhatChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	b := shop(t)
	var mu sync.Mutex
	changed, asked := false, 0
	swapped := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(GrantHeader, GrantRead)
		mu.Lock()
		parts := r.Header.Get(partsHeader)
		switch {
		case r.URL.Path == Root+"live" && !changed:
			changed = true
			b.service("appeared_later", 1)
			b.clock.set(noon.Add(time.Second)) // What was made before is old now.
		case changed && (asked > 0 && parts != "" || strings.Contains(parts, "services")):
			if asked++; asked == 2 {
				close(swapped)
			}
		}
		mu.Unlock()
		switch {
		case r.URL.Path == Root+"slow":
			select {
			case <-swapped:
			case <-r.Context().Done():
			}
		case r.URL.Path == Root+"services" && parts == "":
			page := httptest.NewRecorder()
			b.console.ServeHTTP(page, r)
			maps.Copy(w.Header(), page.Header())
			_, _ = w.Write([]byte(strings.Replace(page.Body.String(), "</body>", `<img src="/console/slow"></body>`, 1)))
		default:
			b.console.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	dom := chromium(t, "--dump-dom", server.URL+Root+"services")
	if !strings.Contains(dom, "appeared_later") || !strings.Contains(dom, `class="lost" role="status" hidden=""`) {
		t.Errorf("the page isn't up to date:\n%s", dom)
	}
}

// withScript is the console with a script of the test's in each page, and what it asks for at /console/test/. The
// pages' load waits for /console/test/over, which is answered when the script has asked for /console/test/done.
func withScript(t *testing.T, b *bench, script string, stream http.HandlerFunc) string {
	done := make(chan struct{})
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(GrantHeader, GrantRead)
		switch {
		case r.URL.Path == Root+"test/script.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = w.Write([]byte(script))
		case r.URL.Path == Root+"test/done":
			once.Do(func() { close(done) })
		case r.URL.Path == Root+"test/over":
			select {
			case <-done:
			case <-r.Context().Done():
			}
		case stream != nil && strings.HasSuffix(r.URL.Path, "/logs/live"):
			stream(w, r)
		case r.Header.Get(partsHeader) == "" && !strings.Contains(r.URL.Path, "live") && !strings.HasPrefix(r.URL.Path, Static):
			page := httptest.NewRecorder()
			b.console.ServeHTTP(page, r)
			maps.Copy(w.Header(), page.Header())
			_, _ = w.Write([]byte(strings.Replace(page.Body.String(), "</body>", `<script type="module" src="/console/test/script.js"></script><img src="/console/test/over"></body>`, 1)))
		default:
			b.console.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return server.URL
}

// TestChromium_HasKeys presses those that the pages' help lists.
func TestChromium_HasKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	url := withScript(t, shop(t), `
const said = [];
const press = (key) => (document.activeElement ?? document).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const at = () => document.activeElement === document.body ? "nothing" : document.activeElement.textContent || document.activeElement.name;
if (document.title.startsWith("Services")) {
  press("j"); said.push(at()); press("j"); said.push(at()); press("k"); said.push(at());
  press("/"); said.push(at()); press("j"); said.push(at()); press("Escape"); said.push(at());
  press("?"); said.push(document.querySelector("#keys").open); document.querySelector("#keys").close();
  sessionStorage.setItem("said", said.join(" "));
  press("g"); press("n");
} else {
  document.body.dataset.said = sessionStorage.getItem("said");
  await fetch("/console/test/done");
}`, nil)
	dom := chromium(t, "--dump-dom", url+Root+"services")
	if want := `data-said="agent mailer agent q q nothing true"`; !strings.Contains(dom, want) || !strings.Contains(dom, "<title>Nodes ") {
		_, dom, _ = strings.Cut(dom, "<body")
		t.Errorf("there is no %s, or it isn't the page of nodes: %.300s", want, dom)
	}
}

// TestChromium_KeepsSoManyLines: however long a log is followed, the page doesn't grow.
func TestChromium_KeepsSoManyLines(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	url := withScript(t, shop(t), `
const log = document.querySelector(".log");
while (log.lastElementChild?.textContent !== "line 5999") await new Promise((over) => setTimeout(over, 20));
await fetch("/console/test/done");`, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 6000 {
			_, _ = fmt.Fprintf(w, "data: <li>line %d</li>\n\n", i)
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	dom := chromium(t, "--dump-dom", url+Root+"services/shop_web/logs")
	if n := strings.Count(dom, "<li>line "); n != 5000 || !strings.Contains(dom, "<li>line 1000</li>") || !strings.Contains(dom, "Following.") {
		t.Errorf("it keeps %d lines", n)
	}
}

// TestChromium_FitsPhones looks at all pages in frames of 360 px: none is wider.
func TestChromium_FitsPhones(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	b := shop(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			_, _ = fmt.Fprint(w, "<!doctype html><body>")
			for name, path := range shownPages {
				_, _ = fmt.Fprintf(w, `<iframe name="%s" width="360" height="800" src="%s%s"></iframe>`, name, Root, path)
			}
			_, _ = fmt.Fprint(w, `<script>onload = () => { for (const f of document.querySelectorAll("iframe")) document.body.append(" [" + f.name + " " + f.contentDocument.documentElement.scrollWidth + "]"); };</script>`)
			return
		}
		r.Header.Set(GrantHeader, GrantWrite)
		page := httptest.NewRecorder()
		b.console.ServeHTTP(page, r)
		maps.Copy(w.Header(), page.Header())
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'")
		w.WriteHeader(page.Code)
		_, _ = w.Write(page.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	dom := chromium(t, "--dump-dom", server.URL)
	for name := range shownPages {
		if !strings.Contains(dom, "["+name+" 360]") {
			_, dom, _ = strings.Cut(dom, "</script>")
			t.Errorf("%s is wider: %s", name, dom)
		}
	}
}
