package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
)

// fakeEngine is an engine of API 1.41 that remembers what it was asked.
type fakeEngine struct {
	path string

	mu    sync.Mutex
	asked []string
	// bodies are what it was sent of containers and endpoints, and refuses is set while it refuses these.
	bodies  []string
	refuses bool
	hang    bool
	// networks are what it lists. It doesn't filter them.
	networks []network.Inspect
}

func newFakeEngine(t *testing.T) *fakeEngine {
	e := &fakeEngine{path: filepath.Join(t.TempDir(), "docker.sock")}
	listener, err := net.Listen("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return e
}

func (e *fakeEngine) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.asked...)
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	hang := e.hang
	e.asked = append(e.asked, r.Method+" "+r.URL.RequestURI())
	networks := append([]network.Inspect{}, e.networks...)
	e.mu.Unlock()
	path := r.URL.EscapedPath()
	switch {
	case strings.HasSuffix(path, "/containers/create") && e.attaches(w, r), strings.HasSuffix(path, "/connect") && e.attaches(w, r):
	case strings.HasSuffix(path, "/containers/box/json"):
		io.WriteString(w, `{"Id":"c0ffee","Name":"/box","Config":{"Labels":{}}}`)
	case strings.HasSuffix(path, "/containers/task/json"):
		io.WriteString(w, `{"Id":"c1","Name":"/web.1.x","Config":{"Labels":{"com.docker.swarm.task":""}}}`)
	case path == "/version":
		writeJSON(w, 200, types.Version{APIVersion: "1.41", MinAPIVersion: "1.12", Version: "20.10", Components: []types.ComponentVersion{{Name: "Engine", Version: "20.10"}}})
	case hang:
		<-r.Context().Done()
	case path == "/v1.41/containers/json" && strings.Contains(r.URL.Query().Get("filters"), "is-task"):
		io.WriteString(w, "[]") // it is in no swarm
	case path == "/v1.41/containers/json" && r.URL.Query().Has("filters") && r.URL.Query().Get("filters") == "" && !r.URL.Query().Has("limit"):
		io.WriteString(w, `[{"ID":"t1","Labels":{"com.docker.swarm.task":""}},{"ID":"c1","Labels":{"a":"b"}},{"ID":"t2","Labels":{"com.docker.swarm.task":"","a":"b"}},{"ID":"c2","Labels":null}]`)
	case strings.HasSuffix(path, "/networks") && r.Method == http.MethodGet:
		writeJSON(w, 200, networks)
	case strings.HasSuffix(path, "/networks/prune"):
		writeJSON(w, 200, network.PruneReport{NetworksDeleted: []string{"of-engine"}})
	case r.Method == http.MethodGet && slices.ContainsFunc(networks, func(n network.Inspect) bool { return strings.HasSuffix(path, "/networks/"+n.ID) }):
		writeJSON(w, 200, networks[slices.IndexFunc(networks, func(n network.Inspect) bool { return strings.HasSuffix(path, "/networks/"+n.ID) })])
	case strings.HasSuffix(path, "/networks/shared"):
		writeJSON(w, 404, errorBody{Message: "network shared not found"})
	case strings.HasSuffix(path, "/networks/create"):
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.Contains(string(body), `"weave"`): // a plugin whose networks are the swarm's
			writeJSON(w, 503, errorBody{textNoSwarm})
		case strings.Contains(string(body), `"broken"`):
			writeJSON(w, 503, errorBody{"plugin broken doesn't answer"})
		default:
			fmt.Fprintf(w, "engine: %s %s %s", r.Method, r.URL.RequestURI(), body)
		}
	case path == "/v1.41/info":
		io.WriteString(w, `{"Name":"engine","Odd":[1,2],"Swarm":{"NodeID":"not ours","LocalNodeState":"active"},"Warnings":["w1"]}`)
	case strings.HasSuffix(path, "/events"):
		// The engine takes an event's time before it queues it, so two may change places.
		for _, e := range []events.Message{{Action: "start", TimeNano: 5}, {Action: "mount", TimeNano: 4}} {
			query, at := r.URL.Query(), stamp(time.Unix(0, e.TimeNano))
			if query.Get("since") <= at && (!query.Has("until") || at <= query.Get("until")) {
				e.Type, e.Scope, e.Actor.ID = "container", "local", "c1"
				json.NewEncoder(w).Encode(e)
			}
		}
		json.NewEncoder(w).Encode(events.Message{Type: "service", Action: "create", Scope: "swarm", TimeNano: 6, Actor: events.Actor{ID: "foreign"}})
		w.(http.Flusher).Flush()
		if r.URL.Query().Get("until") == "" {
			<-r.Context().Done()
		}
	case strings.HasPrefix(path, "/v1.41/distribution/"):
		if r.Header.Get("X-Registry-Auth") != "credentials" {
			writeJSON(w, 403, errorBody{"denied"})
			return
		}
		io.WriteString(w, `{"Descriptor":{"digest":"sha256:abc"},"Platforms":[]}`)
	case strings.HasSuffix(path, "/attach"):
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		input, _ := io.ReadAll(buffered) // until the client has no more to say
		fmt.Fprintf(conn, "heard %s", input)
	case strings.HasSuffix(path, "/load"):
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d bytes", n)
	default:
		fmt.Fprintf(w, "engine: %s %s", r.Method, r.URL.RequestURI())
	}
}

