package gossip

import (
	"errors"
	"sync"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/gossip/guard"
)

// TestRing_TheFirstKeySends: of a ring's keys each opens, and the first one alone seals,
// also while the ring is replaced all the time, as in the leader's rotation.
func TestRing_TheFirstKeySends(t *testing.T) {
	sending, before, oldest, added := key(1), key(2), key(3), key(4)
	var all, first guard.Ring
	if err := errors.Join(all.Set([][]byte{sending, before, oldest}), first.Set([][]byte{sending})); err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]byte{sending, before, oldest} {
		var other guard.Ring
		if err := other.Set([][]byte{key}); err != nil {
			t.Fatal(err)
		}
		text, err := all.Open(other.Seal(nil, []byte("text"), []byte("c1")), []byte("c1"))
		if err != nil || string(text) != "text" {
			t.Errorf("opened %q: %v", text, err)
		}
		if _, err := all.Open(other.Seal(nil, []byte("text"), []byte("c2")), []byte("c1")); err == nil {
			t.Error("opened what is about something else")
		}
	}
	stop := make(chan struct{})
	var rotating sync.WaitGroup
	rotating.Go(func() {
		for {
			for _, third := range [][]byte{added, oldest} {
				if err := all.Set([][]byte{sending, before, third}); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 20000 {
		if _, err := first.Open(all.Seal(nil, []byte("text"), nil), nil); err != nil {
			t.Error("another key sent for a moment")
			break
		}
	}
	close(stop)
	rotating.Wait()
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
