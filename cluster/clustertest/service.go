package clustertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// Spec is a small service for tests: no restart delay, a short monitor.
func Spec(name, image string, replicas uint64) swarm.ServiceSpec {
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: image},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: new(time.Duration)},
		},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		UpdateConfig: &swarm.UpdateConfig{Parallelism: 1, Monitor: time.Second, FailureAction: swarm.UpdateFailureActionPause, Order: swarm.UpdateOrderStopFirst},
	}
}

// Create creates a service through the machine's API and gives its ID.
func (m *Machine) Create(spec swarm.ServiceSpec) string {
	m.cluster.t.Helper()
	var created swarm.ServiceCreateResponse
	m.Do(http.MethodPost, "/services/create", spec, &created)
	return created.ID
}

// Service reads a service.
func (m *Machine) Service(id string) swarm.Service {
	m.cluster.t.Helper()
	var service swarm.Service
	m.Do(http.MethodGet, "/services/"+id, nil, &service)
	return service
}

// Update changes a service's spec through the machine's API.
func (m *Machine) Update(id string, edit func(*swarm.ServiceSpec)) {
	m.cluster.t.Helper()
	service := m.Service(id)
	edit(&service.Spec)
	m.Do(http.MethodPost, fmt.Sprintf("/services/%s/update?version=%d", id, service.Version.Index), service.Spec, nil)
}

// Tasks lists a service's tasks, in the desired states given or in all of them.
func (m *Machine) Tasks(id string, desired ...string) ([]swarm.Task, error) {
	filter := map[string][]string{"service": {id}}
	if len(desired) > 0 {
		filter["desired-state"] = desired
	}
	text, err := json.Marshal(filter)
	if err != nil {
		return nil, err
	}
	var tasks []swarm.Task
	return tasks, m.Try(http.MethodGet, "/tasks?filters="+url.QueryEscape(string(text)), nil, &tasks)
}

// Runs waits until exactly so many tasks of the service are wanted, all of them
// run, and all have the image.
func (c *Cluster) Runs(limit time.Duration, id, image string, replicas int) {
	c.t.Helper()
	c.Eventually(limit, fmt.Sprintf("%d tasks of %s run", replicas, image), func() error {
		tasks, err := c.Manager().Tasks(id, "running")
		if err != nil {
			return err
		}
		if len(tasks) != replicas {
			return fmt.Errorf("%d tasks are wanted%s", len(tasks), describe(tasks))
		}
		for _, task := range tasks {
			if task.Status.State != swarm.TaskStateRunning || task.Spec.ContainerSpec.Image != image {
				return fmt.Errorf("not all run%s", describe(tasks))
			}
		}
		return nil
	})
}

func describe(tasks []swarm.Task) string {
	var text strings.Builder
	for _, t := range tasks {
		fmt.Fprintf(&text, "\n  slot %d on %.5s: %s, wanted %s, %s, %s %s", t.Slot, t.NodeID, t.Status.State, t.DesiredState, t.Spec.ContainerSpec.Image, t.Status.Message, t.Status.Err)
	}
	return text.String()
}
