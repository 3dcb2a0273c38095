package scheduler

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

// TestPlan_EachTimeRunsOnce lets leaders change and die in the middle of writing, clocks be set, agents
// obey or not, and users pause, update and ask for runs. Each time of the schedule has at most one
// run, none begins too late or too early, and two never go on at once.
func TestPlan_EachTimeRunsOnce(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHive(t)
		h.forgetful = rapid.Bool().Draw(r, "forgetful")
		h.put(h.node("n1"))
		h.put(h.node("n2"))
		deadline := rapid.SampledFrom([]string{"1m", "20m", "3h"}).Draw(r, "deadline")
		h.service("job", func(s *swarm.ServiceSpec) {
			one, two := uint64(1), uint64(2)
			s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &two}}
			if rapid.Bool().Draw(r, "global") {
				s.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
			}
			s.Labels = map[string]string{
				cluster.LabelSchedule.Name:            rapid.SampledFrom([]string{"*/10 * * * *", "5,35 * * * *", "@hourly"}).Draw(r, "schedule"),
				cluster.LabelScheduleDeadline.Name:    deadline,
				cluster.LabelScheduleConcurrency.Name: rapid.SampledFrom([]string{"forbid", "replace"}).Draw(r, "concurrency"),
				cluster.LabelScheduleKeep.Name:        "1000",
			}
		})
		limit, err := time.ParseDuration(deadline)
		if err != nil {
			t.Fatal(err)
		}
		back := false // The database's time doesn't go back, so it is ahead then.
		r.Repeat(map[string]func(*rapid.T){
			"plan":   func(*rapid.T) { h.plan() },
			"settle": func(*rapid.T) { h.settle() },
			"obey":   func(*rapid.T) { h.obey() },
			"elect":  func(*rapid.T) { h.elect() },
			"wake":   func(*rapid.T) { h.advance(time.Hour) },
			"advance": func(r *rapid.T) {
				h.now = h.now.Add(time.Duration(rapid.IntRange(1, 4000).Draw(r, "s")) * time.Second)
			},
			"setBack": func(r *rapid.T) {
				back = true
				h.now = h.now.Add(-time.Duration(rapid.IntRange(1, 4000).Draw(r, "s")) * time.Second)
			},
			"diesWriting": func(r *rapid.T) {
				h.loop.refresh()
				result, _ := h.loop.plan()
				written := result.Intents[:rapid.IntRange(0, len(result.Intents)).Draw(r, "written")]
				if _, err := Write(t.Context(), h.db, written); err != nil {
					t.Fatal(err)
				}
				h.elect()
			},
			"secondLeader": func(*rapid.T) { // who doesn't know yet that it leads no more
				h.loop.refresh()
				result, _ := h.loop.plan()
				h.elect()
				h.settle()
				if _, err := Write(t.Context(), h.db, result.Intents); err != nil {
					t.Fatal(err)
				}
			},
			"update": func(*rapid.T) { h.service("job", func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ }) },
			"ask": func(*rapid.T) {
				v := h.db.View()
				h.apply(cluster.RunJob(v.Service("job"), v.Revision("job", v.Service("job").Revision), time.Time{}))
			},
			"pause": func(r *rapid.T) {
				next := *h.db.View().Service("job")
				if next.SchedulePaused = rapid.Bool().Draw(r, "paused"); !next.SchedulePaused {
					next.ScheduledSince = h.now
				}
				h.put(&next)
			},
			"": func(r *rapid.T) {
				seen := map[time.Time]uint64{}
				v := h.db.View()
				schedule, _ := cluster.ScheduleOf(v.Service("job").Spec.Labels)
				for revision := range v.RevisionsOf("job") {
					if revision.Due.IsZero() {
						continue
					}
					if other, twice := seen[revision.Due]; twice {
						r.Fatalf("runs %d and %d are both for %v", other, revision.Number, revision.Due)
					}
					seen[revision.Due] = revision.Number
					if late := revision.CreatedAt.Sub(revision.Due); late < 0 || late > limit && !back || !schedule.Next(revision.Due.Add(-time.Second)).Equal(revision.Due) {
						r.Fatalf("run %d is for %v and began %v later", revision.Number, revision.Due, late)
					}
				}
				for task := range v.TasksOfService("job") {
					revision := v.Revision("job", task.Revision)
					if revision.Idle {
						r.Fatalf("task %s is of no run", task.ID)
					}
				}
			},
		})
		// In the end it goes on.
		next := *h.db.View().Service("job")
		next.SchedulePaused, next.ScheduledSince = false, h.now
		h.put(&next)
		h.service("job", func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
		h.elect()
		before := h.db.View().Service("job").Revision
		if at := h.db.View().Service("job").UpdatedAt; at.After(h.now) {
			h.now = at // The clock comes up with the database's time.
		}
		for end := h.now.Add(3 * time.Hour); h.now.Before(end); h.advance(end.Sub(h.now)) {
			for range 20 {
				h.settle()
				if !h.obey() {
					break
				}
			}
		}
		for h.settle(); h.obey(); h.settle() { // one that begins at this moment
		}
		last := h.db.View().Revision("job", h.db.View().Service("job").Revision)
		if last.Number == before || last.Ended.IsZero() || last.Outcome != "2 completed" {
			r.Fatalf("it doesn't go on: %+v\n%s", last, h.describe(""))
		}
	})
}
