package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

// user is a transaction of a user's on a state of its own.
func user() *Tx { return &Tx{View: View{newState()}, by: "uid 0 on n1", now: time.Unix(1000, 0)} }

// fill puts objects without asking.
func (tx *Tx) fill(objects ...any) {
	for _, object := range objects {
		n := kindNumbers[reflect.TypeOf(object)]
		tx.s.table(n).put(nil, object)
	}
}

func secretOf(id string, data []byte) *cluster.Secret {
	return &cluster.Secret{ID: id, Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: id}, Data: data}}
}

func replicated(id string, replicas uint64) *cluster.Service {
	s := service(id, id)
	s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	return s
}

func TestAttack_TheDatabaseIsBounded(t *testing.T) {
	global := func(id string) *cluster.Service {
		s := service(id, id)
		s.Spec.Mode.Global = &swarm.GlobalService{}
		return s
	}
	data := make([]byte, 500<<10)
	for name, test := range map[string]struct {
		fill func(tx *Tx)
		// more is refused; fits is what it is to be replaced by, or may be there beside it.
		more, fits any
		says       string
	}{
		"secrets": {func(tx *Tx) {
			for i := range maxSecrets {
				tx.fill(secretOf(fmt.Sprint("s", i), nil))
			}
		}, secretOf("new", nil), secretOf("s1", []byte("x")), "20000 secrets"},
		"configs": {func(tx *Tx) {
			for i := range maxConfigs {
				tx.fill(&cluster.Config{ID: fmt.Sprint("c", i), Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: fmt.Sprint("c", i)}}})
			}
		}, &cluster.Config{ID: "new", Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "new"}}}, secretOf("s1", []byte("x")), "20000 configs"},
		"services": {func(tx *Tx) {
			for i := range maxServices {
				tx.fill(service(fmt.Sprint("s", i), fmt.Sprint("s", i)))
			}
		}, service("new", "new"), replicated("s1", 5), "100000 services"},
		"bytes": {func(tx *Tx) {
			for i := range maxBytes / len(data) {
				tx.fill(secretOf(fmt.Sprint("s", i), data))
			}
		}, secretOf("new", data), secretOf("s1", data[:1000]), "512 MB"},
		"bytes of specs": {func(tx *Tx) {
			for i := range maxBytes / len(data) {
				tx.fill(secretOf(fmt.Sprint("s", i), data))
			}
		}, &cluster.Revision{ServiceID: "s1", Number: 1, Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Env: []string{strings.Repeat("x", 500<<10)}}}}, service("web", "web"), "512 MB"},
		"tasks": {func(tx *Tx) {
			tx.fill(replicated("s1", 1_000_000), replicated("s2", 999_990))
		}, replicated("new", 11), replicated("s1", 1_000_010), "2000000 tasks"},
		"tasks of global services": {func(tx *Tx) {
			for i := range 1000 {
				tx.fill(&cluster.Node{ID: fmt.Sprint("n", i)})
			}
			for i := range 2000 {
				tx.fill(global(fmt.Sprint("s", i)))
			}
		}, global("new"), replicated("s1", 1), "2000000 tasks"},
	} {
		t.Run(name, func(t *testing.T) {
			tx := user()
			test.fill(tx)
			if err := tx.Put(test.more); !errors.Is(err, cluster.ErrPrecondition) || !strings.Contains(err.Error(), test.says) ||
				!strings.Contains(err.Error(), ": remove those") && !strings.Contains(err.Error(), ": give them fewer") {
				t.Errorf("one too many: %v", err)
			}
			if err := tx.Put(test.fits); err != nil {
				t.Errorf("what fits: %v", err)
			}
			tx.by = ""
			if err := tx.Put(test.more); err != nil {
				t.Errorf("the leader itself: %v", err)
			}
		})
	}
}

// The weight that a database keeps is that of its objects, whatever is put, removed, taken back
// or read from a snapshot.
func TestBounds_WeightIsThatOfTheObjects(t *testing.T) {
	counted := func(s *state) (all weight) {
		for n, object := range s.objects() {
			all = all.plus(kinds[n-1].weightOf(object))
		}
		return all
	}
	rapid.Check(t, func(t *rapid.T) {
		s := newState()
		for range rapid.IntRange(1, 5).Draw(t, "transactions") {
			tx := &Tx{View: View{s.copy()}, now: time.Unix(1000, 0)}
			for range rapid.IntRange(1, 10).Draw(t, "changes") {
				id := rapid.StringMatching("[a-e]").Draw(t, "id")
				text := strings.Repeat("x", rapid.IntRange(0, 100).Draw(t, "size"))
				spec := swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: text}}
				object := rapid.SampledFrom([]any{
					secretOf(id, []byte(text)), replicated(id, uint64(len(text))), &cluster.Revision{ServiceID: id, Number: 1, Spec: spec, Auth: text},
					&cluster.Config{ID: id, Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: id}, Data: []byte(text)}}, &cluster.Node{ID: id},
				}).Draw(t, "object")
				if rapid.Bool().Draw(t, "remove") {
					tx.Delete(object)
				} else if err := tx.Put(object); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.Bool().Draw(t, "undo") {
				tx.undo()
			}
			s = tx.s
			if got, want := s.weight(), counted(s); got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
		}
		var snapshot bytes.Buffer
		if _, err := (View{s}).write(&snapshot); err != nil {
			t.Fatal(err)
		}
		restored, err := readSnapshot(io.NopCloser(&snapshot), newInterner())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := restored.weight(), counted(s); got != want {
			t.Fatalf("from a snapshot %+v, want %+v", got, want)
		}
	})
}
