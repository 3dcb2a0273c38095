package clustertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
)

// TestCluster_DependenciesSurviveTheirLeader deploys and updates three services that depend on each
// other, while leaders die: what depends on others runs after them, and what waits says for what.
func TestCluster_DependenciesSurviveTheirLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		c.managersOnly()
		labelled := func(spec swarm.ServiceSpec, labels map[string]string) swarm.ServiceSpec {
			spec.Labels = labels
			return spec
		}
		// In the order in which it goes wrong without the scheduler.
		app := c.Machines[0].Create(labelled(Spec("app", "app:1", 3), map[string]string{"skep.depends-on": "db:healthy,migrate:completed"}))
		job := Spec("migrate", "app:1", 0)
		one := uint64(1)
		job.Mode, job.UpdateConfig, job.TaskTemplate.RestartPolicy = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}, nil, nil
		migrate := c.Machines[0].Create(labelled(job, map[string]string{"skep.depends-on": "db:healthy", "skep.simulate.run-for": "1s"}))
		db := Spec("db", "app:1", 2)
		db.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}}
		store := c.Machines[0].Create(labelled(db, map[string]string{"skep.simulate.health-delay": "4s"}))

		waits := func(id, why string) {
			t.Helper()
			c.Eventually(10*time.Second, id+" "+why, func() error {
				tasks, err := c.Manager().Tasks(id)
				said := 0
				for _, task := range tasks {
					if task.Status.State == swarm.TaskStatePending && task.Status.Err == why {
						said++
					}
				}
				if err == nil && said == 0 {
					err = fmt.Errorf("none of them says so%s", describe(tasks))
				}
				return err
			})
		}
		waits(app, "waits for db to be healthy, and for migrate to have completed")
		waits(migrate, "waits for db to be healthy")
		dead := c.Leader()
		dead.Crash()
		c.Runs(20*time.Second, app, "app:1", 3)
		first := func(id, image string) (began time.Time) {
			tasks, err := c.Manager().Tasks(id)
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				if task.Spec.ContainerSpec.Image == image && (began.IsZero() || task.Status.Timestamp.Before(began)) {
					began = task.Status.Timestamp
				}
			}
			return began
		}
		if a, m, d := first(app, "app:1"), first(migrate, "app:1"), first(store, "app:1"); !d.Before(m) || a.Before(m) {
			t.Errorf("db runs since %v, migrate has completed at %v, app runs since %v", d, m, a)
		}
		dead.Restart()

		// An update of both: the old tasks run until db is well again, although a leader dies.
		c.Manager().Update(store, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Image = "app:2"
			s.UpdateConfig.Parallelism = 0
		})
		c.Manager().Update(app, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:2" })
		status := c.status(5*time.Second, app, swarm.UpdateStateUpdating)
		if status.Message != "update waits for db to be healthy" {
			t.Errorf("the update says %q", status.Message)
		}
		dead = c.Leader()
		dead.Crash()
		c.Runs(2*time.Second, app, "app:1", 3)
		c.status(30*time.Second, app, swarm.UpdateStateCompleted)
		c.Runs(time.Second, app, "app:2", 3)
		if a, d := first(app, "app:2"), first(store, "app:2"); a.Before(d) {
			t.Errorf("db runs since %v, app since %v", d, a)
		}
		dead.Restart()
		c.Same()
	})
}

// Agents tell of a container that runs before it is healthy, so that one doesn't wait for the other.
func TestCluster_StartedIsNotHealthy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		cache := Spec("cache", "app:1", 1)
		cache.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}}
		cache.Labels = map[string]string{"skep.simulate.health-delay": "1m"}
		store := c.Machines[0].Create(cache)
		ids := map[string]string{}
		for _, condition := range []string{"started", "healthy"} {
			spec := Spec("after-"+condition, "app:1", 2)
			spec.Labels = map[string]string{"skep.depends-on": "cache:" + condition}
			ids[condition] = c.Machines[0].Create(spec)
		}
		c.Runs(10*time.Second, ids["started"], "app:1", 2)
		time.Sleep(30 * time.Second)
		tasks, err := c.Manager().Tasks(ids["healthy"])
		if err != nil || len(tasks) != 2 || tasks[0].Status.State != swarm.TaskStatePending || tasks[1].Status.State != swarm.TaskStatePending {
			t.Errorf("before the cache is healthy: %v%s", err, describe(tasks))
		}
		c.Runs(time.Minute, ids["healthy"], "app:1", 2)
		c.Runs(time.Second, store, "app:1", 1)
	})
}
