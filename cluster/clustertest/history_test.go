package clustertest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/docker/docker/api/types/swarm"
)

// What a client asks of one service, which it knows by name.
const (
	opRead     = "read"
	opCreate   = "create"
	opUpdate   = "update"
	opScale    = "scale"
	opRollback = "rollback"
	opRemove   = "remove"
)

// How a request ended.
const (
	done    = "done"
	refused = "refused"
	// unknown: the answer never came, or said that nobody knows.
	unknown = "unknown"
	// absent and present are refusals that tell something of the state.
	absent  = "absent"
	present = "present"
)

// request is what was asked; a value is in one spec only, ever, but for its number of
// replicas.
type request struct {
	name, kind string
	// from is what the client had read before, to the value and replicas the number that
	// it wants.
	from     seen
	to       string
	replicas int
}

// seen is what a client sees of a service.
type seen struct {
	value    string
	replicas int
}

// answer is what came of it, and what was read.
type answer struct {
	outcome string
	seen
}

// held is a service as the model has it: what is seen, and the value that a rollback
// goes back to, with as many replicas: scaling changes the number in both. No value
// means that there is no service.
type held struct {
	seen
	previous string
}

// model is what a database that does one thing after another would answer.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		names := map[string]int{}
		var parts [][]porcupine.Operation
		for _, op := range history {
			name := op.Input.(request).name
			at, ok := names[name]
			if !ok {
				at = len(parts)
				names[name] = at
				parts = append(parts, nil)
			}
			parts[at] = append(parts[at], op)
		}
		return parts
	},
	Init: func() []any { return []any{held{}} },
	Step: func(state, input, output any) []any {
		was, asked, got := state.(held), input.(request), output.(answer)
		switch got.outcome {
		case refused:
			return []any{was}
		case absent:
			return only(was.value == "", was)
		case present:
			return only(was.value != "", was)
		}
		if asked.kind == opRead {
			return only(got.outcome == done && was.seen == got.seen, was)
		}
		// What was read before was still so: the version says it.
		can := was.seen == asked.from
		next := was
		switch asked.kind {
		case opCreate:
			can, next = was.value == "", held{seen: seen{asked.to, asked.replicas}}
		case opUpdate:
			next = held{seen{asked.to, was.replicas}, was.value}
		case opScale:
			next.replicas = asked.replicas
		case opRollback:
			can = can && was.previous != ""
			next = held{seen{was.previous, was.replicas}, was.value}
		case opRemove:
			// By ID, and so without a version: whatever its value is.
			can, next = was.value != "", held{}
		}
		if got.outcome == done {
			return only(can, next)
		}
		if can {
			return []any{was, next}
		}
		return []any{was}
	},
}

func only(ok bool, state held) []any {
	if !ok {
		return nil
	}
	return []any{state}
}

// history is what clients did and saw.
type history struct {
	mu         sync.Mutex // guards the fields below
	operations []porcupine.Operation
	// values counts the values given, so that each is one of its own.
	values int
	began  time.Time
}

// valueLabel holds a service's value.
const valueLabel = "value"

// client asks for random things until stop is closed, of a random manager each time.
func (h *history) client(c *Cluster, id int, random *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+random.IntN(1500)) * time.Millisecond):
		}
		m := c.Machines[random.IntN(c.managers)]
		if m.off() {
			continue
		}
		h.step(m, id, random)
	}
}

// step reads a service and changes it, or makes it where there is none.
func (h *history) step(m *Machine, client int, random *rand.Rand) {
	name := fmt.Sprint("kept-", random.IntN(4))
	var service swarm.Service
	switch read := h.do(m, client, request{name: name, kind: opRead}, &service); {
	case read.outcome == absent:
		h.do(m, client, request{name: name, kind: opCreate, to: h.value(), replicas: 3 + random.IntN(4)}, nil)
		return
	case read.outcome != done:
		return
	}
	asked := request{name: name, kind: opUpdate, from: sight(service)}
	switch random.IntN(16) {
	case 0:
		asked.kind = opRemove
	case 1, 2:
		asked.kind = opRollback
	case 3, 4:
		asked.kind, asked.replicas = opScale, 3+random.IntN(4)
	case 5, 6, 7, 8, 9:
		asked.to = h.value()
	default:
		return
	}
	h.do(m, client, asked, &service)
}

