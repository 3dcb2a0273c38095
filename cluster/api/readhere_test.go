package api

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

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
