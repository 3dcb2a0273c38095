package clustertest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// vote waits until so many managers answer and vote, and all have the same database.
func (c *Cluster) vote(count int) {
	c.t.Helper()
	c.Eventually(time.Minute, fmt.Sprint(count, " managers vote"), func() error {
		votes, err := c.Leader().voters()
		if err == nil && votes != count {
			err = fmt.Errorf("%d do", votes)
		}
		return err
	})
	c.Same()
}

// has fails the test unless each running manager has the services.
func (c *Cluster) has(names []string) {
	c.t.Helper()
	for host, view := range c.Views() {
		for _, name := range names {
			if view.ServiceNamed(name) == nil {
				c.t.Errorf("service %s was acknowledged, and %s doesn't have it", name, host)
			}
		}
	}
}

// note creates a service and remembers its name. Leadership may be lost meanwhile; then
// it tries another name.
func note(by *Machine, names *[]string) {
	by.cluster.t.Helper()
	try := 0
	by.cluster.Eventually(30*time.Second, "a service is created", func() error {
		try++
		name := fmt.Sprintf("note-%d-%d", len(*names), try)
		err := by.Try(http.MethodPost, "/services/create", Spec(name, "app:1", 0), nil)
		if err == nil {
			*names = append(*names, name)
		}
		return err
	})
}

// flip flips a bit at a place of a machine's file.
func flip(t *testing.T, m *Machine, name string, at int) {
	t.Helper()
	path := m.path(name)
	data, err := os.ReadFile(path)
	if err == nil {
		data[at] ^= 4
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// boltMeta is a byte of the log file that is always in use.
const boltMeta = 40

// spoils are ways to lose a database, all of which must be noticed.
var spoils = map[string]func(t *testing.T, m *Machine){
	"a flipped bit in the log": func(t *testing.T, m *Machine) { flip(t, m, "raft/raft.db", boltMeta) },
	"a flipped bit in a snapshot": func(t *testing.T, m *Machine) {
		if m.FlipBit(rand.New(rand.NewPCG(1, 1)), "raft/snapshots/*/state.bin") == "" {
			t.Fatal("there is no snapshot")
		}
	},
	"an empty log": func(t *testing.T, m *Machine) {
		if err := os.Truncate(m.path("raft/raft.db"), 0); err != nil {
			t.Fatal(err)
		}
	},
	"no log": func(t *testing.T, m *Machine) {
		if err := os.Remove(m.path("raft/raft.db")); err != nil {
			t.Fatal(err)
		}
	},
	"no snapshots": func(t *testing.T, m *Machine) {
		if err := os.RemoveAll(m.path("raft/snapshots")); err != nil {
			t.Fatal(err)
		}
	},
	"no folder": func(t *testing.T, m *Machine) {
		if err := os.RemoveAll(m.path("raft")); err != nil {
			t.Fatal(err)
		}
	},
}

// A manager whose database is damaged gets that of the others, whoever leads.
func TestRepair_AManagerGetsTheOthersDatabase(t *testing.T) {
	for what, spoil := range spoils {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 1, Options{SnapshotEntries: 15})
				id := c.Machines[0].Create(Spec("web", "app:1", 4))
				c.Runs(10*time.Second, id, "app:1", 4)
				names := []string{"web"}
				for range 20 {
					note(c.Machines[1], &names)
				}
				time.Sleep(3 * time.Second)
				for _, leads := range []bool{true, false} {
					victim := c.Leader()
					if !leads {
						victim = c.Machines[(indexOf(c, victim)+1)%3]
					}
					victim.Crash()
					note(c.Leader(), &names)
					spoil(t, victim)
					victim.Restart()
					c.vote(3)
					c.has(names)
					note(victim, &names)
				}
				c.Runs(10*time.Second, id, "app:1", 4)
			})
		})
	}
}

