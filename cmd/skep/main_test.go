package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"skep/cluster"
)

// asCommand makes the test binary behave as skep: what is tested is a process with its
// environment, output and exit status.
const asCommand = "SKEP_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// result is what a run of skep left.
type result struct {
	stdout, stderr string
	status         int
}

// skep runs the command with the environment added to a clean one.
func skep(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return skepReading(t, "", env, args...)
}

// skepReading is skep with something to read on its standard input.
func skepReading(t *testing.T, input string, env []string, args ...string) result {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append([]string{asCommand + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ownAddress is an address of this machine, with a port, at which nobody listens: the port for gossip is the same at all.
func ownAddress(t *testing.T) string {
	t.Helper()
	for i := 1; i < 255; i++ {
		ip := fmt.Sprintf("127.46.%d.%d", os.Getpid()%250, i)
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(cluster.GossipPort)))
		if err != nil {
			continue
		}
		l.Close()
		return net.JoinHostPort(ip, strconv.Itoa(cluster.ControlPort))
	}
	t.Fatal("no address is free")
	return ""
}

// fakeNode answers like a node of API version 1.41 and remembers what it was asked.
type fakeNode struct {
	url string

	mu       sync.Mutex // guards the fields below
	status   cluster.Status
	missing  int // how many bytes at the end of a backup don't come
	requests []*http.Request
	bodies   []string // of requests, in the same order
	// answers are by method and path without the API's version: one after the other, and
	// then the last one for ever.
	answers map[string][]string
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	n := &fakeNode{url: "unix://" + filepath.Join(t.TempDir(), "sock")}
	l, err := net.Listen("unix", strings.TrimPrefix(n.url, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(n)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return n
}

// backUp answers as a manager whose database is the text "database".
func (n *fakeNode) backUp(w http.ResponseWriter, body []byte) {
	var asked cluster.BackupRequest
	if err := json.Unmarshal(body, &asked); err != nil {
		panic(err)
	}
	recipient, err := age.ParseX25519Recipient(asked.Recipient)
	if err != nil {
		panic(err)
	}
	var file bytes.Buffer
	sealed, err := age.Encrypt(&file, recipient)
	if err != nil {
		panic(err)
	}
	if _, err := io.WriteString(sealed, "database"); err != nil {
		panic(err)
	}
	if err := sealed.Close(); err != nil {
		panic(err)
	}
	n.mu.Lock()
	missing := n.missing
	n.mu.Unlock()
	_, _ = w.Write(file.Bytes()[:file.Len()-missing])
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	n.requests, n.bodies = append(n.requests, r), append(n.bodies, string(body))
	status := n.status
	key := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1.41")
	answers := n.answers[key]
	if len(answers) > 1 {
		n.answers[key] = answers[1:]
	}
	n.mu.Unlock()
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Content-Type", "application/json")
	switch path := r.URL.Path; {
	case len(answers) > 0:
		if strings.HasPrefix(answers[0], `{"message"`) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, answers[0])
	case path == "/_ping":
	case path == "/skep/v1/status":
		_ = json.NewEncoder(w).Encode(status)
	case strings.HasSuffix(path, "/services/create"):
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"ID":"vbrmfwap9empswux9licqj8jz"}`))
	case path == "/skep/v1/backup":
		n.backUp(w, body)
	case path == "/skep/v1/restore":
		_, _ = w.Write([]byte(`"vbrmfwap9empswux9licqj8jz"`))
	case strings.HasSuffix(path, "/swarm"):
		_, _ = w.Write([]byte(`{"Version":{"Index":12},"Spec":{"Name":"default","Labels":{"a":"b"}}}`))
	case strings.HasSuffix(path, "/swarm/update"):
	case strings.HasSuffix(path, "/nodes"), strings.HasSuffix(path, "/services"):
		_, _ = w.Write([]byte("[]"))
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"page not found"}`))
	}
}

// last is the body of the last request that had one.
func (n *fakeNode) last() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := len(n.bodies) - 1; i >= 0; i-- {
		if n.bodies[i] != "" {
			return n.bodies[i]
		}
	}
	return ""
}

// say sets the status that the node will tell.
func (n *fakeNode) say(status cluster.Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status = status
}

// answer sets what the node answers to a request such as "GET /services/web". A
// body that is a message is an answer of status 503.
func (n *fakeNode) answer(request string, bodies ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.answers == nil {
		n.answers = map[string][]string{}
	}
	n.answers[request] = bodies
}

// asked returns the requests whose path ends so.
func (n *fakeNode) asked(suffix string) []*http.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []*http.Request
	for _, r := range n.requests {
		if strings.HasSuffix(r.URL.Path, suffix) {
			found = append(found, r)
		}
	}
	return found
}

