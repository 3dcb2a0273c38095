package console

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pictures is where TestChromium leaves its pictures, for people to look at:
// go test ./cluster/api/console -run Chromium -pictures DIR.
var pictures = flag.String("pictures", "", "keep pictures of the pages in this folder")

var only = flag.String("only", "", "pictures of this page only")

// chromiumLimit is how long a picture may take on a machine that does much else.
const chromiumLimit = time.Minute

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
	"overview": "", "services": "services", "service": "services/shop_web", "waiting": "services/train", "nodes": "nodes", "node": "nodes/w2", "networks": "networks",
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

// TestChromium_NeedsNoScript reads a page as a browser without scripts has it.
func TestChromium_NeedsNoScript(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	b := shop(t)
	dom := chromium(t, "--dump-dom", "--blink-settings=scriptEnabled=false", b.served(GrantRead)+Root)
	for _, want := range []string{"Node w5 (w5) is down", "shop_web", "leads now", "m2"} {
		if !strings.Contains(dom, want) {
			t.Errorf("there is no %q in\n%s", want, dom)
		}
	}
}
