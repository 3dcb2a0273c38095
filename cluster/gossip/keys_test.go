package gossip

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"skep/cluster"
)

// TestSetKeys_AnAddedKeyNeverSends looks at the sending key all the time, while a
// new key takes the place of the oldest, as in the leader's rotation.
func TestSetKeys_AnAddedKeyNeverSends(t *testing.T) {
	sending, before, oldest, added := key(1), key(2), key(3), key(4)
	g := start(t, Config{NodeID: "node1", BindAddr: addr(46, 1), Keys: [][]byte{sending, before, oldest}})
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if !bytes.Equal(g.ring.GetPrimaryKey(), sending) {
				t.Error("another key sent for a moment")
				return
			}
		}
	})
	for range 20000 {
		for _, keys := range [][][]byte{{sending, before, added}, {sending, before, oldest}} {
			if err := g.SetKeys(keys); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	watching.Wait()
}

// TestSetKeys_LetsAnOutdatedNodeBackIn: a node that slept through several rotations
// has no key that anybody uses; with the ring from its session it is a member again.
func TestSetKeys_LetsAnOutdatedNodeBackIn(t *testing.T) {
	ring := [][]byte{key(5), key(4)}
	here := start(t, Config{NodeID: "node1", BindAddr: addr(47, 1), Keys: ring})
	back := start(t, Config{NodeID: "node2", BindAddr: addr(47, 2), Keys: [][]byte{key(1), key(2)}})
	seeds := []cluster.Member{{NodeID: "node1", Addr: addr(47, 1)}}
	if err := back.Join(t.Context(), seeds); err == nil {
		t.Fatal("joined with keys that nobody uses any more")
	}
	if err := back.SetKeys(ring); err != nil {
		t.Fatal(err)
	}
	if err := back.Join(t.Context(), seeds); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gossip{here, back} {
		await(t, 10*time.Second, g, func(members []cluster.Member) bool { return len(members) == 2 })
	}
}
