package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

// generic is any object, whatever its fields.
type generic = map[any]any

func genericOf(t failing, data []byte) generic {
	var g generic
	if err := cluster.Decode(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func encode(t failing, v any) []byte {
	data, err := cluster.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type failing interface{ Fatal(...any) }

// foreign makes an object one of another version's: with fields that this one doesn't
// know, in itself and in what is in it, and without some that are zero.
func foreign(t *rapid.T, g generic) {
	keys := slices.SortedFunc(maps.Keys(g), func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	for _, key := range keys {
		switch value := g[key].(type) {
		case generic:
			if key != "Labels" && len(value) > 0 && rapid.Bool().Draw(t, "inside") {
				foreign(t, value)
			}
		case bool:
			if !value && rapid.Bool().Draw(t, "without") {
				delete(g, key)
			}
		}
	}
	if rapid.Bool().Draw(t, "add") {
		if _, numbered := g[uint64(1)]; numbered {
			g[uint64(77)] = rapid.SampledFrom([]any{true, "new", generic{"a": uint64(1)}}).Draw(t, "number 77")
		} else {
			g["ZNew"] = rapid.SampledFrom([]any{true, "new", generic{"a": uint64(1)}, []any{"x"}}).Draw(t, "ZNew")
		}
	}
}

// versionKey is where an object has its version.
func versionKey(k kindNumber) any {
	if k == tasks.number {
		return uint64(2)
	}
	return "v"
}

// What other versions wrote is in snapshots, and so in the digest, as they wrote it:
// whoever knows all of it has the same bytes.
func TestForeign_SnapshotsHaveTheBytesOfTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, log := history(t)
		want := map[string][]byte{}
		for _, l := range log {
			e, err := decodeEntry(l.Data)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range e.Changes {
				if r.Object == nil {
					_, object, _, _ := r.object(newInterner())
					delete(want, cameKey(r.Kind, object))
					continue
				}
				_, object, _, err := r.object(newInterner())
				if err != nil {
					t.Fatal(err)
				}
				g := genericOf(t, r.Object)
				foreign(t, g)
				e.Changes[i].Object = encode(t, g)
				g[versionKey(r.Kind)] = l.Index
				want[cameKey(r.Kind, object)] = encode(t, g)
			}
			if l.Data, err = encodeEntry(e); err != nil {
				t.Fatal(err)
			}
		}
		cut := rapid.IntRange(0, len(log)).Draw(t, "cut")
		data := snapshotOf(t, replay(t, nil, log[:cut]).View())
		s := replay(t, data, log[cut:])
		count := 0
		for n, object := range s.View().s.objects() {
			count++
			got, err := s.View().s.encode(n, object)
			if err != nil {
				t.Fatal(err)
			}
			if w := want[cameKey(n, object)]; !bytes.Equal(got, w) {
				t.Fatalf("%T is written as %x, and came as %x", object, got, w)
			}
		}
		if count != len(want) || s.View().s.came.Len() > count {
			t.Fatalf("%d objects, want %d; %d are kept as they came", count, len(want), s.View().s.came.Len())
		}
	})
}

// Among managers of one version nothing is kept twice.
func TestForeign_CostsNothingAmongEquals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, log := history(t)
		again := replay(t, snapshotOf(t, s.View()), nil)
		if n := s.View().s.came.Len() + again.View().s.came.Len() + replay(t, nil, log).View().s.came.Len(); n != 0 {
			t.Fatalf("%d objects are kept as they came", n)
		}
	})
	s, _ := lead(t)
	put(t, s, filled()...)
	if n := s.View().s.came.Len(); n != 0 {
		t.Errorf("%d of %d objects are kept as they came", n, len(filled()))
	}
}

