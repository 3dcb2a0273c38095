package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	pathpkg "path"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/versions"
	"golang.org/x/sync/semaphore"

	"skep/cluster"
	"skep/cluster/api/console"
	"skep/cluster/imagewatch"
)

// Server serves the API of one node.
type Server struct {
	Config
	engine *engine
	// engines is the way to other nodes' engines.
	engines *http.Transport
	events  *recorder
	audit   *audit
	routes  []route
	// console has the pages, and codes let browsers in.
	console *console.Console
	codes   *console.Codes
	// images looks after the images of services, while this manager leads.
	images *imagewatch.Watcher
	scrape http.Handler
	// scraping is the one place for a scrape.
	scraping chan struct{}

	lists    chan struct{} // the places for large lists
	listWait time.Duration // how long one waits for a place

	// logBytes is what of logBudget is taken.
	logBytes *semaphore.Weighted

	patience patience
	// failures and odd count what goes wrong with requests, and what is odd about them.
	failures, odd cluster.Seldom
}

// New makes a Server. Run must run beside it for events.
func New(config Config) *Server {
	if config.MaxBody == 0 {
		config.MaxBody = 2 << 20
	}
	if config.Hold == 0 {
		config.Hold = 10 * time.Second
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Random == nil {
		config.Random = rand.Reader
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Config: config, events: newRecorder(), audit: newAudit(config.Now()), scraping: make(chan struct{}, 1), lists: make(chan struct{}, maxLargeLists), listWait: listWait, logBytes: semaphore.NewWeighted(logBudget), patience: defaultPatience}
	s.engine = newEngine(config.Engine, config.Log)
	s.codes = &console.Codes{Now: config.Now, Random: config.Random}
	s.engines = s.newEngines()
	s.routes = s.table()
	s.console = s.newConsole()
	s.images = s.newImageWatch()
	s.scrape = s.newScrape()
	return s
}

// Local serves the node's own sockets: everything. Whoever reaches them is
// trusted as one who may use the local engine, which is as much as root.
func (s *Server) Local() http.Handler { return s.guard(s.local) }

// Remote serves the other managers: the leader's routes, executed here if this
// manager leads and refused otherwise. The caller has checked that the peer is
// a manager, and has cut the prefix /v1/api from the path.
func (s *Server) Remote() http.Handler { return s.guard(s.remote) }

// call is a request whose path and version have been understood.
type call struct {
	http    *http.Request // as it came
	version string        // as asked for, or APIVersion
	path    string        // without the version
	route   *route        // nil: nobody here serves it
	vars    func(name string) string
}

// guard does what every request needs: headers, version check, route, and an
// answer instead of a crash.
func (s *Server) guard(next func(http.ResponseWriter, *http.Request, call)) http.Handler {
	mux := s.dispatch(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := newTracked(w, s.patience)
		defer func() {
			fault := recover()
			out.ended()
			if out.late {
				s.late(r, "it takes nothing of its answer")
			}
			if fault != nil {
				if fault == http.ErrAbortHandler {
					panic(fault)
				}
				s.Log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
				if out.wrote {
					panic(http.ErrAbortHandler) // so that the client doesn't take the part it got for the whole
				}
				s.writeError(out, r, errors.New("internal error: see the daemon's log"))
			}
		}()
		header := w.Header()
		header.Set("Server", "Docker/"+s.Version+" ("+runtime.GOOS+")")
		header.Set("Api-Version", APIVersion)
		header.Set("Ostype", runtime.GOOS)
		version, path := splitVersion(r.URL.Path)
		if version == "" {
			version = APIVersion
		}
		if versions.GreaterThan(version, APIVersion) {
			s.writeError(out, r, fail(cluster.ErrInvalid, "client version %s is too new. Maximum supported API version is %s", version, APIVersion))
			return
		}
		if versions.LessThan(version, MinAPIVersion) {
			s.writeError(out, r, fail(cluster.ErrInvalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, MinAPIVersion))
			return
		}
		if unclean(r.URL.Path, path) {
			s.writeError(w, r, fail(cluster.ErrInvalid, "invalid path: write it without empty parts, . and .."))
			return
		}
		if s.Metrics != nil {
			out.streams = s.Metrics.API.Streams.Of(streamKind(path))
		}
		c := call{http: r, version: version, path: path}
		if ask := forMux(r, path); ask != nil {
			mux.ServeHTTP(out, ask.WithContext(context.WithValue(r.Context(), callKey{}, c)))
		} else {
			next(out, r, c)
		}
		out.extend() // for what the server itself has yet to write
	})
}

