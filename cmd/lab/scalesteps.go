package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/cmd/lab/crowd"
	"skep/cmd/lab/report"
)

// listed is how many tasks are listed at least, if there are so many: a million would be a gigabyte.
const listed = 20_000

// steps does the chosen steps, until one can't be completed.
func (x *scaling) steps(ctx context.Context) error {
	do := map[string]func(context.Context, *report.ScaleStep, *midway) error{
		"join": x.join, "create": x.create, "update": x.update, "drain": x.drain, "kill": x.kill, "leader": x.updateOne, "zero": x.zero,
	}
	idle := map[string]string{"join": "idle", "create": "idle with tasks"}
	chosen := x.o.chosen()
	for i, name := range chosen {
		kill := name == "leader" || x.o.killLeader && name != "join"
		if err := x.step(ctx, name, kill, do[name]); err != nil {
			return err
		}
		after := idle[name]
		if after == "" && i == len(chosen)-1 {
			after = "idle at the end"
		}
		if after == "" || x.o.idle == 0 {
			continue
		}
		if err := x.step(ctx, after, false, x.rest); err != nil {
			return err
		}
	}
	return nil
}

// midway kills the leader once, in the middle of a step.
type midway struct {
	x    *scaling
	step *report.ScaleStep
	// due is set until then; never when none is to be killed. killed is who led.
	due    bool
	killed *node
}

// at is told how far the step is, from 0 to 1.
func (m *midway) at(ctx context.Context, share float64) error {
	if !m.due || share < 0.5 {
		return nil
	}
	m.due = false
	leader, err := m.x.p.leader(ctx, m.x.p.anyManager())
	if err != nil {
		return err
	}
	if m.x.o.profile {
		m.x.keepProfile(ctx, m.step, leader, "leader")
	}
	took, err := m.x.killLeader(ctx, leader)
	if err != nil {
		return err
	}
	m.killed, m.step.NextWrite = leader, &took
	return nil
}

// step does one step and records what it cost.
func (x *scaling) step(ctx context.Context, name string, kill bool, do func(context.Context, *report.ScaleStep, *midway) error) error {
	fmt.Fprintf(x.w, "%-16s ", name)
	s := report.ScaleStep{Name: name}
	m := &midway{x: x, step: &s, due: kill}
	if leader, err := x.p.leader(ctx, x.p.anyManager()); err == nil {
		s.Leader = leader.name
	}
	if m.x.o.profile {
		x.startProfiles(ctx)
	}
	stopSmall := func() ([]report.Ms, int) { return nil, 0 }
	if name == "create" || name == "update" || name == "drain" || name == "kill" || name == "leader" {
		stopSmall = x.smallUser(ctx)
	}
	before := x.meter.usage()
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, x.o.limit)
	err := do(limited, &s, m)
	cancel()
	ended := time.Now()
	s.Began, s.Ended = report.Since(x.run.Began, began), report.Since(x.run.Began, ended)
	after := x.meter.usage()
	s.Small, s.Failures = stopSmall()
	for i := range after.cpu {
		s.CPU = append(s.CPU, after.cpu[i]-before.cpu[i])
		s.Written, s.Wire = append(s.Written, after.written[i]-before.written[i]), append(s.Wire, after.wire[i]-before.wire[i])
	}
	if m.x.o.profile {
		x.stopProfiles(ctx, &s)
	}
	if m.killed != nil {
		err = errors.Join(err, x.revive(ctx, m.killed))
	}
	if err == nil {
		s.State, err = x.state(ctx)
	}
	if err != nil {
		s.Failure = err.Error()
		err = fmt.Errorf("%s: %w", name, err)
	}
	if name == "create" && err == nil {
		s.Lists = x.lists(ctx)
	}
	x.run.Steps = append(x.run.Steps, s)
	fmt.Fprintf(x.w, "%v\n", ended.Sub(began).Round(10*time.Millisecond))
	return err
}

// rest leaves the cluster alone for a while, then measures that it does nothing.
func (x *scaling) rest(ctx context.Context, _ *report.ScaleStep, _ *midway) error {
	return sleep(ctx, x.o.idle)
}

