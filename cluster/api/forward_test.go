package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// pair is two managers: other leads, and here forwards to it over TLS.
type pair struct {
	here, other *bench
	control     *httptest.Server
	asked       atomic.Int64
	// before, when set, may answer in the place of the leader.
	before atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newPair(t *testing.T) *pair {
	p := &pair{here: newBench(t), other: newBench(t)}
	p.other.manager.id = "leader"
	remote := http.StripPrefix("/v1/api", p.other.server.Remote())
	p.control = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if before := p.before.Load(); before != nil && (*before)(w, r) {
			return
		}
		remote.ServeHTTP(w, r)
	}))
	t.Cleanup(p.control.Close)
	p.here.manager.set(func(m *fakeManager) {
		m.client = p.control.Client()
		m.client.Timeout = time.Nanosecond // it must not be in force: logs last for hours
		m.leader = cluster.Peer{NodeID: "leader", Addr: p.control.Listener.Addr().String()}
	})
	return p
}

func (p *pair) answerWith(f func(http.ResponseWriter, *http.Request) bool) { p.before.Store(&f) }

func TestForward(t *testing.T) {
	p := newPair(t)
	id := p.here.create(spec("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Args = []string{"<&>"} }), "X-Registry-Auth", "secret", cluster.HeaderMessage, "first")
	if p.other.view().Service(id) == nil || p.here.view().Service(id) != nil {
		t.Fatal("the service isn't on the leader alone")
	}
	if got := p.other.view().Revision(id, 1); got.Auth != "secret" || got.Message != "first" || got.By != "a user on n1" {
		t.Errorf("credentials %q, message %q by %q", got.Auth, got.Message, got.By)
	}
	got := p.here.do("GET", "/v1.41/services?status=true&filters="+`{"name":["web"]}`, nil).want(t, 200, `"RunningTasks":0`)
	if got.header.Get("Content-Type") != "application/json" || !strings.Contains(got.body, "<&>") {
		t.Errorf("%+v", got)
	}
	p.here.do("GET", "/services/none", nil).want(t, 404, "service none not found")
	p.here.do("POST", "/services/create", spec("web")).want(t, 409, "already exists")
	p.here.do("DELETE", "/services/web", nil).want(t, 200, "")
	// What is the node's own isn't forwarded.
	before := p.asked.Load()
	p.here.do("GET", "/_ping", nil).want(t, 200, "OK")
	p.here.do("GET", "/info", nil).want(t, 200, "")
	p.here.do("GET", "/services/create/x/y", nil).want(t, 404, "page not found")
	if p.asked.Load() != before {
		t.Error("the leader was asked for what is this node's")
	}
}

func TestRemoteRefuses(t *testing.T) {
	p := newPair(t)
	remote := p.here.server.Remote()
	got := ask(t, remote, "POST", "/services/create", spec("web")).want(t, 503, "not the leader")
	if got.header.Get(notLeaderHeader) == "" {
		t.Error("the refusal isn't marked as certain")
	}
	remote = p.other.server.Remote()
	for _, path := range []string{"/_ping", "/info", "/events", "/containers/json"} {
		ask(t, remote, "GET", path, nil).want(t, 404, "page not found")
	}
	ask(t, remote, "POST", "/swarm/leave?force=1", nil).want(t, 404, "page not found")
	ask(t, remote, "GET", "/v1.41/nodes", nil).want(t, 200, "n1")
	// A leader that has just lost its leadership says so, with nothing changed.
	p.other.manager.set(func(m *fakeManager) { m.fresh = cluster.ErrNotLeader })
	if got := ask(t, remote, "GET", "/nodes", nil).want(t, 503, ""); got.header.Get(notLeaderHeader) == "" {
		t.Error("not marked")
	}
}

// TestHold waits for a leader, and gives up with the words that users know.
func TestHold(t *testing.T) {
	p := newPair(t)
	p.here.manager.set(func(m *fakeManager) { m.none = true })
	time.AfterFunc(50*time.Millisecond, func() { p.here.manager.set(func(m *fakeManager) { m.none = false }) })
	p.here.create(spec("web"))

	p.here.manager.set(func(m *fakeManager) { m.none = true })
	p.here.server.Hold = 50 * time.Millisecond
	p.here.do("POST", "/services/create", spec("late")).want(t, 503, "(1 of 3 managers answer, and 2 are needed)")
	p.here.do("POST", "/services/create", spec("late")).want(t, 503, "The swarm does not have a leader")
	// Nor is anything read from memory: what it doesn't know may be there all the same.
	for _, path := range []string{"/services", "/services/nobody", "/nodes", "/swarm"} {
		p.here.do("GET", path, nil).want(t, 503, "The swarm does not have a leader")
	}
	p.here.do("POST", "/skep/v1/backup", cluster.BackupRequest{Recipient: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}).want(t, 503, "The swarm does not have a leader")
	p.here.do("GET", "/skep/v1/status", nil).want(t, 200, `"c"`)
	p.here.do("GET", "/info", nil).want(t, 200, "The swarm does not have a leader")
	p.here.manager.set(func(m *fakeManager) { m.none = false })
	p.here.do("GET", "/services", nil).want(t, 200, "web")
}

func TestRetryWhenCertain(t *testing.T) {
	p := newPair(t)
	// First nobody listens there, then one that doesn't lead, then the leader.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	real := p.control.Listener.Addr().String()
	p.here.manager.set(func(m *fakeManager) { m.leader.Addr = gone.Addr().String() })
	time.AfterFunc(60*time.Millisecond, func() { p.here.manager.set(func(m *fakeManager) { m.leader.Addr = real }) })
	var refused atomic.Int64
	p.answerWith(func(w http.ResponseWriter, r *http.Request) bool {
		if refused.Add(1) > 2 {
			return false
		}
		w.Header().Set(notLeaderHeader, "1")
		writeJSON(w, 503, errorBody{"this manager is not the leader"})
		return true
	})
	p.here.create(spec("web"))
	if p.other.view().ServiceCount() != 1 || refused.Load() != 3 {
		t.Errorf("%d services after %d requests", p.other.view().ServiceCount(), refused.Load())
	}
	// This manager takes over in between.
	p.answerWith(func(w http.ResponseWriter, r *http.Request) bool {
		p.here.manager.set(func(m *fakeManager) { m.leader = cluster.Peer{} })
		w.Header().Set(notLeaderHeader, "1")
		w.WriteHeader(503)
		return true
	})
	p.here.create(spec("mine"))
	if p.here.view().ServiceNamed("mine") == nil {
		t.Error("the new leader didn't execute the request itself")
	}
}

// TestPause_EndsWithTheNews: who was refused waits no longer than until another leader is
// known, also when that was while it was refused.
func TestPause_EndsWithTheNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeManager{}
		took := func(ctx context.Context, after time.Duration) (bool, time.Duration) {
			began := time.Now()
			changed := m.LeaderChanged()
			if after == 0 {
				m.set(func(m *fakeManager) { m.none = true })
			} else {
				time.AfterFunc(after, func() { m.set(func(m *fakeManager) { m.none = true }) })
			}
			ok := pause(ctx, retryLast, changed)
			return ok, time.Since(began)
		}
		for after, want := range map[time.Duration]time.Duration{0: 0, time.Millisecond: time.Millisecond, time.Second: retryLast} {
			if ok, took := took(t.Context(), after); !ok || took != want {
				t.Errorf("with news after %v: %v after %v; want %v", after, ok, took, want)
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if ok, took := took(ended, time.Second); ok || took != 0 {
			t.Errorf("when the request has ended: %v after %v", ok, took)
		}
		time.Sleep(time.Second)
	})
}

// TestUnknownOutcome: a write that may have happened is not repeated; a read is.
func TestUnknownOutcome(t *testing.T) {
	p := newPair(t)
	var broken atomic.Int64
	p.answerWith(func(w http.ResponseWriter, r *http.Request) bool {
		if broken.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	p.here.do("POST", "/services/create", spec("web")).want(t, 503, "the outcome of the write is unknown")
	if broken.Load() != 1 || p.other.view().ServiceCount() != 0 {
		t.Fatalf("the write was sent %d times", broken.Load())
	}
	broken.Store(0)
	p.here.do("GET", "/services", nil).want(t, 200, "[]")
	if broken.Load() != 2 {
		t.Errorf("the read was sent %d times", broken.Load())
	}
}

// TestSilentLeader: a leader that was stopped in the middle doesn't hold a request
// once another manager leads.
func TestSilentLeader(t *testing.T) {
	p := newPair(t)
	arrived := make(chan struct{}, 2)
	p.answerWith(func(w http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
		return true
	})
	takeOver := func() {
		<-arrived
		p.here.manager.set(func(m *fakeManager) { m.leader = cluster.Peer{} })
	}
	go takeOver()
	began := time.Now()
	p.here.do("GET", "/services", nil).want(t, 200, "[]")
	if took := time.Since(began); took > answerTimeout/2 {
		t.Errorf("the read took %s", took)
	}
	p.here.manager.set(func(m *fakeManager) {
		m.leader = cluster.Peer{NodeID: "leader", Addr: p.control.Listener.Addr().String()}
	})
	go takeOver()
	p.here.do("POST", "/services/create", spec("web")).want(t, 503, "the outcome of the write is unknown")
}

// TestForwardStreams passes each part of a stream on as it comes, and breaks off
// with the client.
func TestForwardStreams(t *testing.T) {
	p := newPair(t)
	id := p.other.create(spec("web"))
	p.other.addTask(1, id, 1, 1)
	ended := make(chan struct{})
	step := make(chan struct{})
	p.other.manager.set(func(m *fakeManager) {
		m.logs = func(ctx context.Context, _, _ string, _ cluster.LogOptions, emit func([]cluster.LogLine) error) error {
			defer close(ended)
			for range step {
				if err := emit([]cluster.LogLine{{Time: 1, Data: []byte("tick\n")}}); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	local := httptest.NewServer(p.here.handler)
	defer local.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, "GET", local.URL+"/v1.43/services/web/logs?stdout=1&follow=1", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := response.Header.Get("Content-Type"); got != "application/vnd.docker.multiplexed-stream" {
		t.Fatal(got)
	}
	frame := make([]byte, 8+5)
	for range 3 {
		step <- struct{}{}
		if _, err := io.ReadFull(response.Body, frame); err != nil || string(frame[8:]) != "tick\n" {
			t.Fatalf("%q %v", frame, err)
		}
	}
	close(step)
	cancel()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the leader goes on for a client that has gone")
	}
}