// unclean tells of a path that somebody on the way would make another one of: as it is
// here, or as the engine or the leader understands it. Those with empty parts only are
// left to the engine unless they could be ours: some clients write names with a slash.
func unclean(whole, path string) bool {
	for _, part := range strings.Split(whole, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	clean := pathpkg.Clean("/" + whole)
	if clean == strings.TrimSuffix(whole, "/") || whole == "/" {
		return false // What ends with a slash is another page, which isn't there.
	}
	_, rest := splitVersion(clean)
	return swarmPaths[firstPart(path)] || swarmPaths[firstPart(rest)]
}

// splitVersion cuts /v1.41 off a path.
func splitVersion(path string) (version, rest string) {
	first, after, more := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	digits, ok := strings.CutPrefix(first, "v")
	if !ok || digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return "", path
	}
	if !more {
		return digits, "/"
	}
	return digits, "/" + after
}

// readBody reads the body within the limits of size and time.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	control := http.NewResponseController(w)
	// The deadline is the connection's, so it is by its clock and not by ours. Not every
	// writer has deadlines (tests' have none); the limit of size holds anyway.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, fail(errTooLarge, "request body too large: the limit is %d bytes", s.MaxBody)
	case err != nil:
		return nil, fail(cluster.ErrInvalid, "read request body: %v", err)
	}
	return body, nil
}

// request completes a call to what handlers get.
func (s *Server) request(w http.ResponseWriter, r *http.Request, c call) (*request, error) {
	if n := len(r.Header.Get(registry.AuthHeader)); n > maxAuth {
		return nil, fail(errBeyond, "%s: has %d bytes, more than %d: log in with a shorter token", registry.AuthHeader, n, maxAuth)
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	query, err := parseQuery(r)
	if err != nil {
		return nil, err
	}
	return &request{http: r, version: c.version, vars: c.vars, query: query, body: body}, nil
}

// write sends a handler's answer.
func (s *Server) write(ctx context.Context, w http.ResponseWriter, r *http.Request, answer response) {
	switch {
	case answer.engine:
		s.pass(w, r)
	case answer.stream != nil:
		waitAsForStream(w)
		answer.stream(ctx, w)
	case answer.list != nil:
		s.writeList(ctx, w, r, max(answer.status, http.StatusOK), answer.list)
	case answer.body != nil:
		writeJSON(w, max(answer.status, http.StatusOK), answer.body)
	default:
		w.WriteHeader(max(answer.status, http.StatusOK))
	}
}

// pass passes a request on to the engine.
func (s *Server) pass(w http.ResponseWriter, r *http.Request) {
	waitAsForStream(w) // as it may be
	s.engine.proxy(w, r)
}

// late notes that a client is cut off, now and then: it may ask again at once.
func (s *Server) late(r *http.Request, why string) {
	if unsaid, due := s.odd.Due(s.Now(), why); due {
		s.Log.Warn("cut a client off that is too slow", "why", why, "method", r.Method, "path", brief(r.URL.Path), "unsaid", unsaid)
	}
}

// brief is as much of a text of a client's as the log needs.
func brief(text string) string { return text[:min(len(text), 200)] }

// writeError answers with an error.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	var others *passedOn // which is in the log of who refused
	if status == http.StatusInternalServerError && !errors.Is(err, cluster.ErrConflict) && !errors.As(err, &others) {
		if unsaid, due := s.failures.Due(s.Now(), r.Method+brief(r.URL.Path)); due {
			s.Log.Error("request failed", "method", r.Method, "path", brief(r.URL.Path), "error", err, "unsaid", unsaid)
		}
	} else {
		s.Log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	if errors.Is(err, cluster.ErrNotLeader) && !errors.Is(err, cluster.ErrUnknownOutcome) {
		w.Header().Set(notLeaderHeader, "1")
	}
	writeJSON(w, status, errorBody{Message: err.Error()})
}
