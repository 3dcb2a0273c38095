package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

// repeats is how often a job with containers is timed; the median counts.
const repeats = 3

// heals is how often a container is removed by hand.
const heals = 7

// jobTimes are the medians of one manager's jobs.
type jobTimes struct{ create, heal, update time.Duration }

// benchContainers sets creating, healing and updating beside the engine alone and
// beside Docker Swarm on the same engine: one node each, since there is one engine.
func benchContainers(ctx context.Context, b *bench) (err error) {
	engine, err := connect(b.engine)
	if err != nil {
		return err
	}
	defer engine.Close()
	p, err := b.formed(ctx, "docker", 1, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	// The engine alone is timed before and after: what else the machine does, and how
	// warm it is, then weighs on both sides.
	var many, one, replaced, rolled []time.Duration
	floor := func() error {
		for range repeats {
			took, err := direct(ctx, engine, b.n)
			if err != nil {
				return err
			}
			many = append(many, took)
		}
		for range heals {
			took, err := direct(ctx, engine, 1)
			if err != nil {
				return err
			}
			one = append(one, took)
		}
		for range heals {
			took, err := directHeal(ctx, engine)
			if err != nil {
				return err
			}
			replaced = append(replaced, took)
		}
		took, err := directUpdate(ctx, engine, b.n, parallelism)
		rolled = append(rolled, took)
		return err
	}
	if err := floor(); err != nil {
		return err
	}
	ours, err := b.timeJobs(ctx, timer{p.nodes[0].api, engine})
	if err != nil {
		return err
	}
	if err := floor(); err != nil {
		return err
	}
	swarms, swarmErr := b.timeSwarm(ctx, engine)
	rawMany, rawOne := median(many), median(one)
	ratio := func(d, by time.Duration) string {
		return fmt.Sprintf("%s = %.2f ×", seconds(d), d.Seconds()/by.Seconds())
	}
	reference := func(raw, swarm string) string {
		if swarmErr != nil {
			return "engine " + raw
		}
		return "engine " + raw + ", Swarm " + swarm
	}
	b.add(finding{fmt.Sprintf("create %d → all running", b.n), ratio(ours.create, rawMany), reference(seconds(rawMany), ratio(swarms.create, rawMany)),
		"at most 1.15 × the engine", ours.create.Seconds() <= 1.15*rawMany.Seconds()})
	plus := func(d time.Duration) string { return fmt.Sprintf("%s = + %s", millis(d), millis(d-rawOne)) }
	rawHeal := fmt.Sprintf("%s for one container, %s for a removal and one", millis(rawOne), plus(median(replaced)))
	b.add(finding{"heal (rm -f → replacement running)", plus(ours.heal), reference(rawHeal, plus(swarms.heal)),
		"at most the engine + 60 ms", ours.heal <= rawOne+60*time.Millisecond})
	if swarmErr != nil {
		b.skip("Docker Swarm on the same engine", swarmErr)
		return nil
	}
	b.add(finding{fmt.Sprintf("rolling update of %d, parallelism %d", b.n, parallelism), fmt.Sprintf("%s = %.2f ×", seconds(ours.update), ours.update.Seconds()/swarms.update.Seconds()),
		fmt.Sprintf("Swarm %s, engine by hand %s", seconds(swarms.update), seconds(median(rolled))), "at most 0.5 × Swarm", ours.update.Seconds() <= 0.5*swarms.update.Seconds()})
	return nil
}

// timeJobs times all jobs of one manager.
func (b *bench) timeJobs(ctx context.Context, t timer) (jobTimes, error) {
	var creates, healed, updates []time.Duration
	for i := range repeats {
		id, took, err := t.create(ctx, benchSpec(fmt.Sprintf("bench-%d", i), uint64(b.n)))
		if err != nil {
			return jobTimes{}, fmt.Errorf("create %d: %w", b.n, err)
		}
		creates = append(creates, took)
		if i == 0 {
			for range heals {
				took, err := t.heal(ctx, id, b.n)
				if err != nil {
					return jobTimes{}, fmt.Errorf("heal: %w", err)
				}
				healed = append(healed, took)
			}
		}
		if took, err = t.update(ctx, id, newImage); err != nil {
			return jobTimes{}, fmt.Errorf("update %d: %w", b.n, err)
		}
		updates = append(updates, took)
		if err := t.remove(ctx, id); err != nil {
			return jobTimes{}, err
		}
	}
	return jobTimes{median(creates), median(healed), median(updates)}, nil
}

// timeSwarm times all jobs of the engine's own Docker Swarm.
func (b *bench) timeSwarm(ctx context.Context, engine *client.Client) (times jobTimes, err error) {
	err = b.asSwarm(ctx, engine, func() (err error) {
		times, err = b.timeJobs(ctx, timer{engine, engine})
		return err
	})
	return times, err
}

// asSwarm makes the engine a swarm of its own for as long as it is measured. It
// never touches an engine that is in a swarm: that is somebody's.
func (b *bench) asSwarm(ctx context.Context, engine *client.Client, measure func() error) (err error) {
	info, err := engine.Info(ctx)
	if err != nil {
		return err
	}
	if info.Swarm.LocalNodeState != swarm.LocalNodeStateInactive {
		return fmt.Errorf("the engine is in a swarm already (%s)", info.Swarm.LocalNodeState)
	}
	// Becoming a swarm makes the engine a network that leaving doesn't remove.
	const gateway = "docker_gwbridge"
	_, noGateway := engine.NetworkInspect(ctx, gateway, network.InspectOptions{})
	defer func() {
		if !cerrdefs.IsNotFound(noGateway) {
			return
		}
		// Engines may count an endpoint on it that is no more, until they are started again: what was measured
		// is as true with it.
		if left := engine.NetworkRemove(context.WithoutCancel(ctx), gateway); left != nil {
			fmt.Fprintf(b.out, "  the engine keeps its network %s: %v\n", gateway, left)
		}
	}()
	if _, err := engine.SwarmInit(ctx, swarm.InitRequest{ListenAddr: "127.0.0.1:2377", AdvertiseAddr: "127.0.0.1", DataPathPort: 4790}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.SwarmLeave(context.WithoutCancel(ctx), true)) }()
	return measure()
}
