package clustertest

import (
	"fmt"
	"testing"
	"time"
)

// A manager that was away for long catches up at once when it is back, so that the
// next one may fail: raft by itself would leave it alone for up to ten seconds more.
func TestCluster_ReturnedManagerIsOfUseAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{SnapshotEntries: 20})
		for round, away := range []time.Duration{20 * time.Second, 2 * time.Minute} {
			leader := c.Leader()
			var others []*Machine
			for _, m := range c.Machines {
				if m != leader {
					others = append(others, m)
				}
			}
			others[0].Crash()
			for i := range 50 * round { // in the second round it needs a snapshot
				leader.Create(Spec(fmt.Sprintf("meanwhile-%d", i), "app:1", 0))
			}
			time.Sleep(away)
			others[0].Restart()
			began := time.Now()
			c.Eventually(time.Minute, "the returned manager has caught up", func() error {
				views := c.Views()
				view, runs := views[others[0].Name]
				if want := views[leader.Name].Index(); !runs || view.Index() < want {
					return fmt.Errorf("it isn't at %d", want)
				}
				return nil
			})
			if took := time.Since(began); took > time.Second {
				t.Errorf("away for %v, it took %v to catch up; want at most 1s", away, took)
			}
			others[1].Crash()
			began = time.Now()
			leader.Create(Spec(fmt.Sprintf("after-%d", round), "app:1", 0))
			if took := time.Since(began); took > time.Second {
				t.Errorf("away for %v: the next write took %v; want at most 1s", away, took)
			}
			others[1].Restart()
			c.Eventually(20*time.Second, "three managers run", func() error {
				if len(c.Views()) != 3 {
					return fmt.Errorf("%d do", len(c.Views()))
				}
				return nil
			})
			c.Same()
		}
	})
}