// hurry asks for a service again and again for a second, and changes it unless it is
// only to read. It is one without tasks, so that this is all that happens.
func (h *history) hurry(m *Machine, read bool, client int, random *rand.Rand) {
	for end := time.Now().Add(time.Second); time.Now().Before(end) && !m.off(); {
		var service swarm.Service
		switch got := h.do(m, client, request{name: hurried, kind: opRead}, &service); {
		case got.outcome == done && !read:
			h.do(m, client, request{name: hurried, kind: opUpdate, from: sight(service), to: h.value()}, &service)
		case got.outcome == absent && !read:
			h.do(m, client, request{name: hurried, kind: opCreate, to: h.value()}, nil)
		}
		time.Sleep(time.Duration(1+random.IntN(20)) * time.Millisecond)
	}
}

// hurried is the name of the service that is asked for in a hurry.
const hurried = "hurried"

func (h *history) value() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.values++
	return fmt.Sprint("v", h.values)
}

// do asks and notes what was asked and answered. service is read into, or what is
// to be changed.
func (h *history) do(m *Machine, client int, asked request, service *swarm.Service) answer {
	call := time.Since(h.began)
	err := m.ask(asked, service)
	got := answer{outcome: outcomeOf(err)}
	end := time.Since(h.began)
	switch {
	case asked.kind == opRead && got.outcome == unknown:
		return got
	case asked.kind == opRead && got.outcome == done:
		got.seen = sight(*service)
	case got.outcome == unknown:
		end = math.MaxInt64 // it may yet happen
	case got.outcome == absent && asked.kind != opRead && asked.kind != opRemove:
		got.outcome = refused // another service of that name may be there by now
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: asked, Call: int64(call), Output: got, Return: int64(end)})
	return got
}

func sight(service swarm.Service) seen {
	return seen{service.Spec.Labels[valueLabel], int(*service.Spec.Mode.Replicated.Replicas)}
}

// ask sends the request.
func (m *Machine) ask(asked request, service *swarm.Service) error {
	switch asked.kind {
	case opRead:
		return m.Try(http.MethodGet, "/services/"+asked.name, nil, service)
	case opCreate:
		spec := Spec(asked.name, "app:1", uint64(asked.replicas))
		spec.UpdateConfig.Parallelism = 1 + uint64(asked.name[len(asked.name)-1]%2)
		spec.RollbackConfig = spec.UpdateConfig
		spec.Labels = map[string]string{valueLabel: asked.to}
		return m.Try(http.MethodPost, "/services/create", spec, nil)
	case opRemove:
		return m.Try(http.MethodDelete, "/services/"+asked.name, nil, nil)
	}
	path := fmt.Sprintf("/services/%s/update?version=%d", service.ID, service.Version.Index)
	if asked.kind == opRollback {
		return m.Try(http.MethodPost, path+"&rollback=previous", service.Spec, nil)
	}
	spec := service.Spec
	if asked.kind == opScale {
		replicas := uint64(asked.replicas)
		spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
		return m.Try(http.MethodPost, path, spec, nil)
	}
	spec.Labels = map[string]string{valueLabel: asked.to}
	if len(asked.to)%2 == 0 {
		spec.TaskTemplate.ContainerSpec.Image = "app:" + asked.to // a rollout, too
	}
	return m.Try(http.MethodPost, path, spec, nil)
}

// outcomeOf tells what is certain after an answer.
func outcomeOf(err error) string {
	if err == nil {
		return done
	}
	var answered *Refusal
	if !errors.As(err, &answered) || answered.Code >= 500 {
		return unknown
	}
	switch {
	case answered.Code == http.StatusNotFound:
		return absent
	case answered.Code == http.StatusConflict:
		return present
	}
	return refused
}

