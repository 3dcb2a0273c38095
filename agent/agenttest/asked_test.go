package agenttest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/simulate"
	"skep/cluster"
)

// askedEngine is an engine of API 1.44 to 1.47 that has one container and an exec in it, and an exec in
// another container. What is started is cat.
type askedEngine struct {
	socket    string
	container string

	mu    sync.Mutex // guards the field below
	asked []string
}

var ownExec, otherExec = strings.Repeat("a", 64), strings.Repeat("b", 64)

func newAskedEngine(t *testing.T) *askedEngine {
	e := &askedEngine{socket: filepath.Join(t.TempDir(), "engine.sock")}
	listener, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return e
}

func (e *askedEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch path := r.URL.Path; {
	case path == "/version":
		io.WriteString(w, `{"ApiVersion":"1.47","MinAPIVersion":"1.44"}`)
		return
	case path == "/exec/"+ownExec+"/json":
		fmt.Fprintf(w, `{"ID":%q,"ContainerID":%q}`, ownExec, e.container)
		return
	case path == "/exec/"+otherExec+"/json":
		fmt.Fprintf(w, `{"ID":%q,"ContainerID":"another"}`, otherExec)
		return
	case strings.HasPrefix(path, "/exec/"):
		w.WriteHeader(http.StatusNotFound)
		return
	}
	e.mu.Lock()
	e.asked = append(e.asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	e.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/start") && r.Header.Get("Upgrade") == "tcp" {
		conn, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		io.Copy(conn, in)
		io.WriteString(conn, "ended")
		return
	}
	w.Header().Set("Engine", "yes")
	io.WriteString(w, "answered")
}

func (e *askedEngine) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	asked := e.asked
	e.asked = nil
	return asked
}

// askable is a driver with an engine.
type askable struct {
	agent.Driver
	engine *askedEngine
}

func (a askable) DialEngine(context.Context) (net.Conn, error) {
	return net.Dial("unix", a.engine.socket)
}

// caller waits for the agent's calls.
type caller struct {
	*bench
	m     *manager
	calls chan net.Conn
}

// newCaller has an agent run one task, whose container is the engine's, and tells its managers.
func newCaller(t *testing.T, e *askedEngine, wrap func(agent.Driver) agent.Driver) *caller {
	driver := simulate.New(simulate.Config{Hostname: "host1"})
	c := &caller{bench: newRealBench(t, node, wrap(driver)), calls: make(chan net.Conn)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.calls <- conn
		}
	}()
	c.callManager = func(ctx context.Context, managerID string) (net.Conn, error) {
		if managerID != "m1" {
			return nil, errors.New("there is no " + managerID)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}
	c.start()
	c.m = c.accept()
	c.m.keepAlive(t)
	c.m.send(&cluster.FromManager{Peers: &cluster.Peers{Managers: []cluster.Peer{{NodeID: "m1"}}, Role: swarm.NodeRoleWorker}})
	c.m.full(10, task("t1", 5, cluster.StateRunning))
	e.container = c.m.reaches("t1", cluster.StateRunning).ContainerID
	return c
}

// ask sends a request by a call of the agent's, which must come, and gives its answer.
func (c *caller) ask(method, path, body string, header ...string) (net.Conn, *bufio.Reader, *http.Response) {
	c.t.Helper()
	c.m.send(&cluster.FromManager{Engine: "m1"})
	var conn net.Conn
	select {
	case conn = <-c.calls:
	case <-time.After(time.Minute):
		c.t.Fatal("the agent doesn't call")
	}
	c.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s", method, path, len(body), strings.Join(header, ""), body)
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return conn, in, answer
}

