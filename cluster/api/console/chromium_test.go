package console

import (
	"context"
	"flag"
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
