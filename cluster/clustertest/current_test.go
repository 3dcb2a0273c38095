package clustertest

import (
	"fmt"
	"testing"
	"time"

	"skep/cluster/manager"
)

// A manager that starts has the database as of its last snapshot until it has heard of a leader: no agent is told
// what was so long ago.
func TestManager_ServesAgentsOnceItIsCurrent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{})
		var off *Machine
		for _, m := range c.Machines[:3] {
			if m != c.Leader() {
				off = m
			}
		}
		c.wire.delay(c.Leader().IP, 10*time.Millisecond)
		for round := range 5 {
			off.Crash()
			for i := range 20 {
				c.Leader().Create(Spec(fmt.Sprint("meanwhile-", round, "-", i), "app:1", 0))
			}
			want := c.Leader().manager().Store().View().Index()
			off.Restart()
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				if m, runs := off.node.Manager().(*manager.Manager); runs && len(m.Sessions()) > 0 {
					if at := m.Store().View().Index(); at < want {
						t.Fatalf("round %d: it serves an agent as of %d, want at least %d", round, at, want)
					}
					break
				}
				if time.Now().After(end) {
					t.Fatalf("round %d: no agent has a session with it", round)
				}
			}
		}
	})
}
