package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/versions"

	"skep/cluster"
)

const (
	// engineTimeout bounds small questions to the engine, which is on this machine.
	engineTimeout = 2 * time.Second
	// engineVersionsFor is how long the engine's API versions are cached: it may
	// be replaced by another while we run.
	engineVersionsFor = 15 * time.Second
	// maxEngineAnswer bounds what is read of an answer that is decoded here.
	maxEngineAnswer = 8 << 20
)

// engine is the Docker Engine on this machine.
type engine struct {
	address   string
	base      *url.URL
	transport *http.Transport
	reverse   *httputil.ReverseProxy
	log       *slog.Logger

	mu       sync.Mutex // guards what follows
	min, max string
	until    time.Time
}

// newEngine makes an engine that may or may not be there. An address that makes
// no sense is an engine that never answers, and says why.
func newEngine(address string, log *slog.Logger) *engine {
	e := &engine{address: address, base: &url.URL{Scheme: "http", Host: "docker"}, log: log}
	network, target, _ := strings.Cut(address, "://")
	dialer := &net.Dialer{Timeout: engineTimeout}
	e.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			switch network {
			case "unix", "tcp":
				return dialer.DialContext(ctx, network, target)
			}
			return nil, fmt.Errorf("engine address %q: want unix://PATH or tcp://HOST:PORT", address)
		},
		DisableCompression: true,
		IdleConnTimeout:    30 * time.Second,
		MaxIdleConns:       16, MaxIdleConnsPerHost: 16,
	}
	e.reverse = &httputil.ReverseProxy{
		Rewrite:        e.rewrite,
		Transport:      e.transport,
		FlushInterval:  -1,
		ModifyResponse: noForeignSwarm,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			e.forget()
			e.log.Debug("engine doesn't answer", "path", r.URL.Path, "error", err)
			writeJSON(w, http.StatusServiceUnavailable, errorBody{Message: e.away(err).Error()})
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return e
}

// away says that the engine doesn't answer.
func (e *engine) away(err error) error {
	if e.address == "" {
		return fail(cluster.ErrUnavailable, "this node has no local Docker Engine to ask")
	}
	return fail(cluster.ErrUnavailable, "the local Docker Engine at %s doesn't answer: %v", e.address, err)
}

// proxy passes a request on to the engine as it is, in an API version that the
// engine knows. Streams in both directions and hijacked connections work.
func (e *engine) proxy(w http.ResponseWriter, r *http.Request) {
	e.reverse.ServeHTTP(w, r)
}

// rewrite aims a request at the engine. The escaped path is kept as it came.
func (e *engine) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(e.base)
	r.Out.Host = "docker"
	escaped := r.In.URL.EscapedPath()
	if version, rest := splitVersion(escaped); version != "" {
		escaped = "/v" + e.negotiateVersion(r.In.Context(), version) + rest
	}
	if path, err := url.PathUnescape(escaped); err == nil {
		r.Out.URL.Path, r.Out.URL.RawPath = path, escaped
	}
	if agent, ok := r.In.Header["User-Agent"]; ok {
		r.Out.Header["User-Agent"] = agent
	}
}

// negotiateVersion gives the API version, as close to the wanted one as the engine has.
func (e *engine) negotiateVersion(ctx context.Context, wanted string) string {
	low, high := e.versions(ctx)
	switch {
	case high != "" && versions.GreaterThan(wanted, high):
		return high
	case low != "" && versions.LessThan(wanted, low):
		return low
	}
	return wanted
}

// versions gives the engine's oldest and newest API version; empty when unknown.
func (e *engine) versions(ctx context.Context) (low, high string) {
	e.mu.Lock()
	low, high, until := e.min, e.max, e.until
	e.mu.Unlock()
	if time.Now().Before(until) { // age of a cache: no decision hangs on this clock
		return low, high
	}
	var answer struct{ ApiVersion, MinAPIVersion string }
	if err := e.get(ctx, "/version", nil, &answer); err != nil {
		return low, high
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.min, e.max, e.until = answer.MinAPIVersion, answer.ApiVersion, time.Now().Add(engineVersionsFor)
	return e.min, e.max
}

// forget makes the next request ask for the engine's versions again.
func (e *engine) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.until = time.Time{}
}

// get asks the engine a small question and decodes the answer. The engine's own
// refusal comes back as a *passedOn.
func (e *engine) get(ctx context.Context, path string, header http.Header, v any) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	answer, err := e.open(ctx, path, header)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return decodeAnswer(answer, v)
}

// ask has the engine do something, without a body, until ctx ends.
func (e *engine) ask(ctx context.Context, method, path string, v any) error {
	answer, err := e.exchange(ctx, method, path, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return decodeAnswer(answer, v)
}

// decodeAnswer reads the JSON of an engine's answer.
func decodeAnswer(answer *http.Response, v any) error {
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxEngineAnswer)).Decode(v); err != nil {
		return fail(cluster.ErrUnavailable, "read the engine's answer: %v", err)
	}
	return nil
}

// open asks the engine and returns its answer, to be read and closed.
func (e *engine) open(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return e.exchange(ctx, http.MethodGet, path, header)
}

func (e *engine) exchange(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	if e.address == "" {
		return nil, e.away(nil)
	}
	request, err := http.NewRequestWithContext(ctx, method, e.base.String()+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the engine: %w", err)
	}
	for key, values := range header {
		request.Header[key] = values
	}
	answer, err := e.transport.RoundTrip(request)
	if err != nil {
		return nil, e.away(err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		return nil, refusalOf(answer, "the local Docker Engine")
	}
	return answer, nil
}

// refusalOf reads the refusal of an engine.
func refusalOf(answer *http.Response, who string) error {
	var body errorBody
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxEngineAnswer)).Decode(&body); err != nil || body.Message == "" {
		body.Message = who + " answered " + answer.Status
	}
	return &passedOn{status: answer.StatusCode, message: body.Message}
}

// passedOn is the refusal of another, of the engine or the leader, passed on with its status.
type passedOn struct {
	status  int
	message string
}

func (e *passedOn) Error() string { return e.message }
