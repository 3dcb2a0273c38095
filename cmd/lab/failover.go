package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

// stops is how often a leader is stopped in order.
const stops = 5

// benchFailover kills and stops leaders of three managers, and does the same once
// with three managers of Docker Swarm.
func benchFailover(ctx context.Context, b *bench) (err error) {
	p, err := b.formed(ctx, "simulate", 3, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	killed, err := p.afterKill(ctx, b.rounds)
	if err != nil {
		return err
	}
	stopped, err := p.stalls(ctx, stops)
	if err != nil {
		return err
	}
	swarmKilled, swarmStopped, swarmErr := swarmFailover(ctx)
	reference := func(d time.Duration) string {
		if swarmErr != nil {
			return ""
		}
		return "Swarm " + seconds(d)
	}
	b.add(finding{fmt.Sprintf("leader killed -9, %d times, → next accepted write", b.rounds),
		fmt.Sprintf("median %s, worst %s", millis(median(killed)), millis(worst(killed))), reference(swarmKilled),
		"median 600 ms, worst 1000 ms", median(killed) <= 600*time.Millisecond && worst(killed) <= time.Second})
	b.add(finding{"leader stopped in order: longest gap between accepted writes",
		fmt.Sprintf("median %s, worst %s", millis(median(stopped)), millis(worst(stopped))), reference(swarmStopped),
		"at most 100 ms", worst(stopped) <= 100*time.Millisecond})
	if swarmErr != nil {
		b.skip("three managers of Docker Swarm", swarmErr)
	}
	return nil
}

// afterKill kills the leader again and again and times how long after it a survivor
// accepts a write. Between the rounds the cluster is whole again.
func (p *processes) afterKill(ctx context.Context, rounds int) ([]time.Duration, error) {
	var all []time.Duration
	for range rounds {
		leader, err := p.leader(ctx, p.anyManager())
		if err != nil {
			return nil, err
		}
		survivor := p.otherManager(leader)
		start := time.Now() // before the process is gone, which takes a moment too
		leader.kill()
		took, err := nextWrite(ctx, survivor.api, start, time.Minute)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
		if err := leader.start(ctx); err != nil {
			return nil, err
		}
		if err := p.settled(ctx, 3, len(p.nodes)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// stalls stops leaders in order while a client writes without a pause through another
// manager, and returns the longest time without an accepted write, for each stop. A
// time from the signal on would be flattering: a leader that is stopping still writes.
func (p *processes) stalls(ctx context.Context, rounds int) ([]time.Duration, error) {
	var all []time.Duration
	for range rounds {
		leader, err := p.leader(ctx, p.anyManager())
		if err != nil {
			return nil, err
		}
		survivor := p.otherManager(leader)
		w := startWriter(ctx, survivor.api)
		err = w.during(ctx, leader.stop)
		if err != nil {
			return nil, err
		}
		all = append(all, w.longest)
		if err := leader.start(ctx); err != nil {
			return nil, err
		}
		if err := p.settled(ctx, 3, len(p.nodes)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// writer changes the cluster without a pause, one write after the other.
type writer struct {
	accepted atomic.Int64
	stop     context.CancelFunc
	done     chan struct{}
	longest  time.Duration // between two accepted writes; read it after done
}

func startWriter(ctx context.Context, api *client.Client) *writer {
	ctx, stop := context.WithCancel(ctx)
	w := &writer{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		var last time.Time
		for i := 0; ctx.Err() == nil; i++ {
			resp, err := api.ServiceCreate(ctx, benchSpec(fmt.Sprintf("writer-%d-%d", time.Now().UnixNano(), i), 0), swarm.ServiceCreateOptions{})
			if err != nil {
				continue // the gap that it leaves is what is measured
			}
			now := time.Now()
			if !last.IsZero() {
				w.longest = max(w.longest, now.Sub(last))
			}
			last = now
			w.accepted.Add(1)
			_ = api.ServiceRemove(ctx, resp.ID) // a write too; a leftover harms nobody
		}
	}()
	return w
}

// during lets the writer get going, runs disturb, and lets writes come back.
func (w *writer) during(ctx context.Context, disturb func() error) error {
	defer func() { w.stop(); <-w.done }()
	more := func(n int64) error {
		target := w.accepted.Load() + n
		return until(ctx, 2*time.Minute, "writes", func(context.Context) error {
			if have := w.accepted.Load(); have < target {
				return fmt.Errorf("%d to come", target-have)
			}
			return nil
		})
	}
	if err := more(20); err != nil {
		return err
	}
	if err := disturb(); err != nil {
		return err
	}
	return more(20)
}

// benchWorker kills one of five nodes and times until all tasks run on the others.
func benchWorker(ctx context.Context, b *bench) (err error) {
	const rounds, replicas = 5, 10
	engine, err := connect(b.engine)
	if err != nil {
		return err
	}
	defer engine.Close()
	p, err := b.formed(ctx, "docker", 5, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	t := timer{p.nodes[0].api, engine}
	service, _, err := t.create(ctx, benchSpec("bench-worker", replicas))
	if err != nil {
		return err
	}
	start, err := direct(ctx, engine, replicas/5)
	if err != nil {
		return err
	}
	victim := p.nodes[4]
	id, err := victim.id(ctx)
	if err != nil {
		return err
	}
	var all []time.Duration
	for range rounds {
		// The last round left the node empty: a forced update spreads the tasks again.
		if err := t.spread(ctx, service, replicas, id); err != nil {
			return err
		}
		begin := time.Now()
		victim.kill()
		if err := t.running(ctx, service, replicas, func(task swarm.Task) bool { return task.NodeID != id }); err != nil {
			return err
		}
		all = append(all, time.Since(begin))
		if err := victim.start(ctx); err != nil {
			return err
		}
		if err := p.settled(ctx, 3, 5); err != nil {
			return err
		}
	}
	b.add(finding{fmt.Sprintf("worker killed -9, %d times, → its tasks run elsewhere", rounds),
		fmt.Sprintf("median %s, worst %s", seconds(median(all)), seconds(worst(all))),
		"starting them alone " + seconds(start) + ", Swarm marks it down after 10.8 s", "at most 2.5 s + start",
		worst(all) <= 2500*time.Millisecond+start})
	return t.remove(ctx, service)
}

// spread forces an update and waits until a task runs on the node.
func (t timer) spread(ctx context.Context, serviceID string, replicas int, nodeID string) error {
	service, _, err := t.api.ServiceInspectWithRaw(ctx, serviceID, swarm.ServiceInspectOptions{})
	if err != nil {
		return err
	}
	service.Spec.TaskTemplate.ForceUpdate++
	if _, err := t.api.ServiceUpdate(ctx, serviceID, service.Version, service.Spec, swarm.ServiceUpdateOptions{}); err != nil {
		return err
	}
	force := service.Spec.TaskTemplate.ForceUpdate
	if err := t.running(ctx, serviceID, replicas, func(task swarm.Task) bool { return task.Spec.ForceUpdate == force }); err != nil {
		return err
	}
	tasks, err := t.tasks(ctx, serviceID)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if task.NodeID == nodeID && task.Status.State == swarm.TaskStateRunning {
			return nil
		}
	}
	return errors.New("no task runs on the node that is to be killed")
}