// join has all agents join, and waits until managers call all of them ready.
func (x *scaling) join(ctx context.Context, s *report.ScaleStep, _ *midway) error {
	s.Of = x.o.agents
	joined := make(chan error, 1)
	go func() {
		answers, err := x.askAll(ctx, func(c *crowdProcess) crowdOrder {
			return crowdOrder{Do: "join", Count: c.agents, AtOnce: max(1, joinsAtOnce/len(x.crowds))}
		})
		for i, a := range answers {
			x.crowds[i].ids = a.IDs
		}
		joined <- err
	}()
	if err := x.await(ctx, func(c crowd.Count) (float64, error) {
		if c.Sessions < x.o.agents {
			return float64(c.Sessions) / float64(x.o.agents), fmt.Errorf("%d of %d agents joined, %d have a session", c.Joined, x.o.agents, c.Sessions)
		}
		return 1, nil
	}, nil, joined); err != nil {
		return err
	}
	return slowly(ctx, "all nodes to be ready", func() error {
		list, err := x.p.anyManager().api.NodeList(ctx, swarm.NodeListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range list {
			if n.Status.State == swarm.NodeStateReady {
				ready++
			}
		}
		if ready != x.o.agents+x.o.managers {
			return fmt.Errorf("%d of %d are", ready, x.o.agents+x.o.managers)
		}
		return nil
	})
}

// await counts how the agents are until what they say will do. The pause is many times what counting takes. An
// error from failed ends it.
func (x *scaling) await(ctx context.Context, enough func(crowd.Count) (float64, error), m *midway, failed <-chan error) error {
	for {
		began := time.Now()
		c, err := x.count(ctx)
		if err != nil {
			return err
		}
		rest := max(100*time.Millisecond, 10*time.Since(began))
		x.meter.note(c)
		share, missing := enough(c)
		if missing == nil {
			return nil
		}
		if m != nil {
			if err := m.at(ctx, share); err != nil {
				return fmt.Errorf("kill the leader: %w", err)
			}
		}
		pause := time.NewTimer(rest)
		select {
		case <-pause.C:
		case err := <-failed:
			if err != nil {
				return err
			}
			failed = nil
		case <-ctx.Done():
			return fmt.Errorf("wait for agents, of which %d have a session: %w: %w", c.Sessions, missing, ctx.Err())
		}
		pause.Stop()
	}
}

// slowly looks at a condition that is costly to look at until it holds.
func slowly(ctx context.Context, what string, condition func() error) error {
	for {
		began := time.Now()
		missing := condition()
		if missing == nil {
			return nil
		}
		if sleep(ctx, max(100*time.Millisecond, 3*time.Since(began))) != nil {
			return fmt.Errorf("wait for %s: %w", what, missing)
		}
	}
}

// replicasOf is how many tasks a service has.
func (x *scaling) replicasOf(service int) uint64 {
	n := x.o.tasks / x.o.services
	if service < x.o.tasks%x.o.services {
		n++
	}
	return uint64(n)
}

// create creates the services and waits until all their tasks run, as agents and managers say.
func (x *scaling) create(ctx context.Context, s *report.ScaleStep, m *midway) error {
	s.Of = x.o.tasks
	for i := range x.o.services {
		spec := benchSpec(fmt.Sprintf("crowd-%d", i+1), x.replicasOf(i))
		spec.UpdateConfig.Parallelism = uint64(x.o.parallelism)
		resp, err := x.p.anyManager().api.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{})
		if err != nil {
			return fmt.Errorf("create service %s: %w", spec.Name, err)
		}
		x.ids = append(x.ids, resp.ID)
	}
	return x.allRun(ctx, m, nil)
}

// allRun waits until all tasks run; also is another condition.
func (x *scaling) allRun(ctx context.Context, m *midway, also func(crowd.Count) error) error {
	if err := x.await(ctx, func(c crowd.Count) (float64, error) {
		if c.Running < x.o.tasks {
			return float64(c.Running) / float64(x.o.tasks), fmt.Errorf("%d of %d tasks run", c.Running, x.o.tasks)
		}
		if also != nil {
			return 0.99, also(c)
		}
		return 1, nil
	}, m, nil); err != nil {
		return err
	}
	return x.running(ctx, true)
}

