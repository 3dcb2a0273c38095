package clustertest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestCluster_PauseAfterTheFirst updates one task of six, whoever leads, and the others when somebody
// says so.
func TestCluster_PauseAfterTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		c.managersOnly()
		spec := slowly(Spec("web", "app:1", 6))
		spec.Labels["skep.update.pause-after"] = "1"
		spec.UpdateConfig.Parallelism = 2
		id := c.Machines[0].Create(spec)
		c.Runs(20*time.Second, id, "app:1", 6)
		updated := func() int {
			tasks, err := c.Manager().Tasks(id, "running")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, task := range tasks {
				if task.Spec.ContainerSpec.Image == "app:2" {
					n++
				}
			}
			return n
		}
		c.Manager().Update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:2" })
		c.Eventually(5*time.Second, "the update has begun", func() error {
			if updated() == 0 {
				return fmt.Errorf("no task of app:2 is there")
			}
			return nil
		})
		dead := c.Leader()
		dead.Crash() // while the first one starts, or is watched
		status := c.status(20*time.Second, id, swarm.UpdateStatePaused)
		if !strings.HasPrefix(status.Message, "update paused after 1 of 6 tasks, as label skep.update.pause-after says") {
			t.Errorf("it says %q", status.Message)
		}
		dead.Restart()
		c.Leader().Crash()
		time.Sleep(time.Minute)
		if n := updated(); n != 1 {
			t.Errorf("%d tasks were updated while it was paused", n)
		}
		c.Manager().Do(http.MethodPost, "/skep/v1/services/web/resume", nil, nil)
		c.Runs(30*time.Second, id, "app:2", 6)
		c.status(20*time.Second, id, swarm.UpdateStateCompleted)
		for _, m := range c.Machines {
			if m.dead {
				m.Restart()
			}
		}
		c.Same()
	})
}
