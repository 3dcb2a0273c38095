package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"skep/cluster"
)

// history draws updates and runs them, and returns the log that they made and
// the store that they were proposed on.
func history(t *rapid.T) (*Store, []*raft.Log) {
	clock := time.Unix(1_700_000_000, 0)
	s := New(Config{Log: quiet, Now: func() time.Time { clock = clock.Add(time.Second); return clock }})
	var log []*raft.Log
	index := uint64(0)
	for range rapid.IntRange(0, 12).Draw(t, "updates") {
		b := s.newBatch()
		r := &request{fn: func(tx *Tx) error { change(t, tx); return nil }, ran: make(chan struct{}), answer: make(chan error, 1)}
		b.run(r)
		if r.result != nil {
			t.Fatal(r.result)
		}
		data, err := encodeEntry(entry{Base: b.scratch.applied, Changes: b.records})
		if err != nil {
			t.Fatal(err)
		}
		// Raft's own entries take indexes that the FSM never sees.
		index += rapid.Uint64Range(1, 3).Draw(t, "gap")
		entry := &raft.Log{Index: index, Term: 1, Data: data}
		if response := s.FSM().Apply(entry); response != nil {
			t.Fatal(response)
		}
		log = append(log, entry)
	}
	return s, log
}

// change draws a few puts and deletes of few objects, so that they meet.
func change(t *rapid.T, tx *Tx) {
	digit := func(label string) string { return fmt.Sprint(rapid.IntRange(0, 4).Draw(t, label)) }
	for range rapid.IntRange(1, 6).Draw(t, "changes") {
		var object any
		switch rapid.IntRange(1, 8).Draw(t, "kind") {
		case 1:
			c := &cluster.Cluster{ID: "c", RootCert: []byte(digit("cert"))}
			c.Spec.Labels = map[string]string{"b": digit("label"), "a": "", "c": "x"}
			object = c
		case 2:
			object = &cluster.Node{ID: "n" + digit("node"), Status: cluster.NodeStatus{State: cluster.NodeReady, Since: tx.Now()}}
		case 3:
			object = service("s"+digit("service"), "name"+digit("name"))
		case 4:
			object = &cluster.Revision{ServiceID: "s" + digit("service"), Number: uint64(rapid.IntRange(1, 3).Draw(t, "number")), Auth: digit("auth")}
		case 5:
			object = &cluster.Rollout{ServiceID: "s" + digit("service"), Total: 3}
		case 6:
			task := &cluster.Task{ID: "t" + digit("task"), ServiceID: "s" + digit("service"), Slot: 2, Desired: cluster.StateRunning}
			if rapid.Bool().Draw(t, "assigned") {
				task.NodeID = "n" + digit("node")
			}
			object = task
		case 7:
			secret := &cluster.Secret{ID: "x" + digit("secret")}
			secret.Spec.Name, secret.Spec.Data = "Name"+digit("name"), []byte(digit("data"))
			object = secret
		case 8:
			config := &cluster.Config{ID: "x" + digit("config")}
			config.Spec.Name = "name" + digit("name")
			object = config
		}
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			tx.Delete(object)
		} else if err := tx.Put(object); err != nil && !strings.Contains(err.Error(), "already exists") {
			t.Fatal(err)
		}
	}
}

// replay makes a store of a snapshot (or nothing) and a log.
func replay(t *rapid.T, snapshot []byte, log []*raft.Log) *Store {
	s := New(Config{Log: quiet, Fatal: func(err error) { t.Fatalf("fatal: %v", err) }})
	if snapshot != nil {
		if err := s.FSM().Restore(reader(snapshot)); err != nil {
			t.Fatal(err)
		}
	}
	for _, entry := range log {
		if response := s.FSM().Apply(entry); response != nil {
			t.Fatal(response)
		}
	}
	return s
}

func TestApply_SameEntriesGiveTheSameDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live, log := history(t)
		same(t, replay(t, nil, log).View(), live.View())
	})
}

