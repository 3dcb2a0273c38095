package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"
)

// benchWrites creates services through all of three managers at once, with their logs
// on disk and synced, and does the same with three managers of Docker Swarm.
func benchWrites(ctx context.Context, b *bench) (err error) {
	p, err := b.formed(ctx, "simulate", 3, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var hosts []string
	for _, n := range p.nodes {
		hosts = append(hosts, n.socket())
	}
	clients := []int{16, 64}
	ours := map[int]float64{}
	for _, c := range clients {
		if ours[c], err = writesPerSecond(ctx, hosts, c, 5*time.Second); err != nil {
			return err
		}
	}
	// Not at the same time: they would take each other's processors.
	for _, n := range p.nodes {
		n.kill()
	}
	theirs, swarmErr := swarmWrites(ctx, clients)
	for _, c := range clients {
		f := finding{what: fmt.Sprintf("service create/s, three managers, %d clients", c), measured: fmt.Sprintf("%.0f/s", ours[c]), must: "at least 10 × Swarm"}
		if swarmErr == nil {
			f.measured += fmt.Sprintf(" = %.1f ×", ours[c]/theirs[c])
			f.reference = fmt.Sprintf("Swarm %.0f/s", theirs[c])
			f.reached = ours[c] >= 10*theirs[c]
		} else {
			f.must += " (340/s with 16 clients, on another day)"
		}
		b.add(f)
	}
	if swarmErr != nil {
		b.skip("three managers of Docker Swarm", swarmErr)
	}
	return nil
}

// writesPerSecond lets that many clients, spread over the hosts, each with a
// connection of its own, create services without tasks one after the other.
func writesPerSecond(ctx context.Context, hosts []string, clients int, length time.Duration) (float64, error) {
	var accepted atomic.Int64
	run := time.Now().UnixNano()
	deadline, stop := context.WithTimeout(ctx, length)
	defer stop()
	group, groupCtx := errgroup.WithContext(deadline)
	start := time.Now()
	for c := range clients {
		group.Go(func() error {
			api, err := connect(hosts[c%len(hosts)])
			if err != nil {
				return err
			}
			defer api.Close()
			for i := 0; ; i++ {
				_, err := api.ServiceCreate(groupCtx, benchSpec(fmt.Sprintf("write-%d-%d-%d", run, c, i), 0), swarm.ServiceCreateOptions{})
				if groupCtx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				accepted.Add(1)
			}
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if accepted.Load() == 0 {
		return 0, errors.New("no write was accepted")
	}
	return float64(accepted.Load()) / took.Seconds(), nil
}
