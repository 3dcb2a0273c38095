package clustertest

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"skep/cluster"
)

func TestSilence_ALeaderThatIsCutOffIsReplaced(t *testing.T) {
	for _, managers := range []int{3, 5} {
		t.Run(fmt.Sprint(managers, " managers"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, managers, 0, Options{})
				for round := range 6 {
					leader := c.Leader()
					time.Sleep(time.Duration(700+37*round) * time.Millisecond)
					c.Partition(leader)
					cut := time.Now()
					var other *Machine
					for _, m := range c.Machines {
						if m != leader {
							other = m
						}
					}
					// Raft by itself takes up to 0.9 s, and a split vote longer.
					if took := accepted(other, fmt.Sprint("web-", round)).Sub(cut); took > 450*time.Millisecond {
						t.Errorf("round %d: the next write was accepted %v after the leader was cut off", round, took)
					}
					c.Heal()
					c.Same()
				}
			})
		})
	}
}

func TestSilence_WhoAloneHearsNothingDeposesNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		term := leader.manager().Health().Term
		var deaf *Machine
		for _, m := range c.Machines {
			if m != leader {
				deaf = m
			}
		}
		c.Mute(leader, deaf)
		time.Sleep(10 * time.Second)
		if now := leader.manager().Health(); !now.Leader || now.Term != term {
			t.Errorf("%s leads: %v, in term %d after %d, since %s hears nothing of it", leader.Name, now.Leader, now.Term, term, deaf.Name)
		}
		c.Heal()
		c.Same()
	})
}

func TestLatency_FarApart(t *testing.T) {
	far := func(c *Cluster) (elections uint64) {
		for _, m := range c.Machines {
			c.Delay(m, 90*time.Millisecond) // 360 ms to another one and back
		}
		time.Sleep(time.Minute)
		before := c.term()
		time.Sleep(2 * time.Minute)
		return c.term() - before
	}
	bubble(t, func(t *testing.T) {
		if elections := far(Start(t, 3, 1, Options{})); elections < 10 {
			t.Errorf("with the timing of a LAN there were %d elections in two minutes: this test shows nothing", elections)
		}
	})
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{Latency: cluster.LatencyWAN})
		if elections := far(c); elections > 0 {
			t.Errorf("%d elections in two minutes", elections)
		}
		var all []time.Duration
		for i := range 5 {
			leader := c.Leader()
			c.Partition(leader)
			cut := time.Now()
			other := slices.IndexFunc(c.Machines, func(m *Machine) bool { return m != leader })
			all = append(all, accepted(c.Machines[other], fmt.Sprint("web", i)).Sub(cut))
			c.Heal()
			time.Sleep(30 * time.Second)
		}
		// One time in twenty-five both stand at once, and again a round later.
		if slices.Sort(all); all[2] > 5*time.Second || all[4] > 10*time.Second {
			t.Errorf("the next writes were accepted %v after the leader was cut off, want 5s in the middle, and 10s at most", all)
		}
	})
}

// term is the newest that any manager knows.
func (c *Cluster) term() (newest uint64) {
	for _, m := range c.Machines {
		if running := m.manager(); running != nil {
			newest = max(newest, running.Health().Term)
		}
	}
	return newest
}

// accepted sends writes without waiting for those before, and tells when one was accepted.
func accepted(through *Machine, name string) time.Time {
	first := make(chan time.Time, 1)
	for i := 0; ; i++ {
		go func() {
			if through.Try(http.MethodPost, "/services/create", Spec(fmt.Sprint(name, "-", i), "app:1", 0), nil) == nil {
				select {
				case first <- time.Now():
				default:
				}
			}
		}()
		select {
		case at := <-first:
			return at
		case <-time.After(10 * time.Millisecond):
		}
	}
}
