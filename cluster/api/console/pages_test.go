package console

import (
	"flag"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// go test ./cluster/api/console -run Golden -rewrite writes what pages have now.
var rewrite = flag.Bool("rewrite", false, "write the expected texts anew")

var (
	shape = regexp.MustCompile(`<i class="s (\w+)"[^>]*?(?: title="([^"]*)")?></i>`)
	bar   = regexp.MustCompile(`<progress value="(\d+)" max="(\d+)">[^<]*</progress>`)
	cell  = regexp.MustCompile(`<(td|th)\b[^>]*>`)
	row   = regexp.MustCompile(`<(tr|p|li|h1|h2|h3|section|form|dt|summary|ol|ul|table|div)\b[^>]*>`)
	tag   = regexp.MustCompile(`<[^>]*>`)
	gaps  = regexp.MustCompile(`[ \t]+`)
)

// textOf is what a page's HTML says, with a word in brackets for each shape.
func textOf(page string) string {
	_, page, _ = strings.Cut(page, "<main")
	page, _, _ = strings.Cut("<main"+page, "</main>")
	page = shape.ReplaceAllString(strings.ReplaceAll(page, "\n", " "), " [$1 $2] ")
	page = bar.ReplaceAllString(page, " [$1/$2] ")
	page = cell.ReplaceAllString(page, " | ")
	page = row.ReplaceAllString(page, "\n")
	page = html.UnescapeString(tag.ReplaceAllString(page, " "))
	var lines []string
	for line := range strings.SplitSeq(page, "\n") {
		if line = strings.TrimSpace(strings.ReplaceAll(gaps.ReplaceAllString(line, " "), " ]", "]")); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestPages_GoldenTexts(t *testing.T) {
	b := shop(t)
	for name, path := range shownPages {
		if name == "raft" {
			continue // How the story is told is cluster/timeline's, and tested there.
		}
		got := textOf(b.get(Root+path, GrantHeader, GrantWrite).Body.String())
		file := filepath.Join("testdata", name+".txt")
		if *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s\n(go test ./cluster/api/console -run Golden -rewrite)", name, got, want)
		}
	}
}

// TestPages_OfAnEmptyCluster says everywhere what there could be.
func TestPages_OfAnEmptyCluster(t *testing.T) {
	b := newBench(t)
	for name, path := range shownPages {
		if strings.Contains(path, "/") {
			continue
		}
		w := b.get(Root + path)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "empty") {
			t.Errorf("%s: got %d %s", name, w.Code, w.Body)
		}
	}
	for _, path := range []string{"services/nonsense", "nodes/<b>x", "services/nonsense/logs", "services/nonsense/logs/live", "services/nonsense/logs/download"} {
		if w := b.get(Root + strings.ReplaceAll(path, "<", "%3C")); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "<b>x") {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
}

func TestPages_Filter(t *testing.T) {
	b := shop(t)
	for _, c := range []struct{ path, has, hasnt string }{
		{"services?q=web", "shop_web", "mailer"},
		{"services?q=SHOP+update", "shop_web", "shop_api"},
		{"services?q=insufficient", "train", "shop_web"},
		{"nodes?q=manager", "m2", ">w1<"},
		{"nodes?q=zone%3Deast", "w2", ">w1<"},
		{"events?q=replicas", "train", "shop_web"},
		{"events?type=node", "drain", "shop_web"},
		{"events?since=4m", "leads now", "train"},
		{"events?since=2026-03-14T11:56:00Z", "leads now", "train"},
		{"events?since=1s", "Nothing fits the filter.", "train"},
		{"events?since=%3Cb%3E", "“&lt;b&gt;” is no time: want 10m", "<b>"},
		{"events?since=4m&type=node&q=m1", `<input type="hidden" name="since" value="4m">`, "shop_web"},
		{"data?q=nginx", "nginx.conf", "tls-key"},
		{"networks?q=front", "shop_front", "nothing of it"},
		{"services/shop_web?q=w3", ">w3<", `<td class="slot">5`},
		{"services?q=%3Cb%3Enothing", "Nothing fits the filter.", "<b>nothing"},
	} {
		body := b.get(Root + c.path).Body.String()
		_, body, _ = strings.Cut(body, "<main")
		if !strings.Contains(body, c.has) || strings.Contains(body, c.hasnt) {
			t.Errorf("%s: there is no %q, or there is %q, in\n%s", c.path, c.has, c.hasnt, textOf(body))
		}
	}
}

// TestPages_AreBounded: no list is longer than people read.
func TestPages_AreBounded(t *testing.T) {
	b := crowd(t, 1000, 10000)
	for _, path := range []string{"services/web", "nodes", "services"} {
		w := b.get(Root + path)
		if w.Code != http.StatusOK || w.Body.Len() > 700_000 || strings.Count(w.Body.String(), "<tr>") > maxRows+10 {
			t.Errorf("%s: %d, %d bytes", path, w.Code, w.Body.Len())
		}
	}
	if body := b.get(Root + "services/web").Body.String(); !strings.Contains(body, "9\u202f500 more aren") {
		t.Error("it isn't said that tasks are left out")
	}
}

// TestPages_ShowOnlyWhatASessionMayDo: without the grant there are no forms that would be refused.
func TestPages_ShowOnlyWhatASessionMayDo(t *testing.T) {
	b := shop(t)
	for _, path := range []string{"services/shop_web", "nodes/w2"} {
		if body := b.get(Root + path).Body.String(); strings.Contains(body, `method="post"`) {
			t.Errorf("%s offers a reader to change something", path)
		}
		if body := b.get(Root+path, GrantHeader, GrantWrite).Body.String(); !strings.Contains(body, `method="post"`) {
			t.Errorf("%s doesn't offer a writer to change something", path)
		}
	}
}

// TestPages_OfServicesByName: who types an address knows names.
func TestPages_OfServicesByName(t *testing.T) {
	b := shop(t)
	named := b.service("kept_id", 1, func(s *cluster.Service) { s.Spec.Name = "by-name" })
	for _, path := range []string{"", "/logs", "/logs/download"} {
		w := b.get(Root + "services/by-name" + path)
		if w.Code != http.StatusOK || path != "/logs/download" && !strings.Contains(w.Body.String(), "/services/"+named.ID) {
			t.Errorf("%q: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestChange_AsksTheAPI(t *testing.T) {
	b := shop(t)
	var asked []string
	refuse := false
	b.api = func(w http.ResponseWriter, r *http.Request) {
		body := new(strings.Builder)
		buffer := make([]byte, 4096)
		for n, err := r.Body.Read(buffer); n > 0 || err == nil; n, err = r.Body.Read(buffer) {
			body.Write(buffer[:n])
		}
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+body.String())
		switch {
		case refuse:
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"message":"update out of <sequence>"}`))
		case r.URL.Path == "/services/shop_web":
			six := uint64(6)
			service := swarm.Service{ID: "shop_web", Meta: swarm.Meta{Version: swarm.Version{Index: 17}}}
			service.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &six}
			service.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "web:1"}
			writeJSON(w, service)
		case strings.HasPrefix(r.URL.Path, "/distribution/"):
			_, _ = w.Write([]byte(`{"Descriptor":{"Digest":"sha256:abc"}}`))
		case r.URL.Path == "/nodes/w2":
			node := swarm.Node{ID: "w2", Meta: swarm.Meta{Version: swarm.Version{Index: 9}}}
			node.Spec.Labels = map[string]string{"zone": "east"}
			writeJSON(w, node)
		default:
			_, _ = w.Write([]byte("{}"))
		}
	}
	post := func(path, form string) *httptest.ResponseRecorder {
		asked = nil
		return b.ask("POST", Root+path, form, GrantHeader, GrantWrite, "Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range []struct{ path, form, back, asks, with string }{
		{"services/shop_web/scale", "replicas=9", "services/shop_web", "POST /services/shop_web/update?version=17 ", `"Replicas":9`},
		{"services/shop_web/image", "image=registry.example.org/web:2", "services/shop_web", "POST /services/shop_web/update?version=17 ", `"Image":"registry.example.org/web:2@sha256:abc"`},
		{"services/shop_web/image", "image=web@sha256:def", "services/shop_web", "POST /services/shop_web/update?version=17 ", `"Image":"web@sha256:def"`},
		{"services/shop_web/restart", "", "services/shop_web", "POST /skep/v1/services/shop_web/restart?version=17 ", ""},
		{"services/shop_web/rollback", "to=1", "services/shop_web", "POST /skep/v1/services/shop_web/rollback?version=17&to=1 ", ""},
		{"services/shop_web/rollback", "", "services/shop_web", "POST /services/shop_web/update?version=17&rollback=previous ", `"Image":"web:1"`},
		{"nodes/w2/availability", "availability=drain", "nodes/w2", "POST /nodes/w2/update?version=9 ", `"Availability":"drain"`},
		{"nodes/w2/label", "name=disk&value=ssd", "nodes/w2", "POST /nodes/w2/update?version=9 ", `"Labels":{"disk":"ssd","zone":"east"}`},
		{"nodes/w2/label", "name=+zone+&value=", "nodes/w2", "POST /nodes/w2/update?version=9 ", `"Labels":{"zone":""}`},
		{"nodes/w2/unlabel", "name=zone", "nodes/w2", "POST /nodes/w2/update?version=9 ", `"Labels":{}`},
	} {
		w := post(c.path, c.form)
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != Root+c.back {
			t.Errorf("%s: got %d %s", c.path, w.Code, w.Body)
		}
		last := asked[len(asked)-1]
		if !strings.HasPrefix(last, c.asks) || !strings.Contains(last, c.with) {
			t.Errorf("%s asked for %s, want %s with %s", c.path, last, c.asks, c.with)
		}
	}
	for _, form := range []string{"replicas=-1", "replicas=x", ""} {
		if w := post("services/shop_web/scale", form); w.Code != http.StatusConflict || len(asked) > 0 {
			t.Errorf("%s: got %d, asked %v", form, w.Code, asked)
		}
	}
	for path, form := range map[string]string{"nodes/w2/label": "name=+&value=x", "nodes/w2/unlabel": "name=", "services/shop_web/image": "image=+"} {
		if w := post(path, form); w.Code != http.StatusConflict || len(asked) > 0 {
			t.Errorf("%s with %s: got %d, asked %v", path, form, w.Code, asked)
		}
	}
	if w := post("nodes/w2/label", "name=a%3Db&value=x"); w.Code != http.StatusConflict || len(asked) > 0 {
		t.Errorf("a name with =: got %d, asked %v", w.Code, asked)
	}
	if w := post("services/shop_web/scale", "replicas=1&more="+strings.Repeat("x", maxForm)); w.Code != http.StatusConflict || len(asked) > 0 {
		t.Errorf("a huge form: got %d, asked %v", w.Code, asked)
	}
	refuse = true
	if w := post("services/shop_web/restart", ""); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "Update out of &lt;sequence&gt;.") {
		t.Errorf("a refusal: %d %s", w.Code, w.Body)
	}
	if w := post("services/shop_web/nonsense", ""); w.Code != http.StatusNotFound {
		t.Errorf("nonsense: %d", w.Code)
	}
	for _, path := range []string{"services/shop_web/scale", "nodes/w2/availability"} {
		asked = nil
		if w := b.ask("POST", Root+path, "replicas=1&availability=drain", "Content-Type", "application/x-www-form-urlencoded"); w.Code != http.StatusForbidden || len(asked) > 0 {
			t.Errorf("%s by who may read: %d, asked %v", path, w.Code, asked)
		}
	}
}

func TestLogs_AreReadAsTheyCome(t *testing.T) {
	b := shop(t)
	body := b.get(Root + "services/shop_web/logs").Body.String()
	for _, want := range []string{"GET /basket/4711 200 3 ms", "40 lines.", "&lt;script&gt;", `class="err"`} {
		if !strings.Contains(body, want) {
			t.Errorf("there is no %q in\n%s", want, body)
		}
	}
	if body := b.get(Root + "services/shop_web/logs?q=502").Body.String(); !strings.Contains(body, "4 lines.") || strings.Contains(body, "4711") {
		t.Errorf("with a filter:\n%s", textOf(body))
	}
	for of, lines := range map[string]int{"1": 27, "3": 13, "w3": 13, "4": 0} { // Their texts have all these figures, too.
		if body := textOf(b.get(Root + "services/shop_web/logs?of=" + of).Body.String()); !strings.Contains(body, plural(lines, "line")+".") {
			t.Errorf("of %s: got\n%s", of, body)
		}
	}
	if body := b.get(Root + "services/mailer/logs").Body.String(); !strings.Contains(body, "Not &lt;here&gt;.") {
		t.Errorf("without logs:\n%s", body)
	}
	w := b.get(Root + "services/shop_web/logs/download")
	if got := w.Body.String(); strings.Count(got, "\n") != 40 || !strings.HasPrefix(got, "2026-03-14 11:59:00.000 ") || w.Header().Get("Content-Disposition") == "" || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got\n%s", got)
	}
	live := b.get(Root + "services/shop_web/logs/live?q=502").Body.String()
	if strings.Count(live, "data: <li") != 4 || strings.Contains(live, "<script>") || !strings.HasSuffix(live, "event: end\ndata: No task is left.\n\n") {
		t.Errorf("got\n%s", live)
	}
}

// TestLogReader_TakesPieces: how an answer is cut on its way says nothing.
func TestLogReader_TakesPieces(t *testing.T) {
	framed := "\x01\x00\x00\x00\x00\x00\x00\x03a b\x02\x00\x00\x00\x00\x00\x00\x02c\n"
	for _, c := range []struct {
		kind, text string
		want       []string
	}{
		{"application/vnd.docker.multiplexed-stream", framed, []string{"a b", "err c\n"}},
		{"application/vnd.docker.raw-stream", "one\ntwo\n", []string{"one\n", "two\n"}},
	} {
		for piece := 1; piece <= len(c.text); piece++ {
			var got []string
			r := &logReader{header: http.Header{}, emit: func(stderr bool, text string) error {
				if stderr {
					text = "err " + text
				}
				got = append(got, text)
				return nil
			}}
			r.header.Set("Content-Type", c.kind)
			for part := range slices.Chunk([]byte(c.text), piece) {
				if n, err := r.Write(part); err != nil || n != len(part) {
					t.Fatalf("write: %d, %v", n, err)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("in pieces of %d: got %q, want %q", piece, got, c.want)
			}
		}
	}
	huge := &logReader{header: http.Header{}, emit: func(bool, string) error { return nil }}
	huge.header.Set("Content-Type", "application/vnd.docker.multiplexed-stream")
	if _, err := huge.Write([]byte("\x01\x00\x00\x00\xff\xff\xff\xff")); err == nil {
		t.Error("a line of 4 GB is waited for")
	}
}

func TestDifferences_HideWhatMayBeSecret(t *testing.T) {
	revision := func(env, command string) *cluster.Revision {
		r := &cluster.Revision{}
		r.Spec.ContainerSpec = &swarm.ContainerSpec{Image: "web:" + env, Env: []string{"TOKEN=" + env}, Command: []string{command}}
		return r
	}
	said := ""
	for _, d := range differences(revision("first-canary", "--password=canary"), revision("next-canary", "--password=another-canary")) {
		if d.Field != "image" {
			said += d.String() + "\n"
		}
	}
	server := func(token string) *cluster.Revision {
		r := revision("", "")
		r.Spec.LogDriver = &swarm.Driver{Name: "splunk", Options: map[string]string{"splunk-token": token}}
		r.Spec.ContainerSpec.Mounts = []mount.Mount{{Target: "/data", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "local", Options: map[string]string{"o": "password=" + token}}}}}
		r.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: "front", DriverOpts: map[string]string{"key": token}}}
		return r
	}
	for _, r := range [][2]*cluster.Revision{{server("first-canary"), server("next-canary")}, {revision("", ""), server("canary")}, {server("canary"), revision("", "")}} {
		for _, d := range differences(r[0], r[1]) {
			said += d.String() + "\n"
		}
	}
	if strings.Contains(said, "canary") || !strings.Contains(said, "environment TOKEN") || !strings.Contains(said, "command") || !strings.Contains(said, "splunk-token") || !strings.Contains(said, "mount /data") {
		t.Errorf("got\n%s", said)
	}
}

func TestSpec_IsWholeWithoutSecrets(t *testing.T) {
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "<web>", Labels: map[string]string{"a": "shown"}}}
	spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Image: "web:1", Command: []string{"canary"}, Args: []string{"-p", "canary"}, Env: []string{"TOKEN=canary=canary", "FROM_NODE"}, Hostname: "shown",
		Healthcheck: &container.HealthConfig{Test: []string{"CMD", "canary"}, Retries: 3},
		Mounts:      []mount.Mount{{Target: "/data", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "nfs", Options: map[string]string{"o": "canary"}}}}},
	}
	spec.TaskTemplate.LogDriver = &swarm.Driver{Name: "splunk", Options: map[string]string{"splunk-token": "canary"}}
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "front", DriverOpts: map[string]string{"key": "canary"}}}
	text := specText(spec)
	if strings.Contains(text, "canary") {
		t.Errorf("it shows a secret:\n%s", text)
	}
	for _, want := range []string{
		`"Name": "<web>"`, `"a": "shown"`, `"TOKEN=•••"`, `"FROM_NODE"`, `"Retries": 3`, `"splunk-token": "•••"`, `"o": "•••"`, `"key": "•••"`, `"Hostname": "shown"`, `"Target": "/data"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
}

// TestRaft_Zooms goes to parts of the past by links alone.
func TestRaft_Zooms(t *testing.T) {
	b := shop(t)
	links := func(path string) (found []string) {
		for _, m := range regexp.MustCompile(`href="(\?[^"]*)"[^>]*>([^<]*)<`).FindAllStringSubmatch(b.get(Root+path).Body.String(), -1) {
			found = append(found, m[2]+" "+html.UnescapeString(m[1]))
		}
		return found
	}
	began := noon.Add(-80*time.Second + 300*time.Millisecond)
	for _, want := range []string{"last 1 min ?last=1m0s", "last 10 min ?last=10m0s", "all that is known ?last=all", "11:58:40.300 ?from=2026-03-14T11%3A58%3A40.05Z&to=2026-03-14T11%3A58%3A"} {
		if !slices.ContainsFunc(links("raft"), func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("there is no link %q in %q", want, links("raft"))
		}
	}
	told, since := b.api, ""
	b.api = func(w http.ResponseWriter, r *http.Request) {
		since = r.URL.Query().Get("since")
		told(w, r)
	}
	if all := b.get(Root + "raft?last=all").Body.String(); !strings.Contains(all, `aria-current="true">all that is known`) || since != "" {
		t.Errorf("all that is known: asked since %q, got\n%s", since, textOf(all))
	}
	near := stretch{from: began.Add(-100 * time.Millisecond), to: began.Add(100 * time.Millisecond)}
	body := b.get(Root + "raft" + near.link()).Body.String()
	for _, want := range []string{"200 ms of 2026-03-14, from 11:58:40.200 to 11:58:40.400 UTC.", "from 11:58:40.200 to 11:58:40.400", ">closer<", ">earlier<"} {
		if !strings.Contains(body, want) {
			t.Errorf("near: there is no %q in\n%s", want, textOf(body))
		}
	}
	if since != "2026-03-14T11:58:40.2Z" {
		t.Errorf("near: asked since %q", since)
	}
	for name, want := range map[string]stretch{
		"closer":  {from: began.Add(-50 * time.Millisecond), to: began.Add(50 * time.Millisecond)},
		"wider":   {from: began.Add(-200 * time.Millisecond), to: began.Add(200 * time.Millisecond)},
		"earlier": {from: began.Add(-200 * time.Millisecond), to: began},
		"later":   {from: began, to: began.Add(200 * time.Millisecond)},
	} {
		if !slices.Contains(links("raft"+near.link()), name+" "+want.link()) {
			t.Errorf("%s: there is no %s in %q", name, want.link(), links("raft"+near.link()))
		}
	}
	for _, query := range []string{"last=7s", "last=-1s", "last=0s", "last=%3Cb%3E", "from=x&to=y", "from=2026-03-14T11:58:40Z", "from=2026-03-14T11:58:40Z&to=2026-03-14T11:58:40Z", "from=0001-01-01T00:00:00Z&to=9999-01-01T00:00:00Z"} {
		w := b.get(Root + "raft?" + query)
		if body := w.Body.String(); w.Code != http.StatusOK || strings.Contains(body, "<b>”") || !strings.Contains(body, "isn’t one of the spans") && !strings.Contains(body, "isn&#39;t one of the spans") && !strings.Contains(body, "From and to are two times") {
			t.Errorf("%s: %d %s", query, w.Code, textOf(body))
		}
	}
}

func TestRaft_ShowsWhatTheManagersDid(t *testing.T) {
	b := shop(t)
	body := b.get(Root + "raft?last=2m0s").Body.String()
	for _, want := range []string{
		`class="timeline"`, "m2", "What m1 did is missing here: it &lt;doesn&#39;t&gt; answer.", `?last=30s`, "40\u202f960", "300 ms", "40 GiB of 100 GiB free",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("there is no %q in\n%s", want, body)
		}
	}
	if strings.Contains(body, "w5<b>") || strings.Contains(body, " style=") || strings.Contains(body, "<style") {
		t.Error("the picture isn't as the policy wants it")
	}
	if w := b.get(Root + "timeline.json?since=x"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"Kind":"ready"`) || w.Header().Get("Content-Disposition") == "" {
		t.Errorf("as JSON: %d %s", w.Code, w.Body)
	}
	if w := b.get(Root + "timeline.svg"); w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "<svg") || w.Header().Get("Content-Type") != "image/svg+xml" {
		t.Errorf("as a picture: %d %s", w.Code, w.Body)
	}
	b.api = nil
	b.clock.set(noon.Add(time.Second))
	if w := b.get(Root + "raft"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `<p class="empty">Not here.`) {
		t.Errorf("without an answer: %d %s", w.Code, w.Body)
	}
}
