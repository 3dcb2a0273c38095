package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

// benchNetworks measures what networks cost: packets, connections and names on hosts in namespaces, beside
// the overlay network of a real Docker Swarm, and what the daemons do for them.
func benchNetworks(ctx context.Context, b *bench) error {
	return errors.Join(b.packets(ctx), b.ofNetworks(ctx))
}

// packets runs agent/network/linux's TestNumbers, which has the hosts.
func (b *bench) packets(ctx context.Context) error {
	if os.Getuid() != 0 {
		b.skip("networks between hosts", errors.New("needs root, for hosts in network namespaces"))
		return nil
	}
	dir, err := os.MkdirTemp("", "skep-lab-numbers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "numbers")
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "15m", "-run", "^TestNumbers$", "./agent/network/linux")
	cmd.Env = append(os.Environ(), "SKEP_NUMBERS="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("measure networks between hosts: %w\n%s", err, bytes.TrimSpace(out))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("measure networks between hosts: %w", err)
	}
	v := map[string]float64{}
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("measure networks between hosts: %w", err)
	}
	gigabits := func(bytes float64) string { return fmt.Sprintf("%.2f Gbit/s", 8*bytes/1e9) }
	micros := func(ns float64) string { return fmt.Sprintf("%.1f µs", ns/1000) }
	count := func(n float64) string { return fmt.Sprintf("%.0f/s", n) }
	beside := func(what, name, other, word string, show func(float64) string, must float64, most bool) {
		times := v[name] / v[other]
		limit, reached := "at least", times >= must
		if most {
			limit, reached = "at most", times <= must
		}
		b.add(finding{what, fmt.Sprintf("%s = %.2f ×", show(v[name]), times), show(v[other]) + " " + word, fmt.Sprintf("%s %.2f ×", limit, must), reached && times > 0})
	}
	beside("TCP from container to container, two hosts", "throughput", "throughput of Docker Swarm", "by Docker Swarm's overlay", gigabits, 0.95, false)
	beside("a request by virtual IP, other host", "latency by VIP", "latency by address", "by address", micros, 1.15, true)
	beside("a request through the mesh, task on another host", "latency by mesh", "latency by address", "by address", micros, 1.3, true)
	beside("new connections by virtual IP, 2,000 services of 10 tasks", "connections with 2000 services", "connections with 1 service", "with 1 service", count, 0.95, false)
	b.add(finding{"a service of 2,000 changes: from the agents to the kernels of three hosts", fmt.Sprintf("%.1f ms", v["change"]), "", "at most 50 ms from the commit", v["change"] <= 50})
	b.add(finding{"names answered by one core, of 10,000 endpoints", count(v["names"]), count(v["names of the engine"]) + " by the engine", "at least 30000/s", v["names"] >= 30000})
	b.add(finding{"a name, asked by a container", micros(v["names median"]), micros(v["names of the engine median"]) + " by the engine", "at most 100 µs", v["names median"] <= 100e3})
	b.add(finding{"memory of a plane with 10,000 endpoints", fmt.Sprintf("%.1f MB, %.1f MB resident", v["heap MB"], v["resident MB"]), "", "at most 20 MB", v["resident MB"] <= 20})
	return nil
}

// ofNetworks runs the benchmarks of what the daemons do for networks.
func (b *bench) ofNetworks(ctx context.Context) error {
	for _, services := range []string{"20000", "200"} {
		v, err := goBench(ctx, "BenchmarkPlan_Networks/nodes=1000/tasks=20000/services="+services, "-benchtime", "8x", "./scheduler")
		if err != nil {
			return err
		}
		b.add(finding{"placement with addresses and published ports, " + services + " services", fmt.Sprintf("%.2f s = %.2f ×", v["s/networked"], v["times"]),
			fmt.Sprintf("%.2f s without", v["s/plain"]), "at most 1.15 ×", v["times"] <= 1.15})
	}
	v, err := goBench(ctx, "BenchmarkServed", "-benchtime", "20x", "./cluster/clustertest")
	if err != nil {
		return err
	}
	b.add(finding{"healthy → planes and names of three machines lead there, kernels in memory", fmt.Sprintf("%.0f ms, %.0f ms at worst", v["ms/median"], v["ms/worst"]), "", "median at most 100 ms", v["ms/median"] <= 100})
	for _, part := range []struct{ what, name, pkg string }{
		{"an endpoint of 10,000 changes: dispatch, 1,000 sessions", "BenchmarkChange/difference", "./cluster/dispatch/networks"},
		{"an endpoint of 10,000 changes: an agent's account", "BenchmarkNetworks/account", "./agent"},
		{"an endpoint of 10,000 changes: an agent's names", "BenchmarkNetworks/names", "./agent"},
	} {
		v, err := goBench(ctx, part.name, "-benchtime", "50x", part.pkg)
		if err != nil {
			return err
		}
		b.add(finding{part.what, fmt.Sprintf("%.1f ms", v["ns/op"]/1e6), "", "told only", true})
	}
	return nil
}

