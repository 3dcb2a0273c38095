package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
)

// inFlight is how many requests the engine is given at a time: more don't make it faster.
const inFlight = 8

// parallelism is how many containers an update replaces at a time.
const parallelism = 4

// jobLimit is how long any one job may take.
const jobLimit = 5 * time.Minute

// timer times the main jobs of a swarm manager through the Docker Engine API. It
// doesn't know which manager it talks to, so skep and Docker Swarm are measured by
// the same code, from the request to the state seen through the API.
type timer struct {
	api    *client.Client // the manager
	engine *client.Client // where the containers are
}

// benchSpec is a service without a restart delay and with updates of parallelism at a time.
func benchSpec(name string, replicas uint64) swarm.ServiceSpec {
	var none time.Duration
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: oldImage},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &none},
		},
		Mode: swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		UpdateConfig: &swarm.UpdateConfig{
			Parallelism: parallelism, Monitor: 1, FailureAction: swarm.UpdateFailureActionPause, Order: swarm.UpdateOrderStopFirst,
		},
	}
}

// create times a new service until all its tasks run.
func (t timer) create(ctx context.Context, spec swarm.ServiceSpec) (string, time.Duration, error) {
	start := time.Now()
	resp, err := t.api.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{})
	if err != nil {
		return "", 0, err
	}
	err = t.running(ctx, resp.ID, int(*spec.Mode.Replicated.Replicas), nil)
	return resp.ID, time.Since(start), err
}

// running waits until want tasks of the service run, of those that match.
func (t timer) running(ctx context.Context, serviceID string, want int, match func(swarm.Task) bool) error {
	return until(ctx, jobLimit, fmt.Sprintf("%d running tasks", want), func(ctx context.Context) error {
		tasks, err := t.tasks(ctx, serviceID)
		if err != nil {
			return err
		}
		n := 0
		for _, task := range tasks {
			if task.DesiredState == swarm.TaskStateRunning && task.Status.State == swarm.TaskStateRunning && (match == nil || match(task)) {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
}

func (t timer) tasks(ctx context.Context, serviceID string) ([]swarm.Task, error) {
	return t.api.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", serviceID))})
}

// heal removes the container of a task by hand and times its replacement.
func (t timer) heal(ctx context.Context, serviceID string, want int) (time.Duration, error) {
	tasks, err := t.tasks(ctx, serviceID)
	if err != nil {
		return 0, err
	}
	before := map[string]bool{}
	var victim swarm.Task
	for _, task := range tasks {
		before[task.ID] = true
		if task.Status.State == swarm.TaskStateRunning && task.Status.ContainerStatus != nil {
			victim = task
		}
	}
	if victim.ID == "" {
		return 0, errors.New("no task runs")
	}
	start := time.Now()
	if err := t.engine.ContainerRemove(ctx, victim.Status.ContainerStatus.ContainerID, container.RemoveOptions{Force: true}); err != nil {
		return 0, err
	}
	err = t.running(ctx, serviceID, want, func(task swarm.Task) bool { return task.ID != victim.ID })
	if err == nil {
		err = t.running(ctx, serviceID, 1, func(task swarm.Task) bool { return !before[task.ID] })
	}
	return time.Since(start), err
}

// update changes the image of all tasks and times that, until the last one runs.
func (t timer) update(ctx context.Context, serviceID, image string) (time.Duration, error) {
	service, _, err := t.api.ServiceInspectWithRaw(ctx, serviceID, swarm.ServiceInspectOptions{})
	if err != nil {
		return 0, err
	}
	service.Spec.TaskTemplate.ContainerSpec.Image = image
	start := time.Now()
	if _, err := t.api.ServiceUpdate(ctx, serviceID, service.Version, service.Spec, swarm.ServiceUpdateOptions{}); err != nil {
		return 0, err
	}
	err = t.running(ctx, serviceID, int(*service.Spec.Mode.Replicated.Replicas), func(task swarm.Task) bool {
		return strings.HasPrefix(task.Spec.ContainerSpec.Image, image)
	})
	return time.Since(start), err
}

// remove removes a service and waits until its containers are gone.
func (t timer) remove(ctx context.Context, serviceID string) error {
	if err := t.api.ServiceRemove(ctx, serviceID); err != nil {
		return err
	}
	return until(ctx, jobLimit, "the containers to go", func(ctx context.Context) error {
		list, err := t.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
			filters.Arg("label", "com.docker.swarm.service.id="+serviceID))})
		if err != nil {
			return err
		}
		if len(list) > 0 {
			return fmt.Errorf("%d are left", len(list))
		}
		return nil
	})
}

// direct times the engine alone: n containers created and started, and then removed.
// It is the floor below which no manager can come.
func direct(ctx context.Context, engine *client.Client, n int) (time.Duration, error) {
	return directOn(ctx, engine, n, "default")
}

// directOn does so on one of the engine's networks.
func directOn(ctx context.Context, engine *client.Client, n int, on string) (took time.Duration, err error) {
	ids := make([]string, n)
	defer func() { err = errors.Join(err, removeAll(ctx, engine, ids)) }()
	start := time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for i := range n {
		group.Go(func() error {
			c, err := engine.ContainerCreate(groupCtx, &container.Config{Image: oldImage}, &container.HostConfig{NetworkMode: container.NetworkMode(on)}, nil, nil, fmt.Sprintf("skep-lab-direct-%d-%d", start.UnixNano(), i))
			if err != nil {
				return err
			}
			ids[i] = c.ID
			return engine.ContainerStart(groupCtx, c.ID, container.StartOptions{})
		})
	}
	err = group.Wait()
	return time.Since(start), err
}

// directHeal does by hand on the engine what healing asks of it: a container is
// removed by force, and another one started when it has died, while the removal
// still goes on. No manager can be faster than that.
func directHeal(ctx context.Context, engine *client.Client) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, jobLimit)
	defer cancel()
	start := func(name string) (string, error) {
		c, err := engine.ContainerCreate(ctx, &container.Config{Image: oldImage}, nil, nil, nil, name)
		if err != nil {
			return "", err
		}
		return c.ID, engine.ContainerStart(ctx, c.ID, container.StartOptions{})
	}
	remove := func(id string) error {
		return engine.ContainerRemove(context.WithoutCancel(ctx), id, container.RemoveOptions{Force: true})
	}
	name := fmt.Sprintf("skep-lab-heal-%d", time.Now().UnixNano())
	first, err := start(name + "-1")
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	// The engine answers before it listens: what dies in between is asked for too.
	messages, lost := engine.Events(ctx, events.ListOptions{
		Since:   strconv.FormatInt(begin.Unix(), 10),
		Filters: filters.NewArgs(filters.Arg("container", first), filters.Arg("event", "die")),
	})
	begin = time.Now()
	removed := make(chan error, 1)
	go func() { removed <- remove(first) }()
	select {
	case <-messages:
	case err := <-lost:
		return 0, errors.Join(err, <-removed)
	}
	second, err := start(name + "-2")
	took = time.Since(begin)
	err = errors.Join(err, <-removed)
	if second != "" {
		err = errors.Join(err, remove(second))
	}
	return took, err
}