func TestApply_KeepsIndexesAndOldViews(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, log := history(t)
		s := replay(t, nil, nil)
		var views []View
		var digests [][32]byte
		for _, entry := range log {
			s.FSM().Apply(entry)
			checkIndexes(t, s.View())
			views, digests = append(views, s.View()), append(digests, s.View().Digest())
		}
		for i, v := range views {
			if v.Digest() != digests[i] {
				t.Fatalf("the view at index %d changed", v.Index())
			}
		}
	})
}

// checkIndexes compares the lookups by index with what the tables have.
func checkIndexes(t *rapid.T, v View) {
	services := map[string][]string{}
	nodes := map[string][]string{}
	for task := range v.Tasks() {
		services[task.ServiceID] = append(services[task.ServiceID], task.ID)
		if task.NodeID != "" {
			nodes[task.NodeID] = append(nodes[task.NodeID], task.ID)
		}
		if task.Version == 0 || task.Version > v.Index() {
			t.Fatalf("task %s has version %d at index %d", task.ID, task.Version, v.Index())
		}
	}
	for i := range 5 {
		var byService, byNode []string
		for task := range v.TasksOfService(fmt.Sprint("s", i)) {
			byService = append(byService, task.ID)
		}
		for task := range v.TasksOfNode(fmt.Sprint("n", i)) {
			byNode = append(byNode, task.ID)
		}
		if want := services[fmt.Sprint("s", i)]; !slices.Equal(byService, want) {
			t.Fatalf("tasks of service s%d are %q, want %q", i, byService, want)
		}
		if want := nodes[fmt.Sprint("n", i)]; !slices.Equal(byNode, want) {
			t.Fatalf("tasks of node n%d are %q, want %q", i, byNode, want)
		}
		named := v.ServiceNamed(fmt.Sprint("NAME", i))
		for service := range v.Services() {
			if (service.Spec.Name == fmt.Sprint("name", i)) != (service == named) {
				t.Fatalf("service named name%d is %+v, but there is %+v", i, named, service)
			}
		}
		secret, config := v.SecretNamed(fmt.Sprint("NAME", i)), v.ConfigNamed(fmt.Sprint("NAME", i))
		for o := range v.Secrets() {
			if (o.Spec.Name == fmt.Sprint("Name", i)) != (o == secret) {
				t.Fatalf("secret named name%d is %+v, but there is %+v", i, secret, o)
			}
		}
		for o := range v.Configs() {
			if (o.Spec.Name == fmt.Sprint("name", i)) != (o == config) {
				t.Fatalf("config named name%d is %+v, but there is %+v", i, config, o)
			}
		}
	}
}

func TestApply_RoundTripsEveryField(t *testing.T) {
	s, _ := lead(t)
	task := &cluster.Task{
		ID: "t1", ServiceID: "s1", Revision: 3, Slot: 4, NodeID: "n1", Desired: cluster.StateRunning,
		RunningAt: 5, NotBefore: 6, Status: cluster.TaskStatus{
			State: cluster.StateFailed, Since: 7, Applied: 8, Message: "started", Err: "exit 1", ContainerID: "c", PID: 9, ExitCode: -10,
		},
	}
	node := &cluster.Node{ID: "n1", ManagerAddr: "127.0.1.1:2377", Status: cluster.NodeStatus{Message: "m", Since: time.Unix(5, 6).UTC()}}
	wantTask, wantNode := *task, *node
	put(t, s, task, node)
	got := *s.View().Task("t1")
	wantTask.Version, wantTask.CreatedAt, wantTask.UpdatedAt = 1, got.CreatedAt, got.UpdatedAt
	if diff := cmp.Diff(wantTask, got); diff != "" {
		t.Errorf("task:\n%s", diff)
	}
	gotNode := *s.View().Node("n1")
	wantNode.Meta = gotNode.Meta
	if diff := cmp.Diff(wantNode, gotNode); diff != "" {
		t.Errorf("node:\n%s", diff)
	}
	if gotNode.CreatedAt.Location() != time.UTC {
		t.Error("times aren't in UTC")
	}
}

