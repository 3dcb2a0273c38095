package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// boxes is an engine with some containers, by ID: their labels. It remembers what it was asked of
// them. What is started in one is cat.
type boxes struct {
	name, path string
	labels     map[string]string

	mu    sync.Mutex // guards the field below
	asked []string
}

var madeExecID = strings.Repeat("e", 64)

func newBoxes(t *testing.T, name string, labels map[string]string) *boxes {
	e := &boxes{name: name, path: filepath.Join(t.TempDir(), "docker.sock"), labels: labels}
	listener, err := net.Listen("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return e
}

func (e *boxes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, path := splitVersion(r.URL.Path)
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if path == "/version" {
		io.WriteString(w, `{"ApiVersion":"1.47","MinAPIVersion":"1.24"}`)
		return
	}
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.asked = append(e.asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	e.mu.Unlock()
	what := parts[len(parts)-1]
	switch labels, ok := e.labels[parts[1]]; {
	case parts[0] == "containers" && !ok, parts[0] == "exec" && parts[1] != madeExecID:
		writeJSON(w, 404, errorBody{"No such " + parts[0] + ": " + parts[1]})
	case parts[0] == "containers" && what == "json":
		fmt.Fprintf(w, `{"Id":%q,"Name":"/n","Config":{"Labels":{%s}},"Of":%q}`, parts[1], labels, e.name)
	case what == "exec" && strings.Contains(string(body), "refuse"):
		writeJSON(w, 409, errorBody{"container is not running"})
	case what == "exec":
		writeJSON(w, 201, map[string]string{"Id": madeExecID})
	case what == "start" && r.Header.Get("Upgrade") == "tcp":
		conn, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		io.Copy(conn, in)
		io.WriteString(conn, "ended on "+e.name)
	case parts[0] == "exec" && what == "json":
		fmt.Fprintf(w, `{"ID":%q,"ExitCode":3,"Of":%q}`, parts[1], e.name)
	default:
		fmt.Fprintf(w, "%s: %s %s %s", e.name, r.Method, r.URL.RequestURI(), body)
	}
}

func (e *boxes) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	asked := e.asked
	e.asked = nil
	return asked
}

// taskBench is a manager, n1, with an engine, and a task on it and on n2; log is what it logs.
type taskBench struct {
	*bench
	here, there *boxes
	log         *lockedBuffer
	ownID, id   string
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newTaskBench(t *testing.T) *taskBench {
	b := &taskBench{log: new(lockedBuffer), ownID: strings.Repeat("1a", 32), id: strings.Repeat("2b", 32)}
	label := func(task int) string {
		return fmt.Sprintf(`"com.docker.swarm.task":"","com.docker.swarm.task.id":%q,"com.docker.swarm.service.name":"web","io.skep.node":%q`, taskID(task), nodeID(task))
	}
	b.here = newBoxes(t, "n1", map[string]string{
		b.ownID: label(1), "web.1." + taskID(1): label(1), "box": "", "odd": `"io.skep.node":"elsewhere"`,
	})
	b.there = newBoxes(t, "n2", map[string]string{b.id: label(2)})
	b.bench = newBench(t, func(c *Config) {
		c.Engine, c.Log = "unix://"+b.here.path, slog.New(slog.NewTextHandler(b.log, nil))
	})
	b.manager.engine = func(ctx context.Context, node string) (net.Conn, error) {
		if node != nodeID(2) {
			return nil, fail(cluster.ErrUnavailable, "node %s has no session", node)
		}
		return new(net.Dialer).DialContext(ctx, "unix", b.there.path)
	}
	web := b.create(spec("web"))
	b.addTask(1, web, 1, 1, func(task *cluster.Task) { task.Status.ContainerID = b.ownID })
	b.addTask(2, web, 2, 2, func(task *cluster.Task) { task.Status.ContainerID = b.id })
	b.addTask(3, web, 3, 3, func(task *cluster.Task) { task.Status.ContainerID = strings.Repeat("4d", 32) })
	return b
}

func TestTaskContainers_OnWhicheverNode(t *testing.T) {
	b := newTaskBench(t)
	for _, ref := range []string{b.id, b.id[:12], b.id[:40], "web.2." + taskID(2)} {
		b.do("GET", "/v1.51/containers/"+ref+"/json", nil).want(t, 200, `"Of":"n2"`)
		for _, what := range []string{"logs?stdout=1&follow=1", "top?ps_args=aux", "stats?stream=0"} {
			b.do("GET", "/v1.51/containers/"+ref+"/"+what, nil).want(t, 200, "n2: GET /v1.51/containers/"+b.id+"/"+what)
		}
	}
	// The local engine's own come first, and it says itself what it lacks.
	for ref, says := range map[string]string{b.ownID: `"Of":"n1"`, "box": `"Of":"n1"`, "web.1." + taskID(1): `"Of":"n1"`} {
		b.do("GET", "/v1.51/containers/"+ref+"/json", nil).want(t, 200, says)
	}
	b.there.requests()
	for _, ref := range []string{b.id[:11], "web.2", "web", taskID(2), "none", "db.2." + taskID(2), strings.Repeat("5", 64)} {
		b.do("GET", "/v1.51/containers/"+ref+"/json", nil).want(t, 404, "No such containers: "+ref)
	}
	b.do("POST", "/v1.51/containers/"+b.id+"/stop", nil).want(t, 404, "No such containers")
	if asked := b.there.requests(); len(asked) != 0 {
		t.Errorf("the other node was asked %q", asked)
	}
	b.do("GET", "/v1.51/containers/"+strings.Repeat("4d", 32)+"/json", nil).want(t, 503, "node "+nodeID(3)+" has no session")
	b.addTask(4, b.view().Task(taskID(2)).ServiceID, 4, 3, func(task *cluster.Task) { task.Status.ContainerID = b.id[:60] + "ffff" })
	b.do("GET", "/v1.51/containers/"+b.id[:12]+"/json", nil).want(t, 400, "Multiple IDs found")
	b.do("GET", "/v1.51/containers/"+b.id+"/json", nil).want(t, 200, `"Of":"n2"`)
	// Workers have their own engine's.
	b.node.setManager(nil)
	b.do("GET", "/v1.51/containers/"+b.id+"/json", nil).want(t, 404, "No such containers")
	b.do("GET", "/v1.51/containers/box/json", nil).want(t, 200, `"Of":"n1"`)
}

// TestTaskContainers_ThatOnlyTheLeaderKnows is a manager whose own copy hasn't come so far yet.
func TestTaskContainers_ThatOnlyTheLeaderKnows(t *testing.T) {
	p := newPair(t)
	id := strings.Repeat("2b", 32)
	there := newBoxes(t, "n2", map[string]string{id: ""})
	p.here.manager.engine = func(ctx context.Context, node string) (net.Conn, error) {
		if node != nodeID(2) {
			return nil, fail(cluster.ErrUnavailable, "node %s has no session", node)
		}
		return new(net.Dialer).DialContext(ctx, "unix", there.path)
	}
	web := p.other.create(spec("web"))
	p.other.addTask(2, web, 2, 2, func(task *cluster.Task) { task.Status.ContainerID = id })
	for _, ref := range []string{id, id[:12], "web.2." + taskID(2)} {
		p.here.do("GET", "/v1.51/containers/"+ref+"/json", nil).want(t, 200, `"Of":"n2"`)
	}
	asked := p.asked.Load()
	p.here.do("GET", "/v1.51/containers/none%2F..%2Fx/json", nil)
	p.here.do("GET", "/v1.51/containers/none/json", nil)
	if p.asked.Load() == asked {
		t.Error("the leader wasn't asked")
	}
	p.other.addTask(4, web, 4, 3, func(task *cluster.Task) { task.Status.ContainerID = id[:60] + "ffff" })
	p.here.do("GET", "/v1.51/containers/"+id[:12]+"/json", nil).want(t, 400, "Multiple IDs found")
	// Without a leader it is as if nobody knew.
	p.here.manager.set(func(m *fakeManager) { m.leader = cluster.Peer{} })
	asked = p.asked.Load()
	p.here.do("GET", "/v1.51/containers/"+id+"/json", nil)
	if p.asked.Load() != asked {
		t.Error("somebody was asked")
	}
}

// exec makes an exec and gives its ID.
func (b *taskBench) exec(ref string, options container.ExecOptions) string {
	b.t.Helper()
	var made container.ExecCreateResponse
	b.do("POST", "/v1.51/containers/"+ref+"/exec", options).want(b.t, 201, "").into(b.t, &made)
	return made.ID
}

func TestExec_OnWhicheverNode(t *testing.T) {
	b := newTaskBench(t)
	path, _ := listen(t, b.handler, time.Second, 4)
	for node, ref := range map[int]string{1: b.ownID, 2: b.id} {
		engine, name := b.here, fmt.Sprint("n", node)
		if node == 2 {
			engine = b.there
		}
		engine.requests()
		id := b.exec(ref, container.ExecOptions{Cmd: []string{"/bin/sh -c", "canary-argument"}, Env: []string{"A=canary-environment"}, AttachStdin: true})
		if id != madeExecID+"."+nodeID(node) {
			t.Fatalf("the ID is %s", id)
		}
		if asked := engine.requests(); !slices.ContainsFunc(asked, func(a string) bool {
			return strings.Contains(a, "/containers/"+ref+"/exec") && strings.Contains(a, "canary-argument") && strings.Contains(a, "canary-environment")
		}) {
			t.Errorf("%s was asked %q", name, asked)
		}
		for _, part := range []string{"exec in a task's container", "command=/bin/sh ", "service=web", "task=" + taskID(node), "node=" + nodeID(node), `by="a user on n1"`} {
			if !strings.Contains(b.log.String(), part) {
				t.Errorf("the log lacks %s:\n%s", part, b.log)
			}
		}
		conn := dial(t, path).(*net.UnixConn)
		fmt.Fprintf(conn, "POST /v1.51/exec/%s/start HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"Tty\":false}", id)
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != 101 {
			t.Fatalf("%+v %v", response, err)
		}
		fmt.Fprint(conn, "typed ")
		if said, err := reader.Peek(6); err != nil || string(said) != "typed " {
			t.Fatalf("%q %v", said, err)
		}
		conn.CloseWrite()
		if said, err := io.ReadAll(reader); err != nil || string(said) != "typed ended on "+name {
			t.Errorf("%q %v", said, err)
		}
		b.do("GET", "/v1.51/exec/"+id+"/json", nil).want(t, 200, `"ExitCode":3,"ID":"`+id+`","Of":"`+name+`"`)
		b.do("POST", "/v1.51/exec/"+id+"/resize?h=3&w=4", nil).want(t, 200, name+": POST ")
		if asked := engine.requests(); !slices.ContainsFunc(asked, func(a string) bool { return strings.HasSuffix(a, "/exec/"+madeExecID+"/start {\"Tty\":false}") }) ||
			!slices.ContainsFunc(asked, func(a string) bool { return strings.Contains(a, "/exec/"+madeExecID+"/resize?h=3&w=4") }) {
			t.Errorf("%s was asked %q", name, asked)
		}
	}
	if log := b.log.String(); strings.Contains(log, "canary") {
		t.Errorf("the log tells too much:\n%s", log)
	}
	// A user's own are the engine's.
	for _, ref := range []string{"box", "odd"} {
		if id := b.exec(ref, container.ExecOptions{Cmd: []string{"x"}}); id != madeExecID {
			t.Errorf("%s: %s", ref, id)
		}
	}
	b.do("GET", "/v1.51/exec/"+madeExecID+"/json", nil).want(t, 200, `"ID":"`+madeExecID+`"`)
	b.do("POST", "/v1.51/containers/"+b.id+"/exec", container.ExecOptions{Cmd: []string{"refuse"}}).want(t, 409, "container is not running")
	b.do("POST", "/v1.51/containers/none/exec", container.ExecOptions{}).want(t, 404, "No such containers: none")
	b.do("POST", "/v1.51/containers/"+b.id+"/exec", "{").want(t, 400, "invalid JSON")
	for _, id := range []string{"x." + nodeID(2), madeExecID + ".none", madeExecID + ".", "x." + nodeID(1)} {
		b.do("GET", "/v1.51/exec/"+id+"/json", nil).want(t, 404, "No such exec instance")
		b.do("POST", "/v1.51/exec/"+id+"/start", map[string]bool{}).want(t, 404, "No such exec instance")
	}
	b.do("GET", "/v1.51/exec/"+strings.Repeat("f", 64)+"."+nodeID(2)+"/json", nil).want(t, 404, "No such exec")
	b.do("GET", "/v1.51/exec/"+madeExecID+"."+nodeID(3)+"/json", nil).want(t, 503, "no session")
}

// label sets a label of the cluster's as `skep cluster update` does.
func (b *bench) label(name, value string) {
	b.t.Helper()
	var found swarm.Swarm
	b.do("GET", "/swarm", nil).want(b.t, 200, "").into(b.t, &found)
	if found.Spec.Labels == nil {
		found.Spec.Labels = map[string]string{}
	}
	found.Spec.Labels[name] = value
	b.do("POST", fmt.Sprintf("/swarm/update?version=%d", found.Version.Index), found.Spec).want(b.t, 200, "")
}

func TestExec_IsForbidden(t *testing.T) {
	b := newTaskBench(t)
	const refusal = "this cluster forbids exec in containers of tasks: `skep cluster update --forbid-exec=false` allows it again"
	before := b.exec(b.id, container.ExecOptions{Cmd: []string{"x"}})
	for _, ref := range []string{b.id, b.ownID} {
		b.do("POST", "/v1.51/containers/"+ref+"/exec", container.ExecOptions{Cmd: []string{"x"}, Privileged: true}).want(t, 403, "skep cluster update --allow-host-options")
	}
	b.label("skep.forbid-exec", "true")
	b.there.requests()
	b.here.requests()
	for _, ref := range []string{b.id, b.ownID, "web.2." + taskID(2)} {
		b.do("POST", "/v1.51/containers/"+ref+"/exec", container.ExecOptions{Cmd: []string{"x"}}).want(t, 403, refusal)
	}
	b.do("POST", "/v1.51/exec/"+before+"/start", map[string]bool{}).want(t, 403, refusal)
	for _, asked := range append(b.there.requests(), b.here.requests()...) {
		if !strings.HasPrefix(asked, "GET ") {
			t.Errorf("an engine was asked %s", asked)
		}
	}
	if id := b.exec("box", container.ExecOptions{Cmd: []string{"x"}}); id != madeExecID {
		t.Error(id)
	}
	b.do("GET", "/v1.51/containers/"+b.id+"/json", nil).want(t, 200, `"Of":"n2"`)
	b.label("skep.forbid-exec", "false")
	b.label("skep.allow-host-options", "true")
	b.exec(b.id, container.ExecOptions{Cmd: []string{"x"}, Privileged: true})
	b.exec(b.ownID, container.ExecOptions{Cmd: []string{"x"}, Privileged: true})
	// All that has to do with tasks is told, and nothing of what was run, nor of the engine's own containers.
	told := strings.Join(b.told(), "\n")
	for _, line := range []string{
		"POST /containers/{id}/exec " + b.id + ": refused 403",
		"POST /containers/{id}/exec web.2." + taskID(2) + ": refused 403",
		"POST /containers/{id}/exec " + b.id + ", task web from 0 to 0: done 201",
	} {
		if !strings.Contains(told, line) {
			t.Errorf("it isn't told %s:\n%s", line, told)
		}
	}
	if strings.Contains(told, "exec box") {
		t.Errorf("it tells of a container of the engine's:\n%s", told)
	}
}

func TestFirstWord(t *testing.T) {
	for want, command := range map[string][]string{
		"": nil, "sh": {"sh", "-c", "secret"}, "mysql": {" mysql -psecret"}, "a": {"a\tb"}, strings.Repeat("x", maxCommand): {strings.Repeat("x", 1000)},
	} {
		if got := firstWord(command); got != want {
			t.Errorf("%q: %q, want %q", command, got, want)
		}
	}
}
