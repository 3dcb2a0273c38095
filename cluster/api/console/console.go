package console

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"

	"skep/cluster"
	"skep/cluster/timeline"
	"skep/store"
)

// Root is where the console is served, and Static where its style and script are, which show nothing.
const (
	Root   = "/console/"
	Static = Root + "static/"
)

// GrantHeader says what whoever asks may do: GrantRead or GrantWrite. The Proxy sets it, and
// lets none through. Whoever reaches the socket by another way could ask the API itself, so
// it is no secret; without it nothing is shown, so that no page of a browser gets here by
// another way than the Proxy's.
const (
	GrantHeader = "Skep-Console"
	GrantRead   = "read"
	GrantWrite  = "write"
)

// contentPolicy lets a page have what this package serves, and nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"

// Manager is what the console needs of the manager on this node.
type Manager interface {
	NodeID() string
	Store() *store.Store
	Health() cluster.ManagerHealth
	LeaderID() string
	// Changed gives a channel that is closed at the next change of what LeaderID says.
	Changed() <-chan struct{}
	Status(ctx context.Context, digests bool) (cluster.Status, error)
}

// Config says what a Console works with. All but Log is required.
type Config struct {
	// Manager is nil unless the node is a manager now, and ManagerChanged gives a channel that
	// is closed at the next change of that.
	Manager        func() Manager
	ManagerChanged func() <-chan struct{}
	// NotManager says why Manager is nil.
	NotManager func() error
	// API serves the node's API: what the leader knows, logs, and all that changes anything.
	API http.Handler
	// Events are the last ones that happened in the cluster, the oldest first.
	Events func() []*events.Message
	Now    func() time.Time
	Log    *slog.Logger
}

// Console serves the pages.
type Console struct {
	Config
	mux       *http.ServeMux
	templates *template.Template
	parts     partCache
	hub       hub
	// What others say: how the cluster is, what the managers did, what tasks use.
	statuses  answers[cluster.Status]
	timelines answers[timeline.Timeline]
	charts    answers[usageShown]
}

//go:embed templates static
var files embed.FS

// New makes a Console. It runs nothing until somebody looks.
func New(config Config) *Console {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Console{Config: config, mux: http.NewServeMux()}
	c.templates = template.Must(template.New("").Funcs(c.functions()).ParseFS(files, "templates/*.html"))
	c.hub.console = c
	c.statuses = answers[cluster.Status]{now: c.Now, most: 1, old: staleLimit}
	c.timelines = answers[timeline.Timeline]{now: c.Now, most: keptTimelines, old: staleLimit}
	c.charts = answers[usageShown]{now: c.Now, most: keptCharts, old: cluster.UsageEvery + staleLimit}
	c.routes()
	return c
}

// routes lists the pages.
func (c *Console) routes() {
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // It is embedded.
	}
	c.mux.HandleFunc("GET "+Root+"static/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		data, err := fs.ReadFile(static, name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Etag", etag(data))
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
	})
	for pattern, show := range map[string]func(*look) (page, error){
		"{$}": overview, "services": servicesPage, "services/{id}": c.servicePage, "nodes": nodesPage, "nodes/{id}": nodePage,
		"networks": networksPage, "stacks": stacksPage, "events": eventsPage, "data": dataPage, "raft": c.raftPage,
	} {
		c.mux.HandleFunc("GET "+Root+pattern, func(w http.ResponseWriter, r *http.Request) { c.servePage(w, r, show) })
	}
	c.mux.HandleFunc("GET "+Root+"live", c.serveLive)
	c.mux.HandleFunc("GET "+Root+"timeline.json", c.serveTimeline(false))
	c.mux.HandleFunc("GET "+Root+"timeline.svg", c.serveTimeline(true))
	c.mux.HandleFunc("GET "+Root+"services/{id}/logs", c.serveLogs)
	c.mux.HandleFunc("GET "+Root+"services/{id}/logs/live", c.followLogs)
	c.mux.HandleFunc("GET "+Root+"services/{id}/logs/download", c.downloadLogs)
	for pattern, change := range c.changes() {
		c.mux.HandleFunc("POST "+Root+pattern, func(w http.ResponseWriter, r *http.Request) { c.serveChange(w, r, change) })
	}
	c.mux.HandleFunc(Root, func(w http.ResponseWriter, r *http.Request) {
		c.Refuse(w, http.StatusNotFound, "There is no such page.")
	})
}

