package clustertest

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
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
		{"full", (*Machine).FillDisk, "free space on the disk with ", time.Second},
		{"failing", (*Machine).FailDisk, "replace it, and start the daemon again", time.Second},
		{"hung for a minute", func(m *Machine) { m.HangDisk(time.Minute) }, "look for errors of the disk", 2 * time.Second},
		{"hung for ever", func(m *Machine) { m.HangDisk(0) }, "look for errors of the disk", 2 * time.Second},
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

// A disk that hangs for a second is one that is slow: nobody stops for it.
func TestDisk_AManagerBearsASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		for _, m := range c.Machines {
			m.HangDisk(time.Second)
			id := c.Machines[0].Create(Spec("slow-"+m.Name, "app:1", 0))
			time.Sleep(2 * time.Second)
			if c.Leader().node.Manager().Store().View().Service(id) == nil {
				t.Errorf("service %s is lost", id)
			}
		}
		for _, m := range c.Machines {
			if m.off() {
				t.Errorf("%s stopped: %v", m.Name, m.Failure())
			}
		}
		c.Same()
	})
}

// A daemon that finds a full disk when it starts says so; a worker's goes on, since its
// containers need nothing of the disk, and writes down what it knows when there is room.
func TestDisk_FullAtTheStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{Log: slog.New(slog.DiscardHandler)})
		id := c.Machines[0].Create(Spec("web", "app:1", 4))
		c.Runs(10*time.Second, id, "app:1", 4)
		manager, worker := c.Machines[(indexOf(c, c.Leader())+1)%3], c.Machines[3]
		manager.FillDisk()
		worker.FillDisk()
		manager.Crash()
		manager.Restart()
		if said := manager.node.Info().Error; manager.off() || !strings.Contains(said, "room on the disk with "+manager.path("")) {
			t.Errorf("the manager, off: %v, %v, says %q", manager.off(), manager.Failure(), said)
		}
		c.Leader().Update(id, func(spec *swarm.ServiceSpec) { *spec.Mode.Replicated.Replicas = 8 })
		c.Runs(60*time.Second, id, "app:1", 8)
		if worker.off() {
			t.Errorf("the worker stopped: %v", worker.Failure())
		}
		worker.MendDisk()
		manager.MendDisk()
		c.vote(3)
	})
}