// directUpdate does by hand on the engine what a rolling update of n containers asks
// of it: each is replaced by a new one that is made, and started when the old one has
// stopped, parallel of them at a time. No manager can be faster than that either.
func directUpdate(ctx context.Context, engine *client.Client, n, parallel int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, jobLimit)
	defer cancel()
	name := fmt.Sprintf("skep-lab-update-%d", time.Now().UnixNano())
	ids := make([]string, 2*n)
	defer func() { err = errors.Join(err, removeAll(ctx, engine, ids)) }()
	each := func(limit int, do func(ctx context.Context, i int) error) error {
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(limit)
		for i := range n {
			group.Go(func() error { return do(groupCtx, i) })
		}
		return group.Wait()
	}
	create := func(ctx context.Context, i int) error {
		c, err := engine.ContainerCreate(ctx, &container.Config{Image: oldImage}, nil, nil, nil, fmt.Sprintf("%s-%d", name, i))
		ids[i] = c.ID
		return err
	}
	err = each(inFlight, func(ctx context.Context, i int) error {
		return errors.Join(create(ctx, i), engine.ContainerStart(ctx, ids[i], container.StartOptions{}))
	})
	if err != nil {
		return 0, err
	}
	start := time.Now()
	err = each(parallel, func(ctx context.Context, i int) error {
		stopped := make(chan error, 1)
		go func() { stopped <- engine.ContainerStop(ctx, ids[i], container.StopOptions{}) }()
		if err := errors.Join(create(ctx, n+i), <-stopped); err != nil {
			return err
		}
		return engine.ContainerStart(ctx, ids[n+i], container.StartOptions{})
	})
	return time.Since(start), err
}

// removeAll removes those of the containers that were made.
func removeAll(ctx context.Context, engine *client.Client, ids []string) error {
	ctx = context.WithoutCancel(ctx)
	var group errgroup.Group
	group.SetLimit(inFlight)
	for _, id := range ids {
		if id != "" {
			group.Go(func() error { return engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}) })
		}
	}
	return group.Wait()
}
