package gossip

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// TestChanged_AlsoOfWhatLastedAMoment has a member suspected and object at once, at other moments each
// time, while somebody reads the members: what was read last is true when no signal comes any more.
func TestChanged_AlsoOfWhatLastedAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := swarmOn(t, &network{}, 3)
		suspected := 0
		for i := range 200 {
			time.Sleep(time.Second + time.Duration(i)*7*time.Millisecond)
			incarnation, _ := all[0].states.Load().incarnation("node2")
			all[0].guard.Inject(accuse("node2", "node3", incarnation))
			synctest.Wait()
			read := all[0].Members()
			if slices.Contains(read, cluster.Member{NodeID: "node2", Addr: read[1].Addr, Suspect: true}) {
				suspected++
			}
			for quiet := false; !quiet; {
				select {
				case <-all[0].Changed():
					read = all[0].Members()
				case <-time.After(2 * time.Second):
					quiet = true
				}
			}
			if now := all[0].Members(); !slices.Equal(read, now) {
				t.Fatalf("round %d: %v was read last, and it is %v without a signal", i, read, now)
			}
		}
		if suspected < 100 {
			t.Errorf("only %d of 200 suspicions were seen", suspected)
		}
	})
}