func TestTarget_NothingOfDockersSetUpChoosesIt(t *testing.T) {
	docker, ours := newFakeNode(t), newFakeNode(t)
	home := t.TempDir()
	// A context called "prod", made and chosen as `docker context create` and `use` do.
	meta := filepath.Join(home, ".docker", "contexts", "meta", "a1b6b36f8d6c4d8e8e9c1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d")
	if err := os.MkdirAll(meta, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(meta, "meta.json"), `{"Name":"prod","Metadata":{},"Endpoints":{"docker":{"Host":"`+docker.url+`"}}}`)
	write(t, filepath.Join(home, ".docker", "config.json"), `{"currentContext":"prod"}`)

	for name, env := range map[string][]string{
		"current context": nil,
		"DOCKER_CONTEXT":  {"DOCKER_CONTEXT=prod"},
		"DOCKER_HOST":     {"DOCKER_HOST=" + docker.url},
		"DOCKER_TLS":      {"DOCKER_TLS_VERIFY=1", "DOCKER_TLS=1", "DOCKER_CERT_PATH=/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(ours.asked("/nodes"))
			r := skep(t, append(env, "HOME="+home, "SKEP_HOST="+ours.url), "node", "ls")
			if r.status != 0 {
				t.Fatalf("status %d: %s", r.status, r.stderr)
			}
			if len(ours.asked("/nodes")) != before+1 {
				t.Error("SKEP_HOST wasn't asked")
			}
			// Without SKEP_HOST it is the default socket, where nobody listens here.
			r = skep(t, append(env, "HOME="+home), "node", "ls")
			if r.status != 1 || !strings.Contains(r.stderr, defaultHost) {
				t.Errorf("without SKEP_HOST: status %d, %s", r.status, r.stderr)
			}
		})
	}
	if n := len(docker.asked("")); n > 0 {
		t.Errorf("docker's own target got %d requests", n)
	}
}

func TestTarget_HostWinsOverTheEnvironment(t *testing.T) {
	flag, env := newFakeNode(t), newFakeNode(t)
	if r := skep(t, []string{"SKEP_HOST=" + env.url}, "--host", flag.url, "node", "ls"); r.status != 0 {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	if len(flag.asked("/nodes")) != 1 || len(env.asked("")) != 0 {
		t.Error("--host wasn't asked, or SKEP_HOST was")
	}
}

func TestTarget_ContextsAreRefused(t *testing.T) {
	r := skep(t, nil, "--context", "prod", "node", "ls")
	if r.status != 125 || !strings.Contains(r.stderr, "no contexts") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

func TestTarget_RegistryLoginsAreDockers(t *testing.T) {
	node, home := newFakeNode(t), t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	login := base64.StdEncoding.EncodeToString([]byte("bee:honey"))
	write(t, filepath.Join(home, ".docker", "config.json"), `{"auths":{"registry.example:5000":{"auth":"`+login+`"}}}`)
	r := skep(t, []string{"HOME=" + home, "SKEP_HOST=" + node.url},
		"service", "create", "--detach", "--no-resolve-image", "--with-registry-auth", "registry.example:5000/web:1")
	if r.status != 0 {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	created := node.asked("/services/create")
	if len(created) != 1 {
		t.Fatalf("%d services created", len(created))
	}
	auth, err := base64.URLEncoding.DecodeString(created[0].Header.Get("X-Registry-Auth"))
	if err != nil || !strings.Contains(string(auth), "honey") {
		t.Errorf("the login isn't in the header: %v", err)
	}
}

func TestSupported_RefusesWhatTheNodeIsTooOldFor(t *testing.T) {
	node := newFakeNode(t)
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "service", "create", "--oom-score-adj", "3", "web:1")
	if r.status != 1 || !strings.Contains(r.stderr, `"--oom-score-adj" requires API version 1.46`) {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
	if len(node.asked("/services/create")) != 0 {
		t.Error("the service was created without the field")
	}
	// The same command line without it works; a flag that isn't given asks for nothing.
	if r := skep(t, []string{"SKEP_HOST=" + node.url}, "service", "create", "--detach", "--no-resolve-image", "web:1"); r.status != 0 {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

func TestExitStatus(t *testing.T) {
	node := newFakeNode(t)
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
		{[]string{"honey"}, 125, "unknown command: skep honey"},
		{[]string{"--honey"}, 125, "unknown flag"},
		{[]string{"service", "ls", "--honey"}, 125, "unknown flag"},
		{[]string{"service", "rm"}, 1, "requires at least 1 argument"},
		{[]string{"-H", node.url, "service", "inspect", "web"}, 1, "no such service"},
		{[]string{"-H", node.url, "service", "ls"}, 0, ""},
		{[]string{"-H", node.url, "daemon"}, 125, `write --host after "daemon"`},
		{[]string{"daemon", "--init", "--token-file", "t"}, 125, "needs --join"},
		{[]string{"cluster", "status"}, 1, "is the skep daemon running?"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			r := skep(t, nil, test.args...)
			if r.status != test.status || !strings.Contains(r.stderr, test.says) {
				t.Errorf("status %d, want %d: %s", r.status, test.status, r.stderr)
			}
		})
	}
}

func TestRoot_HasTheGroupsOfASwarm(t *testing.T) {
	r := skep(t, nil, "--help")
	for _, name := range []string{"service", "node", "stack", "swarm", "secret", "config", "network", "info", "version", "events", "inspect", "daemon", "cluster", "upgrade"} {
		if !strings.Contains(r.stdout, "\n  "+name+" ") {
			t.Errorf("skep --help doesn't show %s", name)
		}
	}
	for _, word := range []string{"docker context", "guides", "--context"} {
		if strings.Contains(r.stdout, word) {
			t.Errorf("skep --help speaks of %q", word)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSource(t *testing.T) {
	info := &debug.BuildInfo{}
	if commit, when := source(info); commit != "unknown" || when != "unknown" {
		t.Errorf("without its history: %s, %s", commit, when)
	}
	info.Settings = []debug.BuildSetting{
		{Key: "vcs.modified", Value: "true"}, {Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-11-29T09:00:00Z"},
	}
	if commit, when := source(info); commit != "0123456789ab-dirty" || when != "2026-11-29T09:00:00Z" {
		t.Errorf("%s, %s", commit, when)
	}
}
