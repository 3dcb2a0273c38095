package api

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// A follower answers reads from its own copy when that is current, and passes the others on.
func TestReadHere(t *testing.T) {
	p := newPair(t)
	id := p.here.create(spec("web", func(*swarm.ServiceSpec) {})) // on the leader
	p.here.do("GET", "/services/web", nil).want(t, http.StatusOK, id)
	if p.asked.Load() != 2 {
		t.Fatalf("the leader was asked %d times; want for the write and for what the follower doesn't have yet", p.asked.Load())
	}
	copied := p.other.view().Service(id)
	if err := p.here.manager.store.Update(t.Context(), func(tx *store.Tx) error {
		here := *copied
		here.Version = 0
		return tx.Put(&here)
	}); err != nil {
		t.Fatal(err)
	}
	p.here.manager.set(func(m *fakeManager) { m.caughtUp = true })
	asked := p.asked.Load()
	p.here.do("GET", "/services/web", nil).want(t, http.StatusOK, id)
	p.here.do("GET", "/services", nil).want(t, http.StatusOK, id)
	p.here.do("GET", "/services/none", nil).want(t, http.StatusNotFound, "service none not found")
	if got := p.asked.Load(); got != asked {
		t.Errorf("the leader was asked %d times for what the follower has", got-asked)
	}
	p.here.do("GET", "/nodes", nil)
	if got := p.asked.Load(); got != asked+1 {
		t.Errorf("the leader was asked %d times who answers it", got-asked)
	}
}

// What isn't made of the database alone is asked of the leader, and stands in the table in cluster/DESIGN.md.
func TestReadHere_DesignHasWhatTheLeaderIsAsked(t *testing.T) {
	design, err := os.ReadFile("../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range newBench(t).server.routes {
		if there := strings.Contains(string(design), "| `"+route.method+" "+route.pattern+"` |"); there != (route.kind == readLeader) {
			t.Errorf("%s %s is asked of the leader: %v, and of that the design says %v", route.method, route.pattern, route.kind == readLeader, there)
		}
	}
}

// A small write goes to the leader by a call; when that ends on its way nobody knows what came of it, and nothing is tried again.
func TestForward_ByACall(t *testing.T) {
	p := newPair(t)
	called := 0
	p.here.manager.set(func(m *fakeManager) {
		m.calls.answer = func(r *http.Request) (*http.Response, error) {
			called++
			if strings.HasSuffix(r.URL.Path, "/secrets/create") {
				return nil, fail(cluster.ErrUnavailable, "the connection ended")
			}
			w := httptest.NewRecorder()
			r.URL.Path = strings.TrimPrefix(r.URL.Path, "/v1/api")
			p.other.server.Remote().ServeHTTP(w, r)
			return w.Result(), nil
		}
	})
	id := p.here.create(spec("web", func(*swarm.ServiceSpec) {}))
	if p.other.view().Service(id) == nil || called != 1 || p.asked.Load() != 0 {
		t.Errorf("after %d calls and %d requests the leader has %v", called, p.asked.Load(), p.other.view().Service(id))
	}
	p.here.do("POST", "/secrets/create", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "s"}, Data: []byte("x")}).
		want(t, http.StatusServiceUnavailable, "the outcome of the write is unknown")
	if called != 2 || p.asked.Load() != 0 {
		t.Errorf("%d calls and %d requests; want one more call, and no other try", called, p.asked.Load())
	}
	p.here.do("GET", "/services/web", nil).want(t, http.StatusOK, id)
	if called != 2 || p.asked.Load() != 1 {
		t.Errorf("%d calls and %d requests; what is read may be large, and has no call", called, p.asked.Load())
	}
}