// ServeHTTP serves all under Root.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	keepOut(w.Header())
	switch grant := r.Header.Get(GrantHeader); {
	case grant != GrantRead && grant != GrantWrite:
		http.Error(w, "The console is opened with \"skep console\".", http.StatusForbidden)
		return
	case grant != GrantWrite && r.Method != http.MethodGet:
		http.Error(w, "This console only shows: to change something, open it with \"skep console --write\".", http.StatusForbidden)
		return
	}
	c.mux.ServeHTTP(w, r)
}

// keepOut has browsers keep other pages out of this one.
func keepOut(header http.Header) {
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// servePage shows a page, or the parts of it that are asked for.
func (c *Console) servePage(w http.ResponseWriter, r *http.Request, show func(*look) (page, error)) {
	if c.Manager() == nil {
		c.Refuse(w, http.StatusServiceUnavailable, "This node has no copy of the cluster's database to show: "+c.NotManager().Error())
		return
	}
	parts := strings.Fields(r.Header.Get(partsHeader))
	key := strings.Join([]string{r.Header.Get(GrantHeader), r.URL.RequestURI(), strings.Join(parts, " ")}, "\x00")
	body, err := c.parts.get(key, c.Now, func() ([]byte, error) {
		look, err := c.look(r)
		if err != nil {
			return nil, err
		}
		defer look.done()
		page, err := show(look)
		if err != nil {
			return nil, err
		}
		return c.render(look, page, parts)
	})
	switch {
	case errors.Is(err, cluster.ErrNotFound):
		c.Refuse(w, http.StatusNotFound, err.Error())
		return
	case err != nil:
		c.Log.Error("page can't be made", "path", r.URL.Path, "error", err)
		c.Refuse(w, http.StatusInternalServerError, "This page can't be made; the daemon's log says why.")
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	if tag := etag(body); len(parts) > 0 {
		header.Set("Etag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	_, _ = w.Write(body) // The browser may have gone.
}

// refuseChange shows why nothing was changed.
func (c *Console) refuseChange(w http.ResponseWriter, back string, why error) {
	var body bytes.Buffer
	if err := c.templates.ExecuteTemplate(&body, "changed", struct{ Why, Back string }{sentence(why.Error()), back}); err != nil {
		http.Error(w, why.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusConflict)
	_, _ = w.Write(body.Bytes()) // The browser may have gone.
}

// Refuse shows a page that says why there is none.
func (c *Console) Refuse(w http.ResponseWriter, status int, why string) {
	keepOut(w.Header())
	why = sentence(why)
	var body bytes.Buffer
	if err := c.templates.ExecuteTemplate(&body, "refusal", why); err != nil {
		http.Error(w, why, status)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // The browser may have gone.
}

// render makes the page, or those of its sections that parts names.
func (c *Console) render(l *look, p page, parts []string) ([]byte, error) {
	var body bytes.Buffer
	if len(parts) == 0 {
		err := c.templates.ExecuteTemplate(&body, "page", framed{frame: l.frame(), page: p})
		return body.Bytes(), err
	}
	for _, id := range parts {
		if id == healthPart {
			if err := c.templates.ExecuteTemplate(&body, "health", l.frame()); err != nil {
				return nil, err
			}
			continue
		}
		for _, s := range p.Sections {
			if s.ID == id {
				if err := c.templates.ExecuteTemplate(&body, "section", s); err != nil {
					return nil, err
				}
			}
		}
	}
	return body.Bytes(), nil
}

// functions are what templates call.
func (c *Console) functions() template.FuncMap {
	return template.FuncMap{
		// show renders the template that a section names.
		"show": func(name string, data any) (template.HTML, error) {
			var body bytes.Buffer
			err := c.templates.ExecuteTemplate(&body, name, data)
			return template.HTML(body.String()), err
		},
		"count":  count[int],
		"plural": plural,
		"nav":    func() []entry { return entries },
		"short":  short,
		"tails":  func() []int { return []int{100, defaultTail, 1000, maxTail} },
	}
}

// entry is a line of the navigation; Letter follows g on the keyboard.
type entry struct{ Key, Name, Link, Letter string }

var entries = []entry{
	{"overview", "Overview", Root, "o"},
	{"services", "Services", Root + "services", "s"},
	{"nodes", "Nodes", Root + "nodes", "n"},
	{"raft", "Raft", Root + "raft", "r"},
	{"networks", "Networks", Root + "networks", "w"},
	{"stacks", "Stacks", Root + "stacks", "t"},
	{"data", "Secrets, configs", Root + "data", "c"},
	{"events", "Events", Root + "events", "e"},
}

// etag is a mark of what is sent.
func etag(data []byte) string {
	sum := fnv.New64a()
	_, _ = sum.Write(data) // It can't fail.
	return fmt.Sprintf(`"%x"`, sum.Sum64())
}
