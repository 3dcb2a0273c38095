package clustertest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// knowsVote tells whether a machine's manager has a configuration in which another one
// votes.
func knowsVote(m, of *Machine) bool {
	running, ok := m.manager().(interface{ Reachable() map[string]bool })
	if !ok {
		return false
	}
	_, votes := running.Reachable()[nodeID(of)]
	return votes
}

// soon waits, a millisecond of the bubble at a time.
func (c *Cluster) soon(what string, so func() bool) {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("it never is so that %s", what)
		}
	}
}

// writable waits until a write is accepted, which takes an election.
func (c *Cluster) writable(by *Machine) {
	c.t.Helper()
	c.Eventually(5*time.Second, "a write is accepted", func() error {
		return by.Try(http.MethodPost, "/services/create", Spec(fmt.Sprint("after-", time.Now().UnixNano()), "app:1", 0), nil)
	})
}

// A manager gets its vote, and the leader is lost before the third one has heard of that:
// the two that are left have a leader all the same.
func TestVotes_TheLeaderIsLostWithTheNewsOfAVote(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("the third one restarts ", restart), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 2, 0, Options{})
				leader := c.Leader()
				third := c.Machines[1-indexOf(c, leader)]
				joiner := c.add(3)
				c.Delay(third, 50*time.Millisecond)
				joiner.Join(leader, true)
				c.soon("the new manager votes", func() bool { return knowsVote(leader, joiner) && knowsVote(joiner, joiner) })
				leader.Crash()
				if knowsVote(third, joiner) {
					t.Fatal("the third manager knows of the vote: this test shows nothing")
				}
				if restart {
					third.Crash()
					third.Restart()
				}
				c.Heal()
				c.writable(third)
				leader.Restart()
				c.vote(3)
			})
		})
	}
}

// A manager that is off hears of no new one. Whatever is done meanwhile, it has a leader
// together with the others that vote, as soon as they are enough.
func TestVotes_OfAManagerThatWasOffMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		off, third := c.Machines[(indexOf(c, leader)+1)%3], c.Machines[(indexOf(c, leader)+2)%3]
		off.Crash()
		joiner := c.add(4)
		joiner.Join(leader, true)
		time.Sleep(20 * time.Second)
		said := strings.Join(c.clusterStatus().Problems, "\n")
		if want := "manager " + off.Name; knowsVote(leader, joiner) || !strings.Contains(said, joiner.Name) || !strings.Contains(said, want) || !strings.Contains(said, "demote") {
			t.Errorf("it votes: %v; the status says %q, want %q", knowsVote(leader, joiner), said, want)
		}
		// It takes the third one's place, if that is allowed.
		var n swarm.Node
		leader.Do(http.MethodGet, "/nodes/"+third.Name, nil, &n)
		n.Spec.Role = swarm.NodeRoleWorker
		refused := leader.Try(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
		if refused == nil || !strings.Contains(refused.Error(), "loss of quorum") {
			t.Errorf("demote the third one: %v", refused)
		}
		time.Sleep(20 * time.Second)
		voters := c.voters()
		leader.Crash()
		off.Restart()
		answer := 0
		for _, name := range voters {
			if name != leader.Name {
				answer++
			}
		}
		if answer <= len(voters)/2 {
			t.Fatalf("%v vote, and %s is off: that is no majority", voters, leader.Name)
		}
		c.writable(off)
		leader.Restart()
		c.vote(4)
	})
}

// One that will not be back is demoted, as the status says, and then the new one votes.
func TestVotes_InsteadOfAManagerThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		gone := c.Machines[(indexOf(c, leader)+1)%3]
		gone.Crash()
		joiner := c.add(4)
		joiner.Join(leader, true)
		time.Sleep(20 * time.Second)
		leader.setRole(gone, swarm.NodeRoleWorker)
		c.Eventually(20*time.Second, "the new one votes", func() error {
			if votes := c.voters(); !slices.Contains(votes, joiner.Name) || len(votes) != 3 {
				return fmt.Errorf("%v vote", votes)
			}
			return nil
		})
	})
}