// attaches answers what puts a container on networks of the cluster; false for others.
func (e *fakeEngine) attaches(w http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(body), "IPAMConfig") {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bodies = append(e.bodies, string(body))
	if e.refuses {
		writeJSON(w, 409, errorBody{"the container name is in use"})
	} else {
		writeJSON(w, 201, map[string]string{"Id": "c0ffee"})
	}
	return true
}

func newEngineBench(t *testing.T) (*bench, *fakeEngine) {
	e := newFakeEngine(t)
	return newBench(t, func(c *Config) { c.Engine = "unix://" + e.path }), e
}

func TestProxyRewritesVersions(t *testing.T) {
	b, _ := newEngineBench(t)
	for path, want := range map[string]string{
		"/v1.51/containers/json?all=1":      "GET /v1.41/containers/json?all=1",
		"/v1.30/containers/json":            "GET /v1.30/containers/json",
		"/containers/json":                  "GET /containers/json",
		"/v1.51/images/a%2Fb/json":          "GET /v1.41/images/a%2Fb/json",
		"/v1.51/networks/bridge":            "GET /v1.41/networks/bridge",
		"/v1.51/containers/x/json?a=%7B%7D": "GET /v1.41/containers/x/json?a=%7B%7D",
		"/v1.51":                            "GET /v1.41/",
	} {
		b.do("GET", path, nil).want(t, 200, "engine: "+want)
	}
	b.do("POST", "/v1.51/networks/create", map[string]string{"Name": "n", "Driver": "bridge"}).want(t, 200, "engine: POST /v1.41/networks/create")
	b.do("POST", "/v1.51/auth", map[string]string{}).want(t, 200, "engine: POST /v1.41/auth")
	// Bodies for the engine have no limit of ours.
	b.server.MaxBody = 10
	b.do("POST", "/v1.51/images/load", strings.Repeat("x", 100_000)).want(t, 200, "100000 bytes")
}

// TestNetworks_OfGlobalPlugins: the engine takes them for its own swarm's, and says to make one.
func TestNetworks_OfGlobalPlugins(t *testing.T) {
	b, _ := newEngineBench(t)
	for _, path := range []string{"/v1.51/networks/create", "/networks/create"} {
		if got := b.do("POST", path, map[string]string{"Name": "n", "Driver": "weave"}).want(t, 501, "plugins of global scope"); strings.Contains(got.body, "swarm init") {
			t.Error(got.body)
		}
		b.do("POST", path, map[string]string{"Name": "n", "Driver": "broken"}).want(t, 503, "plugin broken doesn't answer")
		b.do("POST", path, map[string]string{"Name": "n", "Driver": "macvlan"}).want(t, 200, "engine: POST")
	}
}

func TestInfoFromEngine(t *testing.T) {
	b, e := newEngineBench(t)
	b.node.info.Warnings = []string{"w2"}
	var info map[string]any
	b.do("GET", "/v1.51/info", nil).want(t, 200, "").into(t, &info)
	if swarm := info["Swarm"].(map[string]any); swarm["NodeID"] != nodeID(1) || info["Name"] != "engine" || info["Odd"] == nil || fmt.Sprint(info["Warnings"]) != "[w1 w2]" {
		t.Fatalf("%v", info)
	}
	var version types.Version
	b.do("GET", "/version", nil).want(t, 200, "").into(t, &version)
	if version.Version != "20.10" || version.APIVersion != "1.51" || len(version.Components) != 2 {
		t.Fatalf("%+v", version)
	}
	// An engine that hangs doesn't hang us.
	e.mu.Lock()
	e.hang = true
	e.mu.Unlock()
	began := time.Now()
	b.do("GET", "/info", nil).want(t, 200, `"Name":"n1"`)
	if took := time.Since(began); took > 10*engineTimeout {
		t.Errorf("took %s", took)
	}
}

func TestDistribution(t *testing.T) {
	b, e := newEngineBench(t)
	b.do("GET", "/v1.51/distribution/registry.example:5000/a/b:1.0/json", nil, "X-Registry-Auth", "credentials").want(t, 200, "sha256:abc")
	b.do("GET", "/distribution/a/json", nil).want(t, 403, "denied")
	if got := e.requests(); !strings.Contains(strings.Join(got, "\n"), "/v1.41/distribution/registry.example:5000/a/b:1.0/json") {
		t.Errorf("%q", got)
	}
}

// TestHijack sends a command through whose output begins after its input ended.
func TestHijack(t *testing.T) {
	b, _ := newEngineBench(t)
	path, _ := listen(t, b.handler, time.Second, 4)
	conn := dial(t, path).(*net.UnixConn)
	fmt.Fprintf(conn, "POST /v1.51/containers/x/attach?stream=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != 101 || response.Header.Get("Upgrade") != "tcp" {
		t.Fatalf("%+v %v", response, err)
	}
	fmt.Fprint(conn, "hello")
	conn.CloseWrite()
	if output, err := io.ReadAll(reader); err != nil || string(output) != "heard hello" {
		t.Fatalf("%q %v", output, err)
	}
}

func TestEngineAway(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Engine = "unix:///nowhere/docker.sock" })
	b.do("GET", "/v1.51/containers/json", nil).want(t, 503, "the local Docker Engine at unix:///nowhere/docker.sock doesn't answer")
	b.do("GET", "/distribution/a/json", nil).want(t, 503, "doesn't answer")
	b.do("GET", "/info", nil).want(t, 200, "doesn't answer")
	b = newBench(t, func(c *Config) { c.Engine = "ftp://x" })
	b.do("GET", "/containers/json", nil).want(t, 503, "want unix://PATH or tcp://HOST:PORT")
}