// running waits until managers say that all tasks run, or none.
func (x *scaling) running(ctx context.Context, all bool) error {
	return slowly(ctx, "managers to know it", func() error {
		list, err := x.p.anyManager().api.ServiceList(ctx, swarm.ServiceListOptions{Status: true})
		if err != nil {
			return err
		}
		want, have := uint64(0), uint64(0)
		for _, service := range list {
			if !slices.Contains(x.ids, service.ID) || service.ServiceStatus == nil {
				continue
			}
			have += service.ServiceStatus.RunningTasks
			if all {
				want += *service.Spec.Mode.Replicated.Replicas
			}
		}
		if have != want {
			return fmt.Errorf("%d of %d tasks run, as managers say", have, want)
		}
		return nil
	})
}

// update replaces all tasks.
func (x *scaling) update(ctx context.Context, s *report.ScaleStep, m *midway) error {
	s.Of = x.o.tasks
	return x.roll(ctx, x.ids, x.o.tasks, m)
}

// updateOne replaces the tasks of one service.
func (x *scaling) updateOne(ctx context.Context, s *report.ScaleStep, m *midway) error {
	s.Of = int(x.replicasOf(0))
	return x.roll(ctx, x.ids[:1], s.Of, m)
}

// roll updates services and waits until their updates are complete and all tasks run.
func (x *scaling) roll(ctx context.Context, ids []string, tasks int, m *midway) error {
	if x.image = map[string]string{oldImage: newImage, newImage: oldImage}[x.image]; len(ids) < len(x.ids) {
		defer func() { x.image = map[string]string{oldImage: newImage, newImage: oldImage}[x.image] }()
	}
	c, err := x.count(ctx)
	if err != nil {
		return err
	}
	began := c.Started
	for _, id := range ids {
		if err := x.change(ctx, id, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = x.image }); err != nil {
			return err
		}
	}
	if err := x.await(ctx, func(c crowd.Count) (float64, error) {
		if started := c.Started - began; started < tasks {
			return float64(started) / float64(tasks), fmt.Errorf("%d of %d tasks were replaced", started, tasks)
		}
		return 1, nil
	}, m, nil); err != nil {
		return err
	}
	if err := slowly(ctx, "the updates to be complete", func() error {
		list, err := x.p.anyManager().api.ServiceList(ctx, swarm.ServiceListOptions{})
		if err != nil {
			return err
		}
		left, why := 0, ""
		for _, service := range list {
			if slices.Contains(ids, service.ID) && (service.UpdateStatus == nil || service.UpdateStatus.State != swarm.UpdateStateCompleted) {
				if left++; service.UpdateStatus != nil {
					why = fmt.Sprintf("%s: %s", service.UpdateStatus.State, service.UpdateStatus.Message)
				}
			}
		}
		if left > 0 {
			return fmt.Errorf("%d aren't (%s)", left, why)
		}
		return nil
	}); err != nil {
		return err
	}
	return x.allRun(ctx, nil, nil)
}

// change changes the spec of a service, again when somebody else did meanwhile.
func (x *scaling) change(ctx context.Context, id string, edit func(*swarm.ServiceSpec)) error {
	return until(ctx, time.Minute, "service "+id+" to be changed", func(ctx context.Context) error {
		api := x.p.anyManager().api
		service, _, err := api.ServiceInspectWithRaw(ctx, id, swarm.ServiceInspectOptions{})
		if err != nil {
			return err
		}
		edit(&service.Spec)
		_, err = api.ServiceUpdate(ctx, id, service.Version, service.Spec, swarm.ServiceUpdateOptions{})
		return err
	})
}

