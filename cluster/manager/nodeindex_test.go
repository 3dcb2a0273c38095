package manager

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

// TestNumberNodes: all nodes get indexes, each its own, as long as there are any; those that
// have one keep it; and who has none gets that of a node that is removed.
func TestNumberNodes(t *testing.T) {
	peers, _ := newPeers(t, "a")
	m := peers["a"]
	m.takeOver(t, nil, true)
	update := func(change func(tx *store.Tx) error) {
		t.Helper()
		if err := m.store.Update(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	const over = 5
	update(func(tx *store.Tx) error {
		for i := range cluster.MaxIndex + over {
			node := &cluster.Node{ID: fmt.Sprintf("n%d", i)}
			if i < 10 {
				node.Index = uint16(i + 1)
			}
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.numberNodes(ctx) }()
	defer func() { stop(); <-done }()
	without := func() (n int) {
		for node := range m.store.View().Nodes() {
			if node.Index == 0 {
				n++
			}
		}
		return n
	}
	eventually(t, "all indexes are given out", func() bool { return without() == over })
	for i := range 10 {
		if node := m.store.View().Node(fmt.Sprintf("n%d", i)); node.Index != uint16(i+1) {
			t.Errorf("node %s had index %d, and has %d", node.ID, i+1, node.Index)
		}
	}
	update(func(tx *store.Tx) error { tx.Delete(tx.Node("n3")); return nil })
	eventually(t, "one that waits has the index that was freed", func() bool { return without() == over-1 })
	if holder, held := m.store.View().Holder(cluster.UniqueIndex(4)); !held {
		t.Errorf("index 4 is %v's", holder)
	}
}

// TestChooseIndex: what is chosen is free and has room in marks, and one that was just freed is
// seldom chosen next.
func TestChooseIndex(t *testing.T) {
	peers, _ := newPeers(t, "a")
	m := peers["a"]
	m.takeOver(t, nil, true)
	again, draws := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var first, second uint16
		err := m.store.Update(t.Context(), func(tx *store.Tx) error {
			a := &cluster.Node{ID: rapid.StringMatching("[a-z0-9]{25}").Draw(rt, "node")}
			b := rapid.StringMatching("[a-z0-9]{25}").Draw(rt, "next")
			a.Index = chooseIndex(tx.View, a.ID)
			if first = a.Index; tx.Node(a.ID) != nil || a.ID == b {
				return nil
			}
			if err := tx.Put(a); err != nil {
				return err
			}
			if second = chooseIndex(tx.View, b); second == first {
				rt.Errorf("index %d is chosen twice", first)
			}
			tx.Delete(a)
			if draws++; chooseIndex(tx.View, b) == first {
				again++
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		for _, index := range []uint16{first, second} {
			if index > cluster.MaxIndex {
				rt.Errorf("index %d is chosen", index)
			}
		}
	})
	if again > draws/10 {
		t.Errorf("an index that was just freed is the next one's %d of %d times", again, draws)
	}
}
