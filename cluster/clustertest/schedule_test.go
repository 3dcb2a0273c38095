package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestCluster_ScheduledJobsSurviveTheirLeader has a job run each minute. Leaders die just before it is
// due, while it runs, and for so long that it is due meanwhile: each time has one run at most, and what
// was due without a leader runs when there is one.
func TestCluster_ScheduledJobsSurviveTheirLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		c.managersOnly()
		one := uint64(1)
		spec := Spec("dump", "app:1", 0)
		spec.Mode, spec.UpdateConfig, spec.TaskTemplate.RestartPolicy = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}, nil, nil
		spec.Labels = map[string]string{"skep.schedule": "* * * * *", "skep.schedule.deadline": "50s", "skep.schedule.keep": "100", "skep.simulate.run-for": "5s"}
		id := c.Machines[0].Create(spec)

		until := func(second time.Duration) { // of the next minute
			now := time.Now()
			time.Sleep(now.Truncate(time.Minute).Add(time.Minute + second).Sub(now))
		}
		until(-time.Millisecond)
		dead := []*Machine{c.Leader()}
		dead[0].Crash()
		until(2 * time.Second)
		dead = append(dead, c.Leader())
		dead[0].Restart()
		time.Sleep(5 * time.Second)
		dead[1].Crash() // and there is one that leads and one that follows
		time.Sleep(5 * time.Second)
		// Nobody leads over a full minute.
		dead = append(dead, c.Leader())
		dead[2].Crash()
		until(20 * time.Second)
		dead[1].Restart()
		dead[2].Restart()
		c.Eventually(20*time.Second, "what was due meanwhile runs", func() error {
			var jobs []cluster.JobState
			if err := c.Manager().Try(http.MethodGet, "/skep/v1/jobs", nil, &jobs); err != nil {
				return err
			}
			if len(jobs) != 1 || jobs[0].Began.Before(jobs[0].Due.Add(20*time.Second)) {
				return fmt.Errorf("%+v", jobs)
			}
			return nil
		})
		until(30 * time.Second)
		view := c.Views()[c.Manager().Name]
		seen := map[time.Time]bool{}
		runs, late := 0, 0
		for r := range view.RevisionsOf(id) {
			if r.Due.IsZero() {
				continue
			}
			if runs++; seen[r.Due] {
				t.Errorf("a second run for %v", r.Due)
			}
			if seen[r.Due] = true; r.CreatedAt.Sub(r.Due) > 20*time.Second {
				late++
			}
			if r.Ended.IsZero() || r.Outcome != "1 completed" {
				t.Errorf("run %d: %+v", r.Number, r)
			}
		}
		if runs < 3 || late != 1 {
			t.Errorf("%d runs, %d of them late", runs, late)
		}
		c.Same()
	})
}