// One of five has the news that another lost its vote, which nobody else has and which so
// isn't decided. That other one, whose log is the newest of the three that are left, is
// elected.
func TestVotes_TheNewsThatAVoteIsTakenIsLost(t *testing.T) {
	// Who of three is elected is chance: when it is the one whose vote is taken, this is
	// another story.
	for arose, try := false, 0; !arose; try++ {
		if try == 20 {
			t.Fatal("it never is so that another one than the demoted leads the rest")
		}
		bubble(t, func(t *testing.T) { arose = newsOfAVoteIsLost(t) })
	}
}

// newsOfAVoteIsLost tells whether it came to what is to be shown.
func newsOfAVoteIsLost(t *testing.T) bool {
	c := Start(t, 5, 0, Options{})
	leader := c.Leader()
	others := slices.DeleteFunc(slices.Clone(c.Machines), func(m *Machine) bool { return m == leader })
	slices.SortFunc(others, func(a, b *Machine) int { return cmp.Compare(nodeID(a), nodeID(b)) })
	// Whose ID is the first stands first, as a rule.
	next, last, demoted, told := others[0], others[1], others[2], others[3]
	for _, m := range []*Machine{next, demoted, last} {
		c.Delay(m, 20*time.Millisecond)
	}
	var n swarm.Node
	leader.Do(http.MethodGet, "/nodes/"+demoted.Name, nil, &n)
	n.Spec.Role = swarm.NodeRoleWorker
	go leader.Try(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
	c.soon("one follower knows that a vote is taken", func() bool { return !knowsVote(told, demoted) })
	c.Partition(leader, told)
	for _, m := range []*Machine{next, demoted, last} {
		if !knowsVote(m, demoted) {
			t.Fatalf("%s knows it, too: this test shows nothing", m.Name)
		}
	}
	leads := func(m *Machine) bool { return m.manager().Health().Leader }
	c.soon("one leads the rest", func() bool { return leads(next) || leads(last) || leads(demoted) })
	if leads(demoted) {
		return false
	}
	if leads(last) {
		next, last = last, next
	}
	c.Cut(next, last)
	c.soon("the other one has an entry of its term, and the last one none", func() bool {
		return demoted.manager().Health().LastIndex > last.manager().Health().LastIndex
	})
	leader.Crash()
	next.Crash()
	c.Heal()
	c.writable(last)
	leader.Restart()
	next.Restart()
	c.Eventually(time.Minute, "four vote", func() error {
		if votes := c.voters(); len(votes) != 4 || slices.Contains(votes, demoted.Name) {
			return fmt.Errorf("%v vote", votes)
		}
		return nil
	})
	c.Same()
	return true
}

// A manager that is to be a worker keeps its vote while the quorum needs it, though the
// leader hasn't missed the one that is away yet, or was elected just now.
func TestVotes_NoneIsTakenThatIsNeeded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		away, demoted := c.Machines[(indexOf(c, leader)+1)%3], c.Machines[(indexOf(c, leader)+2)%3]
		c.Partition(away)
		time.Sleep(500 * time.Millisecond)
		leader.setRole(demoted, swarm.NodeRoleWorker)
		time.Sleep(10 * time.Second)
		c.writable(leader)
		leader.Stop()
		leader.Restart()
		time.Sleep(10 * time.Second)
		c.writable(leader)
		if votes := c.voters(); len(votes) != 3 {
			t.Errorf("%v vote", votes)
		}
		c.Heal()
		c.Eventually(20*time.Second, "two vote", func() error {
			if votes := c.voters(); len(votes) != 2 || slices.Contains(votes, demoted.Name) {
				return fmt.Errorf("%v vote", votes)
			}
			return nil
		})
	})
}