// Acknowledged writes that only one whole manager has, since the other that had them
// lost its database, aren't lost: the third can't be elected before it has them.
func TestRepair_LosesNoAcknowledgedWrite(t *testing.T) {
	for _, what := range []string{"a flipped bit in the log", "an empty log", "no log", "no folder"} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 0, Options{})
				leader := c.Leader()
				at := indexOf(c, leader)
				lost, behind := c.Machines[(at+1)%3], c.Machines[(at+2)%3]
				c.Partition(behind)
				var names []string
				for range 10 {
					note(leader, &names)
				}
				lost.Crash()
				spoils[what](t, lost)
				leader.Crash()
				c.Heal()
				lost.Restart()
				time.Sleep(20 * time.Second)
				if err := behind.Try(http.MethodPost, "/services/create", Spec("refused", "app:1", 0), nil); err == nil {
					t.Error("a manager that lacks writes and one that lost them took a write")
				}
				var info struct{ Swarm swarm.Info }
				lost.Do(http.MethodGet, "/info", nil, &info)
				if !strings.Contains(info.Swarm.Error, "raft.db") || info.Swarm.ControlAvailable {
					t.Errorf("the damaged manager says %+v", info.Swarm)
				}
				leader.Restart()
				c.vote(3)
				c.has(names)
			})
		})
	}
}

// A repair that is cut off at any time goes on at the next start.
func TestRepair_GoesOnAfterACrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		var names []string
		victim := c.Machines[(indexOf(c, c.Leader())+1)%3]
		for i := range 25 {
			other := c.Machines[(indexOf(c, victim)+1)%3]
			note(other, &names)
			victim.Crash()
			if _, err := os.Stat(victim.path("raft/raft.db")); err == nil {
				flip(t, victim, "raft/raft.db", boltMeta)
			}
			victim.Restart()
			time.Sleep(time.Duration(i) * 9 * time.Millisecond)
		}
		c.vote(3)
		c.has(names)
	})
}

// The only manager has nobody to ask: it stops, and says what to do.
func TestRepair_TheOnlyManagerSaysWhatToDo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		only := c.Machines[0]
		only.Crash()
		flip(t, only, "raft/raft.db", boltMeta)
		only.Restart()
		c.Eventually(10*time.Second, "the daemon stopped", func() error {
			if !only.off() {
				return fmt.Errorf("it runs")
			}
			return nil
		})
		err := only.Failure()
		for _, want := range []string{only.path("raft/raft.db"), "no other manager", only.path(""), "skep cluster restore"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it stopped because %v; want %q in it", err, want)
			}
		}
	})
}

// Whatever bit flips in whatever file of one manager: it is a whole manager again, or
// says which file is lost for good, which only the key file can be. SKEP_FLIPS=all
// tries a thousand.
func TestRepair_AnyBitOfAnyFile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{SnapshotEntries: 15})
		random := rand.New(rand.NewPCG(3, 4))
		var names []string
		patterns := []string{"raft/raft.db", "raft/snapshots/*/state.bin", "raft/snapshots/*/meta.json", "node.sealed", "agent.sealed", "node.sealed.copy", "identity.key"}
		rounds := 40
		if os.Getenv("SKEP_FLIPS") == "all" {
			rounds = 1000
		}
		for i := range rounds {
			victim := c.Machines[random.IntN(3)]
			victim.Crash()
			note(c.Leader(), &names)
			pattern := patterns[i%len(patterns)]
			before, _ := os.ReadFile(victim.path(pattern))
			what := victim.FlipBit(random, pattern)
			if i%3 == 0 {
				what += ", " + victim.CutFile(random, pattern)
			}
			victim.Restart()
			if pattern == "identity.key" {
				if err := victim.Failure(); err == nil || !strings.Contains(err.Error(), victim.path("identity.key")) || !strings.Contains(err.Error(), "join the cluster again") {
					t.Errorf("%s: %v", what, err)
				}
				if err := os.WriteFile(victim.path(pattern), before, 0o600); err != nil {
					t.Fatal(err)
				}
				victim.Restart()
			}
			c.vote(3)
			c.has(names)
			if t.Failed() {
				t.Fatalf("after %s on %s", what, victim.Name)
			}
		}
	})
}

// What a node knows of its cluster is lost only when both copies are.
func TestRepair_ANodeThatKnowsNothingSaysWhatToDo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		worker := c.Machines[1]
		worker.Crash()
		flip(t, worker, "node.sealed", 99)
		if err := os.Truncate(worker.path("node.sealed.copy"), 7); err != nil {
			t.Fatal(err)
		}
		worker.Restart()
		if err := worker.Failure(); err == nil || !strings.Contains(err.Error(), worker.path("node.sealed")) || !strings.Contains(err.Error(), "join the cluster again") {
			t.Errorf("it stopped because %v", err)
		}
	})
}
