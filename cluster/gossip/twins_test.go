package gossip

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// TestTwins_AreNamed: a node's machine is cloned, and both gossip: the others name the two
// addresses, for as long as it is so. One that only moved isn't named.
func TestTwins_AreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &network{}
		all := swarmOn(t, net, 4)
		copied := start(t, Config{NodeID: "node4", Transport: net.plug("10.0.0.9")})
		if err := copied.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: "10.0.0.1"}}); err != nil {
			t.Log(err) // It may be told that its name is taken.
		}
		time.Sleep(2 * time.Minute)
		pair := []string{"10.0.0.4:17946", "10.0.0.9:17946"}
		named := 0
		for _, g := range all[:3] {
			for _, twin := range g.Twins() {
				got := []string{twin.Addr, twin.Other}
				if slices.Sort(got); twin.NodeID != "node4" || !slices.Equal(got, pair) {
					t.Errorf("twins are %+v", twin)
				}
				named++
			}
		}
		if named == 0 {
			t.Error("nobody names the two machines")
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * twinKept)
		for _, g := range all[:3] {
			if twins := g.Twins(); len(twins) > 0 {
				t.Errorf("when the copy is gone: %+v", twins)
			}
		}
		// The node moves.
		if err := all[3].Close(); err != nil {
			t.Error(err)
		}
		moved := start(t, Config{NodeID: "node4", Transport: net.plug("10.0.0.10")})
		if err := moved.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: "10.0.0.1"}}); err != nil {
			t.Log(err)
		}
		time.Sleep(time.Minute)
		for _, g := range all[:3] {
			if twins := g.Twins(); len(twins) > 0 {
				t.Errorf("after it moved: %+v", twins)
			}
		}
	})
}
