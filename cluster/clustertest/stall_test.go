package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// writes waits until a write is taken by the machine.
func (c *Cluster) writes(limit time.Duration, by *Machine, name string) string {
	c.t.Helper()
	var made struct{ ID string }
	c.Eventually(limit, "a write", func() error {
		return by.Try("POST", "/services/create", Spec(name, "app:1", 0), &made)
	})
	return made.ID
}

// runs fails the test when one of the machines has ended.
func (c *Cluster) runs(machines ...*Machine) {
	c.t.Helper()
	for _, m := range machines {
		if m.off() {
			c.t.Errorf("%s stopped: %v", m.Name, m.Failure())
		}
	}
}

// A lone manager whose disk hangs waits for it, since nobody could take over, and leads on:
// also when it hangs for so long that raft gives no outcome of a write.
func TestStall_ALoneManagerWaits(t *testing.T) {
	for _, limit := range []time.Duration{5 * time.Second, 15 * time.Second, time.Minute} {
		t.Run(limit.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 1, 1, Options{})
				m := c.Machines[0]
				before := m.Create(Spec("before", "app:1", 1))
				for round := range 2 {
					m.HangDisk(limit)
					for i := range 4 {
						go func() {
							_ = m.Try("POST", "/services/create", Spec(fmt.Sprintf("during-%d-%d", round, i), "app:1", 0), nil)
						}()
					}
					time.Sleep(limit - 3400*time.Millisecond)
					asked := time.Now()
					var status struct{ Problems []string }
					if err := m.Try("GET", "/skep/v1/status", nil, &status); err != nil {
						t.Error(err)
					} else if all := strings.Join(status.Problems, "\n"); !strings.Contains(all, "its disk hasn't taken a write for") {
						t.Errorf("the status says %q", all)
					}
					time.Sleep(3400*time.Millisecond - time.Since(asked))
					back := time.Now()
					id := c.writes(5*time.Second, m, fmt.Sprint("after-", round))
					t.Logf("a write was taken %v after the disk was back", time.Since(back))
					for _, id := range []string{before, id} {
						if m.node.Manager().Store().View().Service(id) == nil {
							t.Errorf("service %s is lost", id)
						}
					}
				}
				c.runs(c.Machines...)
			})
		})
	}
}

// The disks of all managers hang at once, as those on one storage do: none ends.
func TestStall_AllAtOnce(t *testing.T) {
	for _, limit := range []time.Duration{3 * time.Second, 20 * time.Second} {
		t.Run(limit.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 0, Options{})
				before := c.Machines[0].Create(Spec("before", "app:1", 1))
				defer c.runs(c.Machines...)
				began := time.Now()
				for _, m := range c.Machines {
					m.HangDisk(limit)
				}
				_ = c.Machines[0].Try("POST", "/services/create", Spec("during", "app:1", 0), nil)
				time.Sleep(limit - time.Since(began))
				c.writes(5*time.Second, c.Machines[0], "after")
				c.runs(c.Machines...)
				c.Same()
				if c.Leader().node.Manager().Store().View().Service(before) == nil {
					t.Errorf("service %s is lost", before)
				}
			})
		})
	}
}

// One after the other, as when a backup freezes each machine in turn: who ended isn't there
// again, as with autolock, and the next ones wait.
func TestStall_OneAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		c.Machines[0].Create(Spec("before", "app:1", 1))
		for i := range 3 {
			victim := c.Leader()
			other := slices.DeleteFunc(c.Alive(), func(m *Machine) bool { return m == victim })[0]
			victim.HangDisk(5 * time.Second)
			c.writes(20*time.Second, other, fmt.Sprint("during-", i))
			time.Sleep(15 * time.Second)
			if ended := len(c.Machines) - len(c.Alive()); ended != 1 {
				t.Fatalf("%d managers ended after %d disks hung; want the first", ended, i+1)
			}
		}
	})
}

// A leader that stops hands over to a manager that is there, though another one that is away
// had as much of the log.
func TestStop_HandsOverToOneThatIsThere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 5, 0, Options{})
		for round := range 4 {
			leader := c.Leader()
			others := slices.DeleteFunc(c.Alive(), func(m *Machine) bool { return m == leader })
			others[0].Crash()
			time.Sleep(400 * time.Millisecond)
			term := leader.manager().Health().Term
			stopped := time.Now()
			off := make(chan struct{})
			go func() { leader.Stop(); close(off) }()
			took := accepted(others[1], fmt.Sprint("web-", round)).Sub(stopped)
			<-off
			t.Logf("round %d: the next write was accepted after %v", round, took)
			if now := c.Leader().manager().Health().Term; now != term+1 || took > 100*time.Millisecond {
				t.Errorf("round %d: the next write was accepted %v after the leader stopped, in term %d after %d", round, took, now, term)
			}
			others[0].Restart()
			leader.Restart()
			c.vote(5)
		}
	})
}