func TestApply_StopsAtWhatItMustNotGuess(t *testing.T) {
	good := must(encodeEntry(entry{Changes: []record{{Kind: nodes.number, Object: must(cluster.Encode(&cluster.Node{ID: "n1"}))}}}))
	newer := slices.Clone(good)
	newer[0] = format + 1
	for _, c := range []struct {
		what  string
		data  []byte
		wants string
	}{
		{"a newer format", newer, "install the version that the other managers run"},
		{"nothing", nil, "empty"},
		{"half an entry", good[:len(good)/2], "decode"},
		{"an unknown kind", must(encodeEntry(entry{Changes: []record{{Kind: 200, ID: "x"}}})), "kind 200 isn't known"},
		{"an object that isn't one", must(encodeEntry(entry{Changes: []record{{Kind: nodes.number, Object: []byte{0xff}}}})), "decode"},
		{"a base that this manager doesn't have", must(encodeEntry(entry{Base: 7})), "lacks entries"},
	} {
		t.Run(c.what, func(t *testing.T) {
			var fatal error
			s := New(Config{Log: quiet, Fatal: func(err error) { fatal = err }})
			response, _ := s.FSM().Apply(&raft.Log{Index: 9, Data: c.data}).(error)
			if response == nil || fatal == nil || !strings.Contains(fatal.Error(), c.wants) || !strings.Contains(fatal.Error(), "entry 9") {
				t.Errorf("response %v, fatal %v, want %q", response, fatal, c.wants)
			}
			if err := s.FSM().Apply(&raft.Log{Index: 10, Data: good}); err == nil || s.View().Index() != 0 {
				t.Errorf("it went on: %v, index %d", err, s.View().Index())
			}
		})
	}
}

func TestApply_RefusesAStaleBase(t *testing.T) {
	a, b := newStore(t), newStore(t)
	node := func(base uint64, id string) []byte {
		return must(encodeEntry(entry{Base: base, Changes: []record{{Kind: nodes.number, Object: must(cluster.Encode(&cluster.Node{ID: id}))}}}))
	}
	for _, s := range []*Store{a, b} {
		if err := s.FSM().Apply(&raft.Log{Index: 3, Data: node(0, "n1")}); err != nil {
			t.Fatal(err)
		}
		if err, _ := s.FSM().Apply(&raft.Log{Index: 4, Data: node(0, "n2")}).(error); err == nil {
			t.Error("an entry on an older state was written")
		}
		if err := s.FSM().Apply(&raft.Log{Index: 5, Data: node(3, "n3")}); err != nil {
			t.Fatal(err)
		}
	}
	if v := a.View(); v.Node("n2") != nil || v.NodeCount() != 2 || v.Index() != 5 {
		t.Errorf("%d nodes at index %d", v.NodeCount(), v.Index())
	}
	same(t, a.View(), b.View())
}

func TestWait(t *testing.T) {
	s, _ := lead(t)
	put(t, s, &cluster.Node{ID: "n1"})
	if err := s.Wait(t.Context(), 1); err != nil {
		t.Errorf("for what is there: %v", err)
	}
	reached := make(chan error, 1)
	go func() { reached <- s.Wait(t.Context(), 3) }()
	put(t, s, &cluster.Node{ID: "n2"})
	put(t, s, &cluster.Node{ID: "n3"})
	if err := <-reached; err != nil {
		t.Errorf("for what comes: %v", err)
	}
	ctx, cancel := contextOf(t, 10*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, 99); err == nil {
		t.Error("for what never comes: nil")
	}
	if len(s.waiters) != 0 {
		t.Errorf("%d waiters are left", len(s.waiters))
	}
}
