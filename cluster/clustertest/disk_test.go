package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A manager whose disk fails, fills up or hangs stops and says what to do; the others
// take writes again within a second.
func TestDisk_AManagerThatCantWriteStops(t *testing.T) {
	faults := []struct {
		name string
		harm func(*Machine)
		says string
		// within is how soon the others take writes again: with a disk that hangs, after
		// that is noticed.
		within time.Duration
	}{
		{"full", (*Machine).FillDisk, "no space left on device", time.Second},
		{"failing", (*Machine).FailDisk, "input/output error", time.Second},
		{"hung for a minute", func(m *Machine) { m.HangDisk(time.Minute) }, "the disk hangs", 3 * time.Second},
		{"hung for ever", func(m *Machine) { m.HangDisk(0) }, "the disk hangs", 3 * time.Second},
	}
	for _, fault := range faults {
		for _, leads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, leader: %v", fault.name, leads), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := Start(t, 3, 0, Options{})
					victim := c.Leader()
					if !leads {
						victim = c.Machines[(indexOf(c, victim)+1)%3]
					}
					other := c.Machines[(indexOf(c, victim)+1)%3]
					acked := []string{victim.Create(Spec("before", "app:1", 1))}
					fault.harm(victim)
					began := time.Now()
					for i := 0; len(acked) < 5; i++ {
						var made struct{ ID string }
						if err := other.Try("POST", "/services/create", Spec(fmt.Sprint("after-", i), "app:1", 0), &made); err == nil {
							if took := time.Since(began); len(acked) == 1 && took > fault.within {
								t.Errorf("the first write was taken after %v", took)
							}
							acked = append(acked, made.ID)
						}
						time.Sleep(10 * time.Millisecond)
					}
					c.Eventually(5*time.Second, "the manager stopped", func() error {
						if !victim.off() {
							return fmt.Errorf("it runs")
						}
						return nil
					})
					if err := victim.Failure(); err == nil || !strings.Contains(err.Error(), fault.says) {
						t.Errorf("it stopped because %v", err)
					} else {
						t.Log(err)
					}
					victim.MendDisk()
					victim.Restart()
					c.Same()
					for _, id := range acked {
						if c.Leader().node.Manager().Store().View().Service(id) == nil {
							t.Errorf("service %s was acknowledged and is lost", id)
						}
					}
				})
			})
		}
	}
}

func indexOf(c *Cluster, m *Machine) int {
	for i, other := range c.Machines {
		if other == m {
			return i
		}
	}
	return -1
}