// overlayRounds is how often replicas are created on networks, by each in turn.
const overlayRounds = 8

// benchOverlay sets creating replicas on an overlay network beside the engine alone with a bridge network that was
// made as well, since containers of such networks can ask for names, which those of the default one can't, and an engine
// takes its time for that; and beside Docker Swarm on the same engine. Swarm's service has no virtual IP: kernels without
// IPVS can't have it.
func benchOverlay(ctx context.Context, b *bench) (err error) {
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
	ours := timer{p.nodes[0].api, engine}
	on := func(t timer) (string, error) {
		made, err := t.api.NetworkCreate(ctx, "skep-lab-overlay", network.CreateOptions{Driver: "overlay"})
		return made.ID, err
	}
	id, err := on(ours)
	if err != nil {
		return err
	}
	defer func() {
		// A node that is killed would leave the network's bridge, rules and names on this machine.
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, removeNetwork(ctx, ours.api, id), ours.api.SwarmLeave(leave, true))
	}()
	rounds := func(t timer, name, id string, mode swarm.ResolutionMode, took *[]time.Duration) error {
		spec := benchSpec(name, uint64(b.n))
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: id}}
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: mode}
		service, one, err := t.create(ctx, spec)
		if err != nil {
			return fmt.Errorf("create %d on an overlay network: %w", b.n, err)
		}
		*took = append(*took, one)
		return t.remove(ctx, service)
	}
	const bridge = "skep-lab-bridge"
	if _, err := engine.NetworkCreate(ctx, bridge, network.CreateOptions{Driver: "bridge"}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeNetwork(ctx, engine, bridge)) }()
	var byDefault, raw, here, there []time.Duration
	all := func(theirs *timer, theirNetwork string) error {
		for i := range overlayRounds {
			for on, took := range map[string]*[]time.Duration{"default": &byDefault, bridge: &raw} {
				one, err := directOn(ctx, engine, b.n, on)
				if err != nil {
					return err
				}
				*took = append(*took, one)
			}
			if err := rounds(ours, fmt.Sprintf("overlay-%d", i), id, swarm.ResolutionModeVIP, &here); err != nil {
				return err
			}
			if theirs == nil {
				continue
			}
			if err := rounds(*theirs, fmt.Sprintf("swarm-overlay-%d", i), theirNetwork, swarm.ResolutionModeDNSRR, &there); err != nil {
				return err
			}
		}
		return nil
	}
	swarmErr := b.asSwarm(ctx, engine, func() (err error) {
		theirs := timer{engine, engine}
		network, err := on(theirs)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, removeNetwork(ctx, engine, network)) }()
		return all(&theirs, network)
	})
	if swarmErr != nil {
		b.skip("Docker Swarm's overlay on the same engine", swarmErr)
		byDefault, raw, here = nil, nil, nil
		if err := all(nil, ""); err != nil {
			return err
		}
	}
	floor, took := median(raw), median(here)
	times := took.Seconds() / floor.Seconds()
	reference := fmt.Sprintf("engine with a bridge %s, with its default one %s", seconds(floor), seconds(median(byDefault)))
	if len(there) > 0 {
		reference += fmt.Sprintf(", Swarm %s = %.2f ×", seconds(median(there)), median(there).Seconds()/floor.Seconds())
	}
	b.add(finding{fmt.Sprintf("create %d on an overlay network → all running", b.n), fmt.Sprintf("%s = %.2f ×", seconds(took), times), reference, "at most 1.2 × the engine", times <= 1.2})
	return nil
}

// removeNetwork removes a network once no container is on it.
func removeNetwork(ctx context.Context, api *client.Client, id string) error {
	return until(context.WithoutCancel(ctx), time.Minute, "the network to go", func(ctx context.Context) error { return api.NetworkRemove(ctx, id) })
}