// check tells whether the history could be that of one thing after another.
func (h *history) check(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	kinds := map[string]int{}
	for _, op := range h.operations {
		kinds[op.Input.(request).kind+" "+op.Output.(answer).outcome]++
	}
	t.Logf("%d requests: %v", len(h.operations), kinds)
	m := model.ToModel()
	for _, part := range m.Partition(h.operations) {
		if porcupine.CheckOperations(m, part) {
			continue
		}
		// The shortest beginning that is wrong already says where to look.
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		end := sort.Search(len(part), func(n int) bool { return !porcupine.CheckOperations(m, part[:n]) })
		var text strings.Builder
		for _, op := range part[max(0, end-30):end] {
			fmt.Fprintf(&text, "\n  client %d %v–%v %+v: %+v", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
		}
		t.Errorf("what clients saw of %s isn't linearizable:%s", part[0].Input.(request).name, text.String())
	}
}

func TestHistory_KnowsAStaleRead(t *testing.T) {
	op := func(call, end int64, asked request, got answer) porcupine.Operation {
		asked.name = "web"
		return porcupine.Operation{Input: asked, Call: call, Output: got, Return: end}
	}
	create := op(0, 1, request{kind: opCreate, to: "v1"}, answer{outcome: done})
	lost := op(2, math.MaxInt64, request{kind: opUpdate, from: seen{value: "v1"}, to: "v2"}, answer{outcome: unknown})
	tests := []struct {
		name string
		ops  []porcupine.Operation
		ok   bool
	}{
		{"a lost answer's write is seen late", []porcupine.Operation{create, lost,
			op(3, 4, request{kind: opRead}, answer{done, seen{value: "v1"}}), op(5, 6, request{kind: opRead}, answer{done, seen{value: "v2"}})}, true},
		{"never back", []porcupine.Operation{create, lost,
			op(3, 4, request{kind: opRead}, answer{done, seen{value: "v2"}}), op(5, 6, request{kind: opRead}, answer{done, seen{value: "v1"}})}, false},
		{"a stale read", []porcupine.Operation{create, op(2, 3, request{kind: opUpdate, from: seen{value: "v1"}, to: "v2"}, answer{outcome: done}),
			op(4, 5, request{kind: opRead}, answer{done, seen{value: "v1"}})}, false},
		{"two updates of one value", []porcupine.Operation{create, op(2, 3, request{kind: opUpdate, from: seen{value: "v1"}, to: "v2"}, answer{outcome: done}),
			op(2, 3, request{kind: opUpdate, from: seen{value: "v1"}, to: "v3"}, answer{outcome: done})}, false},
		{"a lost write", []porcupine.Operation{create, op(2, 3, request{kind: opRead}, answer{outcome: absent})}, false},
		{"a rollback of a rollback", []porcupine.Operation{create, op(2, 3, request{kind: opUpdate, from: seen{value: "v1"}, to: "v2"}, answer{outcome: done}),
			op(4, 5, request{kind: opRollback, from: seen{value: "v2"}}, answer{outcome: done}), op(6, 7, request{kind: opRollback, from: seen{value: "v1"}}, answer{outcome: done}),
			op(8, 9, request{kind: opRead}, answer{done, seen{value: "v2"}})}, true},
		{"a rollback after scaling", []porcupine.Operation{create, op(2, 3, request{kind: opUpdate, from: seen{value: "v1"}, to: "v2"}, answer{outcome: done}),
			op(4, 5, request{kind: opScale, from: seen{value: "v2"}, replicas: 3}, answer{outcome: done}),
			op(6, 7, request{kind: opRollback, from: seen{"v2", 3}}, answer{outcome: done}),
			op(8, 9, request{kind: opRead}, answer{done, seen{"v1", 3}})}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := porcupine.CheckOperations(model.ToModel(), test.ops); got != test.ok {
				t.Errorf("linearizable: %v; want %v", got, test.ok)
			}
		})
	}
}

// TestHistory_ABrokenOffAnswerIsUnknown: a leader that dies while it answers has the manager
// in between break its own answer off.
func TestHistory_ABrokenOffAnswerIsUnknown(t *testing.T) {
	half := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"ID":`)
		panic(http.ErrAbortHandler)
	})
	err := serve(half, httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/services/create", nil))
	if !errors.Is(err, io.ErrUnexpectedEOF) || outcomeOf(err) != unknown {
		t.Errorf("the client is told: %v", err)
	}
}