// Managers ask of an engine what concerns the node's tasks, and nothing else.
func TestEngine_IsAskedOnlyThat(t *testing.T) {
	e := newAskedEngine(t)
	c := newCaller(t, e, func(d agent.Driver) agent.Driver { return askable{d, e} })
	defer c.stop()
	for path, want := range map[string]string{
		"GET /v1.51/containers/OWN/json":                "GET /v1.47/containers/OWN/json ",
		"GET /v1.45/containers/OWN/logs?follow=1&a=%2F": "GET /v1.45/containers/OWN/logs?follow=1&a=%2F ",
		"GET /v1.24/containers/OWN/top?ps_args=aux":     "GET /v1.44/containers/OWN/top?ps_args=aux ",
		"GET /v1.51/containers/OWN/stats":               "GET /v1.47/containers/OWN/stats ",
		"POST /v1.51/containers/OWN/exec":               "POST /v1.47/containers/OWN/exec {}",
		"POST /v1.51/exec/" + ownExec + "/resize?h=1":   "POST /v1.47/exec/" + ownExec + "/resize?h=1 {}",
		"GET /v1.51/exec/" + ownExec + "/json":          "GET /v1.47/exec/" + ownExec + "/json ",
	} {
		method, path, _ := strings.Cut(strings.ReplaceAll(path, "OWN", e.container), " ")
		body := ""
		if method == http.MethodPost {
			body = "{}"
		}
		_, in, answer := c.ask(method, path, body)
		said, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != 200 || string(said) != "answered" || answer.Header.Get("Engine") != "yes" {
			t.Errorf("%s: %d %s", path, answer.StatusCode, said)
		}
		if asked := e.requests(); len(asked) != 1 || asked[0] != strings.ReplaceAll(want, "OWN", e.container) {
			t.Errorf("%s: the engine was asked %q", path, asked)
		}
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%s: the connection goes on", path)
		}
	}
	for path, want := range map[string]int{
		"GET /v1.51/containers/another/json":                     404,
		"GET /v1.51/containers/" + e.container[:8] + "/json":     404,
		"POST /v1.51/containers/another/exec":                    404,
		"POST /v1.51/exec/" + otherExec + "/start":               404,
		"POST /v1.51/exec/" + strings.Repeat("c", 64) + "/start": 404,
		"POST /v1.51/exec/..%2f..%2fx/start":                     404,
		"GET /v1.51/exec/" + otherExec + "/json":                 404,
		"POST /v1.51/containers/OWN/stop":                        403,
		"GET /v1.51/containers/OWN/archive?path=/":               403,
		"PUT /v1.51/containers/OWN/archive?path=/":               403,
		"DELETE /v1.51/containers/OWN":                           403,
		"POST /v1.51/containers/create":                          403,
		"GET /v1.51/containers/json":                             403,
		"GET /v1.51/info":                                        403,
		"GET /containers/OWN/json":                               403,
	} {
		method, path, _ := strings.Cut(strings.ReplaceAll(path, "OWN", e.container), " ")
		_, _, answer := c.ask(method, path, "")
		var refusal struct{ Message string }
		if err := json.NewDecoder(answer.Body).Decode(&refusal); answer.StatusCode != want || err != nil || refusal.Message == "" {
			t.Errorf("%s %s: %d %+v, want %d", method, path, answer.StatusCode, refusal, want)
		}
		if asked := e.requests(); len(asked) != 0 {
			t.Errorf("%s: the engine was asked %q", path, asked)
		}
	}
}

const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"

// What is typed gets there, its end as well, and what is said after that comes back.
func TestEngine_ExecTakesTheConnection(t *testing.T) {
	e := newAskedEngine(t)
	c := newCaller(t, e, func(d agent.Driver) agent.Driver { return askable{d, e} })
	defer c.stop()
	conn, in, answer := c.ask("POST", "/v1.51/exec/"+ownExec+"/start", `{"Tty":false}`, upgrade)
	if answer.StatusCode != 101 {
		t.Fatalf("%+v", answer)
	}
	fmt.Fprint(conn, "typed ")
	if said, err := in.Peek(6); err != nil || string(said) != "typed " {
		t.Fatalf("%q %v", said, err)
	}
	conn.(*net.TCPConn).CloseWrite()
	if said, err := io.ReadAll(in); err != nil || string(said) != "typed ended" {
		t.Errorf("%q %v", said, err)
	}
}

// An exec outlives the session, but not its manager's being one, nor the agent.
func TestEngine_ExecEndsWith(t *testing.T) {
	for _, with := range []string{"the manager", "the agent", "the session goes on"} {
		t.Run(with, func(t *testing.T) {
			e := newAskedEngine(t)
			c := newCaller(t, e, func(d agent.Driver) agent.Driver { return askable{d, e} })
			stop := sync.OnceFunc(c.stop)
			defer stop()
			conn, in, answer := c.ask("POST", "/v1.51/exec/"+ownExec+"/start", "{}", upgrade)
			if answer.StatusCode != 101 {
				t.Fatalf("%+v", answer)
			}
			peers := &cluster.Peers{Managers: []cluster.Peer{{NodeID: "m1"}, {NodeID: "m2"}}}
			switch with {
			case "the manager":
				peers.Managers = peers.Managers[1:]
				c.m.send(&cluster.FromManager{Peers: peers})
			case "the agent":
				stop()
			default:
				c.m.conn.Close()
				c.m = c.accept()
				c.m.send(&cluster.FromManager{Peers: peers})
				fmt.Fprint(conn, "typed")
				if said, err := in.Peek(5); err != nil || string(said) != "typed" {
					t.Errorf("%q %v", said, err)
				}
				return
			}
			if _, err := in.ReadByte(); err == nil {
				t.Error("it goes on")
			}
		})
	}
}

func TestEngine_OfADriverWithoutOne(t *testing.T) {
	e := newAskedEngine(t)
	c := newCaller(t, e, func(d agent.Driver) agent.Driver { return d })
	defer c.stop()
	_, _, answer := c.ask("GET", "/v1.51/containers/"+e.container+"/json", "")
	if said, _ := io.ReadAll(answer.Body); answer.StatusCode != 501 || !strings.Contains(string(said), "runs no containers that can be asked") {
		t.Errorf("%d %s", answer.StatusCode, said)
	}
}
