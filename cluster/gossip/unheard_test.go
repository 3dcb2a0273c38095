package gossip

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// TestUnheard_NamesWhoIsReachedByTCPOnly drops the packets to one member, as firewalls do that
// let only TCP through: it is alive for all, and Unheard says what is wrong.
func TestUnheard_NamesWhoIsReachedByTCPOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		all := swarmOn(t, &net, 5)
		time.Sleep(time.Minute)
		if unheard := all[0].Unheard(t.Context()); len(unheard) > 0 {
			t.Errorf("nothing is wrong, and %v aren't heard", unheard)
		}
		net.mu.Lock()
		net.drop = func(_, to string) bool { return to == "10.0.0.5" }
		net.mu.Unlock()
		time.Sleep(time.Minute)
		if unheard := all[0].Unheard(t.Context()); !slices.Equal(unheard, []string{"node5"}) {
			t.Errorf("%v aren't heard, want node5", unheard)
		}
		if !slices.ContainsFunc(all[0].Members(), func(m cluster.Member) bool { return m.NodeID == "node5" && !m.Suspect }) {
			t.Errorf("it isn't alive: %v", all[0].Members())
		}
	})
}
