package clustertest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/cluster/timeline"
)

// timelineOf is what a machine answers.
func timelineOf(m *Machine, since time.Time) (told timeline.Timeline) {
	m.cluster.t.Helper()
	m.Do(http.MethodGet, "/skep/v1/timeline?since="+since.Format("2006-01-02T15:04:05.999999999Z07:00"), nil, &told)
	return told
}

// tellsOf is the only sentence about that.
func tellsOf(t *testing.T, told timeline.Timeline, about timeline.About) (found timeline.Sentence) {
	t.Helper()
	story := timeline.Story(told)
	of := slices.DeleteFunc(slices.Clone(story), func(s timeline.Sentence) bool { return s.About != about })
	if len(of) != 1 {
		for _, s := range story {
			t.Log(s.About, s.Words(told.Name))
		}
		t.Fatalf("%d sentences are about %s", len(of), about)
	}
	return of[0]
}

// The leader is lost. Each manager that is left tells how the next one was elected, in its own time: who missed whom,
// the term, the votes, and the first write. None needs the other clocks to be right.
func TestTimeline_TellsAnElection(t *testing.T) {
	for name, lose := range map[string]func(*Cluster, *Machine){
		"cut off": func(c *Cluster, m *Machine) { c.Partition(m) },
		"killed":  func(_ *Cluster, m *Machine) { m.Crash() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 1, Options{})
				lost := c.Leader()
				var left []*Machine
				for _, m := range c.Machines[:3] {
					if m != lost {
						left = append(left, m)
					}
				}
				left[1].SetClock(time.Hour)
				time.Sleep(20 * time.Second)
				cut := time.Now()
				lose(c, lost)
				first := accepted(left[0], "web")
				time.Sleep(2 * time.Second)
				leader := c.Leader()
				health := leader.manager().Health()
				var words []string
				for _, asked := range left {
					begins := asked.clock.Now().Add(time.Until(cut))
					told := timelineOf(asked, begins.Add(-time.Second))
					s := tellsOf(t, told, timeline.AboutElection)
					if took := s.From.Sub(begins); s.Manager != nodeID(leader) || s.Term != health.Term || s.Open || took < 0 || took > 400*time.Millisecond {
						t.Errorf("%s says that %s was elected in term %d, beginning after %v; it was %s in term %d", asked.Name, s.Manager, s.Term, took, leader.Name, health.Term)
					}
					if wrote := s.To.Sub(begins) - first.Sub(cut); wrote.Abs() > 100*time.Millisecond {
						t.Errorf("%s says that the first write came %v later than it did", asked.Name, wrote)
					}
					words = append(words, s.Words(told.Name))
					for _, lane := range told.Managers {
						if missing := lane.NodeID == nodeID(lost); missing != (lane.Missing != "") {
							t.Errorf("%s says of %s: %q", asked.Name, lane.Name, lane.Missing)
						}
					}
				}
				if words[0] != words[1] {
					t.Errorf("they tell different stories:\n%s\n%s", words[0], words[1])
				}
				for _, part := range []string{leader.Name + " ", " of " + lost.Name, " at " + lost.Name, "asked ", fmt.Sprintf("stood for term %d → got 2 of 3 votes → leads → first write accepted after ", health.Term)} {
					if !strings.Contains(words[0], part) && !strings.HasSuffix(part, lost.Name) {
						t.Errorf("%q isn't in: %s", part, words[0])
					}
				}
				t.Log(words[0])
			})
		})
	}
}

// A leader that stops hands over, and its successor tells.
func TestTimeline_TellsAHandOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		begins := time.Now()
		leader := c.Leader()
		time.Sleep(20 * time.Second)
		leader.Stop()
		time.Sleep(10 * time.Second)
		next := c.Leader()
		told := timelineOf(next, begins)
		s := tellsOf(t, told, timeline.AboutHandOver)
		t.Log(s.Words(told.Name))
		if s.Manager != nodeID(next) || s.Open {
			t.Errorf("it is about %s, and %s leads: %s", told.Name(s.Manager), next.Name, s.Words(told.Name))
		}
		down := tellsOf(t, told, timeline.AboutNode)
		if down.Manager != nodeID(leader) {
			t.Errorf("%s is down, and it says: %s", leader.Name, down.Words(told.Name))
		}
	})
}

// Nobody leads: a manager tells what it knows by itself, and who doesn't tell.
func TestTimeline_NeedsNoLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		begins := time.Now()
		leader := c.Leader()
		last := c.Machines[0]
		for _, m := range c.Machines {
			if m != leader {
				last = m
			}
		}
		for _, m := range c.Machines {
			if m != last {
				m.Crash()
			}
		}
		time.Sleep(5 * time.Second)
		told := timelineOf(last, begins)
		story := timeline.Story(told)
		story = slices.DeleteFunc(story, func(s timeline.Sentence) bool { return s.About != timeline.AboutElection })
		if len(story) == 0 || !story[len(story)-1].Open {
			t.Errorf("there is no leader, and it says: %+v", story)
		}
		for _, lane := range told.Managers {
			if (lane.Missing == "") != (lane.NodeID == nodeID(last)) {
				t.Errorf("of %s it says %q", lane.Name, lane.Missing)
			}
		}
	})
}
