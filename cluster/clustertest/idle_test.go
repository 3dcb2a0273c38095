package clustertest

import (
	"fmt"
	"maps"
	"testing"
	"time"
)

// TestIdle_FewMessages counts what a cluster says on its connections while nothing happens,
// since most of what an idle node costs is to wake up for a message. Gossip isn't among it:
// see gossip's TestCalm_FewPackets.
func TestIdle_FewMessages(t *testing.T) {
	for _, services := range []int{0, 10} {
		t.Run(fmt.Sprintf("%d services", services), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 2, Options{})
				for i := range services {
					id := c.Machines[0].Create(Spec(fmt.Sprintf("web%d", i), "app:1", 3))
					c.Runs(10*time.Second, id, "app:1", 3)
				}
				time.Sleep(time.Minute)
				leader := c.Leader()
				c.wire.mu.Lock()
				before := maps.Clone(c.wire.sent)
				c.wire.mu.Unlock()
				time.Sleep(time.Minute)
				c.wire.mu.Lock()
				defer c.wire.mu.Unlock()
				for i, m := range c.Machines {
					perSecond := float64(c.wire.sent[m.IP]-before[m.IP]) / 60
					// Nine heartbeats in a second to each follower, answered by it; a relay and its
					// answer; each agent's heartbeats, which it and its manager send.
					most := 18.0
					switch {
					case m == leader:
						most = 30
					case i >= 3:
						most = 2.0
					}
					t.Logf("%s: %.1f messages in a second", m.Name, perSecond)
					if perSecond > most {
						t.Errorf("%s sends %.1f messages in a second while nothing happens, want at most %.1f", m.Name, perSecond, most)
					}
				}
			})
		})
	}
}

// TestIdle_FollowersHearOfCommits writes now and then: followers must not learn of it only
// when raft next tells them by itself.
func TestIdle_FollowersHearOfCommits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		for i := range 20 {
			time.Sleep(7 * time.Second)
			c.Machines[0].Create(Spec(fmt.Sprintf("web%d", i), "app:1", 0))
			began := time.Now()
			for _, m := range c.Machines {
				for m.manager().Store().View().ServiceCount() != i+1 {
					time.Sleep(time.Millisecond)
				}
			}
			if took := time.Since(began); took > 20*time.Millisecond {
				t.Errorf("write %d was on all managers after %v", i, took)
			}
		}
	})
}

// TestIdle_StallsAreBorne has what a leader says and hears come 80 ms late for a moment: nobody
// stands for election for that, though there are few heartbeats.
func TestIdle_StallsAreBorne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		for range 50 {
			time.Sleep(5*time.Second + 37*time.Millisecond)
			c.Delay(leader, 80*time.Millisecond)
			time.Sleep(300 * time.Millisecond)
			c.Delay(leader, 0)
		}
		if now := c.Leader(); now != leader {
			t.Errorf("%s leads now, %s did", now.Name, leader.Name)
		}
	})
}
