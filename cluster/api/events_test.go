package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// record runs the recorder until the test ends, and returns when it follows.
func (b *bench) record() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.server.Run(ctx); err == nil {
			b.t.Error("Run ended by itself")
		}
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	// Only what happens once it follows is seen: touch a node until that shows.
	until(b.t, "the recorder", func() bool {
		b.update(func(tx *store.Tx) error {
			node := *tx.Node(nodeID(3))
			return tx.Put(&node)
		})
		return len(b.server.events.kept_()) > 0
	})
}

func (r *recorder) kept_() []events.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kept []events.Message
	for _, m := range r.kept {
		kept = append(kept, *m)
	}
	return kept
}

// replay asks for past events only.
func (b *bench) replay(query string) (found []events.Message) {
	b.t.Helper()
	body := b.do("GET", fmt.Sprintf("/events?since=1&until=%s&%s", stamp(b.server.Now()), query), nil).want(b.t, 200, "").body
	for line := range strings.Lines(body) {
		var message events.Message
		if err := json.Unmarshal([]byte(line), &message); err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		found = append(found, message)
	}
	return found
}

func TestEvents(t *testing.T) {
	b := newBench(t)
	b.record()
	id := b.create(spec("web"))
	s := b.inspect(id).Spec
	s.TaskTemplate.ContainerSpec.Image = "timecheck:2.0"
	s.Mode.Replicated.Replicas = ptr(uint64(4))
	b.post(id, "", s).want(t, 200, "")
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{ServiceID: id, State: swarm.UpdateStateUpdating})
	})
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{ServiceID: id, State: swarm.UpdateStateCompleted})
	})
	b.changeNode("n2", func(s *swarm.NodeSpec) { s.Availability = "drain" }).want(t, 200, "")
	for _, state := range []cluster.NodeState{cluster.NodeDown, cluster.NodeReady} {
		b.update(func(tx *store.Tx) error {
			n := *tx.Node(nodeID(3))
			n.Status.State = state
			return tx.Put(&n)
		})
	}
	b.do("DELETE", "/services/web", nil).want(t, 200, "")
	b.do("DELETE", "/nodes/n2?force=1", nil).want(t, 200, "")
	until(t, "the last event", func() bool {
		kept := b.server.events.kept_()
		return kept[len(kept)-1].Action == events.ActionRemove && kept[len(kept)-1].Type == events.NodeEventType
	})
	var got []string
	for _, m := range b.replay(`filters={"service":["web"]}`) {
		if m.Scope != "swarm" || m.Actor.ID != id || m.TimeNano == 0 {
			t.Errorf("%+v", m)
		}
		attributes, _ := json.Marshal(m.Actor.Attributes)
		got = append(got, fmt.Sprintf("%s %s %s", m.Type, m.Action, attributes))
	}
	want := []string{
		`service create {"name":"web"}`,
		`service update {"image.new":"timecheck:2.0","image.old":"timecheck:1.0","name":"web","replicas.new":"4","replicas.old":"1"}`,
		`service update {"name":"web","updatestate.new":"updating"}`,
		`service update {"name":"web","updatestate.new":"completed","updatestate.old":"updating"}`,
		`service remove {"name":"web"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	got = nil
	for _, m := range b.replay(`filters={"node":["` + nodeID(3) + `"]}`) {
		attributes, _ := json.Marshal(m.Actor.Attributes)
		got = append(got, fmt.Sprintf("%s %s %s", m.Type, m.Action, attributes))
	}
	if want := []string{`node update {"name":"n3","state.new":"down","state.old":"ready"}`, `node update {"name":"n3","state.new":"ready","state.old":"down"}`}; len(got) < 2 || !slices.Equal(got[len(got)-2:], want) {
		t.Errorf("a node that was lost for a while: %q, want %q", got, want)
	}
	for filter, count := range map[string]int{
		`{"type":["service"]}`: 5, `{"type":["service"],"event":["update"]}`: 3, `{"node":["n2"]}`: 2, `{"node":["n2"],"event":["update"]}`: 1,
		`{"type":["secret"]}`: 0, `{"scope":["local"]}`: 0, `{"scope":["swarm"],"event":["remove"]}`: 2, `{"container":["x"]}`: 0,
	} {
		if got := b.replay("filters=" + filter); len(got) != count {
			t.Errorf("%s: %d events, want %d: %+v", filter, len(got), count, got)
		}
	}
	b.do("GET", `/events?filters={"colour":["x"]}`, nil).want(t, 400, "invalid filter 'colour'")
	b.do("GET", `/events?since=20&until=10`, nil).want(t, 400, "cannot be after `until`")
	b.do("GET", `/events?since=soon`, nil).want(t, 400, "invalid since")
}

// TestEventsFollow gets live events of both the cluster and the engine, in one
// stream, but not the engine's own swarm's.
func TestEventsFollow(t *testing.T) {
	b, _ := newEngineBench(t)
	b.record()
	local := httptest.NewServer(b.handler)
	defer local.Close()
	response, err := http.Get(local.URL + "/v1.51/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b.create(spec("web"))
	b.manager.set(func(m *fakeManager) { m.leader.NodeID = nodeID(2) })
	lines := bufio.NewScanner(response.Body)
	seen := map[string]bool{}
	for !seen["container start"] || !seen["service create"] || !seen["leader"] {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", seen)
		}
		var m events.Message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		if m.Actor.ID == "foreign" {
			t.Error("the engine's own swarm is shown")
		}
		seen[string(m.Type)+" "+string(m.Action)] = true
		if m.Actor.Attributes["leader.new"] == "true" && m.Actor.ID == nodeID(2) {
			seen["leader"] = true
		}
	}
}

// TestEvents_OfTheEngineInOrder: what has been is told in order of time, once, also by
// a stream that goes on.
func TestEvents_OfTheEngineInOrder(t *testing.T) {
	b, _ := newEngineBench(t)
	b.record()
	b.create(spec("web"))
	until(t, "the service's event", func() bool { return len(b.replay(`filters={"service":["web"]}`)) == 1 })
	body := b.do("GET", "/events?since=0.000000001&until="+stamp(time.Now().Add(200*time.Millisecond)), nil).want(t, 200, "").body
	mount, start, service := strings.Index(body, `"mount"`), strings.Index(body, `"start"`), strings.Index(body, `"create"`)
	if mount < 0 || mount > start || start > service || strings.Count(body, `"start"`) != 1 {
		t.Errorf("the stream is\n%s", body)
	}
}

// TestEvents_WhatHasBeen is told when either end is given, as Docker does: 0 is a time, too.
func TestEvents_WhatHasBeen(t *testing.T) {
	b, engine := newEngineBench(t)
	b.record()
	b.create(spec("web"))
	until(t, "the service's event", func() bool { return len(b.replay(`filters={"service":["web"]}`)) == 1 })
	past, future := stamp(b.server.Now()), stamp(b.server.Now().Add(100*time.Millisecond))
	for _, test := range []struct {
		query string
		told  int
	}{
		{"since=0.000000001&until=" + past, 1}, {"since=0&until=" + past, 1}, {"since=0.0&until=" + past, 1}, {"since=1970-01-01T00:00:00Z&until=" + past, 1}, {"until=" + past, 1},
		{"since=0&until=" + future, 1}, {"until=" + future, 1},
		{"since=" + past + "&until=" + future, 0}, {"since=&until=" + past, 1}, {"until=0", 0}, {"since=0&until=0", 0},
	} {
		limit, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, httptest.NewRequestWithContext(limit, "GET", "/events?"+test.query, nil))
		if limit.Err() != nil {
			t.Errorf("%s: the stream doesn't end", test.query)
		}
		cancel()
		body := w.Body.String()
		if services, starts := strings.Count(body, `"create"`), strings.Count(body, `"start"`); services != test.told || starts != test.told {
			t.Errorf("%s tells %d events of services and %d of the engine; want %d of each\n%s\n%q", test.query, services, starts, test.told, body, engine.requests())
		}
	}
	b.do("GET", "/events?since=2&until=1", nil).want(t, 400, "cannot be after `until` time")
	// With neither, only what comes is told.
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/events", nil))
	if body := w.Body.String(); strings.Contains(body, `"create"`) {
		t.Errorf("without since or until it tells %s", body)
	}
}

// TestEvents_OfReachability: only who leads knows it, and says it once.
func TestEvents_OfReachability(t *testing.T) {
	b := newBench(t)
	b.record()
	// reach sets what the manager knows, and returns when the recorder has seen it.
	reach := func(ok bool) {
		var before int
		b.manager.set(func(m *fakeManager) {
			m.reachable, before = map[string]bool{nodeID(1): true, nodeID(2): ok}, m.asked
		})
		until(t, "the recorder to look", func() (seen bool) {
			b.manager.set(func(m *fakeManager) { seen = m.asked >= before+2 })
			return seen
		})
	}
	told := func() (got []string) {
		for _, m := range b.replay(`filters={"node":["n2"]}`) {
			if a := m.Actor.Attributes; a["reachability.new"] != "" {
				got = append(got, a["reachability.old"]+" "+a["reachability.new"])
			}
		}
		return got
	}
	reach(true)
	reach(false)
	reach(false)
	reach(true)
	if got := strings.Join(told(), ", "); got != "reachable unreachable, unreachable reachable" {
		t.Errorf("told %q", got)
	}
	// Another leads: what this one knew last is no news when it leads again.
	b.manager.set(func(m *fakeManager) { m.leader.NodeID = nodeID(3) })
	until(t, "the new leader", func() bool {
		return slices.ContainsFunc(b.replay(`filters={"node":["n3"]}`), func(m events.Message) bool { return m.Actor.Attributes["leader.new"] == "true" })
	})
	b.manager.set(func(m *fakeManager) { m.leader.NodeID = "" })
	reach(false)
	if got := told(); len(got) != 2 {
		t.Errorf("told %q", got)
	}
}

// TestEvents_OfAnotherManager: a node's manager comes and goes, and comes back with another
// database.
func TestEvents_OfAnotherManager(t *testing.T) {
	b := newBench(t)
	b.record()
	b.node.setManager(nil)
	for i := range 3 {
		b.manager = &fakeManager{id: nodeID(1), store: newStore(t)}
		b.node.setManager(b.manager)
		// Who is told of the manager subscribes, and the leader is told once it has.
		until(t, "the recorder to look", func() (seen bool) {
			b.manager.set(func(m *fakeManager) { seen = m.asked > 0 })
			return seen
		})
		b.addNode(i + 1)
		until(t, "the event", func() bool {
			return slices.ContainsFunc(b.replay(`filters={"type":["node"]}`), func(m events.Message) bool {
				return m.Actor.ID == nodeID(i+1) && m.Action == events.ActionCreate
			})
		})
		b.node.setManager(nil)
	}
}

// TestEventsUntil ends by itself.
func TestEventsUntil(t *testing.T) {
	b := newBench(t)
	until := time.Now().Add(300 * time.Millisecond)
	began := time.Now()
	b.do("GET", "/events?until="+stamp(until), nil).want(t, 200, "")
	if took := time.Since(began); took < 200*time.Millisecond || took > 30*time.Second {
		t.Errorf("ended after %s", took)
	}
}

func TestRecorderIsBounded(t *testing.T) {
	r := newRecorder()
	_, slow, stop := r.listen(func() {})
	defer stop()
	for i := range 3 * behindEvents {
		r.record(events.Message{TimeNano: int64(i)})
	}
	past, _, stopToo := r.listen(func() {})
	defer stopToo()
	if len(past) != keptEvents || past[keptEvents-1].TimeNano != 3*behindEvents-1 {
		t.Errorf("%d events are kept", len(past))
	}
	count := 0
	for range slow {
		count++
	}
	if count != behindEvents {
		t.Errorf("a slow listener got %d events before it was cut off", count)
	}
}

func TestDifference(t *testing.T) {
	b := newBench(t)
	keep, drop := b.create(spec("keep")), b.create(spec("drop"))
	before := b.view()
	b.post(keep, "", spec("keep", func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = ptr(uint64(2)) })).want(t, 200, "")
	b.do("DELETE", "/services/drop", nil).want(t, 200, "")
	b.create(spec("new"))
	b.do("DELETE", "/nodes/n3?force=1", nil).want(t, 200, "")
	b.addNode(4)
	var got []string
	for _, change := range difference(before, b.view()) {
		got = append(got, fmt.Sprintf("%T %v %v", change.After, change.Before != nil, change.After != nil))
	}
	if len(got) != 5 {
		t.Errorf("%q (dropped %s)", got, drop)
	}
}

// atFlush is a client that does something as soon as it has the answer's head.
type atFlush struct {
	*httptest.ResponseRecorder
	once sync.Once
	do   func()
}

func (w *atFlush) Flush() { w.once.Do(w.do) }

// TestEventsBeginWithTheHead: a client that has the head of the answer misses
// nothing that happens from then on.
func TestEventsBeginWithTheHead(t *testing.T) {
	b := newBench(t)
	w := &atFlush{ResponseRecorder: httptest.NewRecorder(), do: func() {
		b.server.events.record(events.Message{Type: events.ServiceEventType, Action: events.ActionCreate, Scope: "swarm", TimeNano: time.Now().UnixNano()})
	}}
	until := stamp(time.Now().Add(300 * time.Millisecond))
	b.handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1.51/events?until="+until, nil))
	if got := w.Body.String(); !strings.Contains(got, `"create"`) {
		t.Errorf("the client saw %q", got)
	}
}

// TestRecorder_TimesAreUniqueAndNeverGoBack is what a client relies on that comes back
// and asks for what was since the last event that it saw.
func TestRecorder_TimesAreUniqueAndNeverGoBack(t *testing.T) {
	r := newRecorder()
	for _, at := range []int64{5e9, 5e9, 3e9, 5e9 + 1, 7e9} {
		r.record(events.Message{Time: at / 1e9, TimeNano: at})
	}
	var got []int64
	for _, m := range r.kept_() {
		if m.Time != m.TimeNano/1e9 {
			t.Errorf("an event is of second %d and of nanosecond %d", m.Time, m.TimeNano)
		}
		got = append(got, m.TimeNano-5e9)
	}
	if want := []int64{0, 1, 2, 3, 2e9}; !slices.Equal(got, want) {
		t.Errorf("events are %v ns after the first; want %v", got, want)
	}
}
