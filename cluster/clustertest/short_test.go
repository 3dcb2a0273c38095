package clustertest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestStatus_NamesServicesThatDoNotRun has services whose tasks are rejected, wait, or failed
// for good, and one that is well: the status names the others, and why.
func TestStatus_NamesServicesThatDoNotRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		well := c.Machines[0].Create(Spec("well", "app:1", 3))
		nowhere := Spec("nowhere", "missing", 3)
		delay := 5 * time.Second
		nowhere.TaskTemplate.RestartPolicy.Delay = &delay
		nowhere.TaskTemplate.ContainerSpec.Labels = map[string]string{cluster.LabelSimulate + "reject-rate": "1"}
		c.Machines[0].Create(nowhere)
		picky := Spec("picky", "app:1", 2)
		picky.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==n9"}}
		c.Machines[0].Create(picky)
		once := Spec("once", "missing", 1)
		once.TaskTemplate.ContainerSpec.Labels = nowhere.TaskTemplate.ContainerSpec.Labels
		once.TaskTemplate.RestartPolicy.Condition = swarm.RestartPolicyConditionNone
		c.Machines[0].Create(once)
		c.Runs(10*time.Second, well, "app:1", 3)
		time.Sleep(20 * time.Second)
		var status cluster.Status
		c.Machines[1].Do(http.MethodGet, "/skep/v1/status", nil, &status)
		for _, want := range []string{
			"service nowhere runs 0 of 3 tasks: the last one was rejected on n", "service picky runs 0 of 2 tasks: no suitable node", "service once runs 0 of 1 tasks: the last one was rejected on n",
		} {
			if !slices.ContainsFunc(status.Problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
				t.Errorf("no problem begins with %q:\n%s", want, strings.Join(status.Problems, "\n"))
			}
		}
		if len(status.Problems) != 3 {
			t.Errorf("%d problems, want 3:\n%s", len(status.Problems), strings.Join(status.Problems, "\n"))
		}
		for i, node := range status.Nodes {
			if want := fmt.Sprintf("n%d", i+1); node.Hostname != want {
				t.Errorf("node %d is %s, want %s: they are sorted by host name", i, node.Hostname, want)
			}
		}
		// A rollout that goes well is no problem, nor is scaling down.
		for _, name := range []string{"nowhere", "picky", "once"} {
			c.Machines[0].Do(http.MethodDelete, "/services/"+name, nil, nil)
		}
		c.Eventually(20*time.Second, "all is well again", func() error {
			var status cluster.Status
			if err := c.Machines[1].Try(http.MethodGet, "/skep/v1/status", nil, &status); err != nil {
				return err
			}
			if len(status.Problems) > 0 {
				return fmt.Errorf("%s", strings.Join(status.Problems, "\n"))
			}
			return nil
		})
	})
}