// foreignNode is a leader whose database has a node of a newer version's.
func foreignNode(t *testing.T) (*Store, *instant) {
	t.Helper()
	s, r := lead(t)
	node := &cluster.Node{ID: "n1", Role: swarm.NodeRoleWorker}
	put(t, s, node)
	g := genericOf(t, encode(t, node))
	g["ZNew"] = "kept"
	g["Status"].(generic)["Inner"] = uint64(7)
	data, err := encodeEntry(entry{Base: s.View().Index(), Changes: []record{{Kind: nodes.number, Object: encode(t, g)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err, _ := r.Apply(data, 0).Response().(error); err != nil {
		t.Fatal(err)
	}
	return s, r
}

// unknownOf is what a node has that this version doesn't know.
func unknownOf(t *testing.T, s *Store) (outer, inner any) {
	t.Helper()
	data, err := s.View().s.encode(nodes.number, s.View().Node("n1"))
	if err != nil {
		t.Fatal(err)
	}
	g := genericOf(t, data)
	if v := g["v"]; v != s.View().Node("n1").Version {
		t.Errorf("it is written with version %v, and has %d", v, s.View().Node("n1").Version)
	}
	return g["ZNew"], g["Status"].(generic)["Inner"]
}

func TestForeign_AnOlderLeaderWritesItBack(t *testing.T) {
	s, r := foreignNode(t)
	for i := range 3 {
		err := s.Update(t.Context(), func(tx *Tx) error {
			for range 2 { // twice in one transaction
				changed := *tx.Node("n1")
				changed.Status.Message += "x"
				if err := tx.Put(&changed); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if outer, inner := unknownOf(t, s); outer != "kept" || inner != uint64(7) || len(s.View().Node("n1").Status.Message) != 2*(i+1) {
			t.Fatalf("after write %d: %v, %v, %+v", i+1, outer, inner, s.View().Node("n1"))
		}
	}
	// All that leads to the same.
	other := newStore(t)
	for _, l := range r.entries {
		if err := other.FSM().Apply(l); err != nil {
			t.Fatal(err)
		}
	}
	same(t, other.View(), s.View())
}

func TestForeign_IsGoneWithItsObject(t *testing.T) {
	s, _ := foreignNode(t)
	failed := errors.New("no")
	err := s.Update(t.Context(), func(tx *Tx) error {
		tx.Delete(tx.Node("n1"))
		if err := tx.Put(&cluster.Node{ID: "n1"}); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(tx *Tx) error {
		changed := *tx.Node("n1")
		return tx.Put(&changed)
	}); err != nil {
		t.Fatal(err)
	}
	if outer, inner := unknownOf(t, s); outer != "kept" || inner != uint64(7) {
		t.Fatalf("after an update that failed: %v, %v", outer, inner)
	}
	if err := s.Update(t.Context(), func(tx *Tx) error {
		tx.Delete(tx.Node("n1"))
		return tx.Put(&cluster.Node{ID: "n1"})
	}); err != nil {
		t.Fatal(err)
	}
	if outer, inner := unknownOf(t, s); outer != nil || inner != nil || s.View().s.came.Len() != 0 {
		t.Fatalf("removed and made anew: %v, %v", outer, inner)
	}
}

func TestForeign_IsInARestoredBackup(t *testing.T) {
	s, _ := foreignNode(t)
	var backup bytes.Buffer
	if err := s.View().Backup(&backup); err != nil {
		t.Fatal(err)
	}
	r, err := ReadBackup(&backup)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Edit(s.Now(), func(tx *Tx) error {
		changed := *tx.Node("n1")
		changed.Status.Message = "restored"
		return tx.Put(&changed)
	}); err != nil {
		t.Fatal(err)
	}
	restored := restoredFrom(t, r.View())
	if outer, inner := unknownOf(t, restored); outer != "kept" || inner != uint64(7) {
		t.Fatalf("%v, %v", outer, inner)
	}
}

// restoredFrom is a store that was restored from a view's snapshot.
func restoredFrom(t *testing.T, v View) *Store {
	t.Helper()
	s := newStore(t)
	if err := s.FSM().Restore(reader(snapshotOf(t, v))); err != nil {
		t.Fatal(err)
	}
	return s
}