// drain takes the tasks off a tenth of the nodes.
func (x *scaling) drain(ctx context.Context, s *report.ScaleStep, m *midway) error {
	x.drained = max(1, x.o.agents/10/len(x.crowds))
	group, draining := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for _, c := range x.crowds {
		for _, id := range c.ids[:min(x.drained, len(c.ids)/2)] {
			s.Of++
			group.Go(func() error { return x.drainNode(draining, id) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return x.allRun(ctx, m, func(c crowd.Count) error {
		if c.RunningFirst > 0 {
			return fmt.Errorf("%d tasks run on drained nodes", c.RunningFirst)
		}
		return nil
	})
}

// kill kills a twentieth of the agents at once.
func (x *scaling) kill(ctx context.Context, s *report.ScaleStep, m *midway) error {
	each := max(1, x.o.agents/20/len(x.crowds))
	before, err := x.count(ctx)
	if err != nil {
		return err
	}
	answers, err := x.askAll(ctx, func(*crowdProcess) crowdOrder { return crowdOrder{Do: "kill", Count: each} })
	if err != nil {
		return err
	}
	for _, a := range answers {
		s.Of += len(a.IDs)
	}
	after, err := x.count(ctx)
	if err != nil {
		return err
	}
	gone, killed := max(1, before.Running-after.Running), time.Now()
	if err := x.await(ctx, func(c crowd.Count) (float64, error) {
		if c.Running < x.o.tasks {
			// All may come back at once, so the middle is after a second at the latest.
			return max(1-float64(x.o.tasks-c.Running)/float64(gone), time.Since(killed).Seconds()/2), fmt.Errorf("%d of %d tasks run", c.Running, x.o.tasks)
		}
		return 1, nil
	}, m, nil); err != nil {
		return err
	}
	return x.running(ctx, true)
}

// zero scales all services to nothing.
func (x *scaling) zero(ctx context.Context, s *report.ScaleStep, m *midway) error {
	s.Of = x.o.tasks
	for _, id := range x.ids {
		if err := x.change(ctx, id, func(spec *swarm.ServiceSpec) { spec.Mode.Replicated.Replicas = new(uint64) }); err != nil {
			return err
		}
	}
	if err := x.await(ctx, func(c crowd.Count) (float64, error) {
		if c.Running > 0 {
			return 1 - float64(c.Running)/float64(x.o.tasks), fmt.Errorf("%d tasks run", c.Running)
		}
		return 1, nil
	}, m, nil); err != nil {
		return fmt.Errorf("%w; %s", err, x.stillRunning(context.WithoutCancel(ctx)))
	}
	return x.running(ctx, false)
}

// stillRunning names tasks that should run or do, as managers say.
func (x *scaling) stillRunning(ctx context.Context) string {
	const most = 5
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	list, err := x.p.anyManager().api.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("desired-state", "running"))})
	if err != nil {
		return "managers don't say which: " + err.Error()
	}
	text := fmt.Sprintf("managers want %d to run", len(list))
	for _, task := range list[:min(most, len(list))] {
		text += fmt.Sprintf("; %s of service %s on node %s: %s", task.ID, task.ServiceID, task.NodeID, task.Status.State)
	}
	return text
}

// lists asks the leader for all services with their tasks counted, and for tasks.
func (x *scaling) lists(ctx context.Context) (all []report.ScaleList) {
	leader, err := x.p.leader(ctx, x.p.anyManager())
	if err != nil {
		return nil
	}
	which := map[string][]string{}
	n := 0
	for i, id := range x.ids {
		if n < listed {
			which["service"] = append(which["service"], id)
			n += int(x.replicasOf(i))
		}
	}
	filter, err := json.Marshal(which)
	if err != nil {
		return nil
	}
	for _, q := range []struct{ what, path string }{
		{"GET /services?status=true", "services?status=true"},
		{"GET /tasks", "tasks?filters=" + url.QueryEscape(string(filter))},
		{"GET /nodes", "nodes"},
	} {
		began := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://skep/v1.41/"+q.path, nil)
		if err != nil {
			return all
		}
		resp, err := leader.api.HTTPClient().Do(req)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		took := report.Since(began, time.Now())
		var items []json.RawMessage
		if err == nil && json.Unmarshal(body, &items) == nil {
			all = append(all, report.ScaleList{What: q.what, Count: len(items), Took: took, Bytes: len(body)})
		}
	}
	return all
}
