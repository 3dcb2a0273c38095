package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"skep/cluster"
)

const (
	// playManagers of playNodes are managers.
	playManagers, playNodes = 3, 8
	// playRestart is how long a daemon that was killed stays away: long enough to watch.
	playRestart = 15 * time.Second
	// playLook is how often one looks for such daemons.
	playLook = 250 * time.Millisecond
)

// runPlay keeps a simulated cluster running, with its console, for somebody to play with.
func runPlay(ctx context.Context, l lab, args []string) (err error) {
	fs := flag.NewFlagSet("lab play", flag.ContinueOnError)
	port := fs.Int("port", 0, "port of the console on this machine (default: any that is free)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	fmt.Println("Starting three managers and five workers, whose tasks are simulated…")
	p, err := newProcesses(ctx, l, "simulate", playNodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.form(ctx, playManagers); err != nil {
		return err
	}
	if err := furnish(ctx, p.nodes[0].api); err != nil {
		return err
	}
	// The console is another manager's than the leader's, so that one can watch the leader go.
	at := p.nodes[1]
	fmt.Printf("\nTry, in another terminal (a daemon that is killed comes back after %v):\n", playRestart)
	for _, n := range p.nodes[:playManagers] {
		fmt.Printf("  kill -9 %d     # %s%s\n", n.cmd.Process.Pid, n.name, map[bool]string{true: ", which leads", false: ""}[n == p.nodes[0]])
	}
	fmt.Printf("  export SKEP_HOST=%s\n  %s service scale shop_web=12\n  %s node drain n8\n\nThe console:\n", at.socket(), filepath.Join(l.bin, "skep"), filepath.Join(l.bin, "skep"))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		keepAlive(ctx, p)
	}()
	cmd := exec.CommandContext(ctx, filepath.Join(l.bin, "skep"), consoleArgs(at, "--write", "--port", fmt.Sprint(*port))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	interrupted := ctx.Err() != nil
	cancel()
	<-done
	if interrupted {
		return ctx.Err()
	}
	return err
}

// consoleArgs are what skep is given to open the console of a node.
func consoleArgs(n *node, more ...string) []string {
	return append([]string{"--host", n.socket(), "console"}, more...)
}

// consoleCommand is what a user types to open the console of a node.
func consoleCommand(l lab, n *node) string {
	return strings.Join(append([]string{filepath.Join(l.bin, "skep")}, consoleArgs(n)...), " ")
}

// keepAlive starts daemons again that have ended, a while later, until ctx ends.
func keepAlive(ctx context.Context, p *processes) {
	gone := map[*node]int{} // for how many looks
	ticker := time.NewTicker(playLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, n := range p.nodes {
			if n.running() {
				delete(gone, n)
				continue
			}
			if gone[n]++; gone[n] == 1 {
				fmt.Printf("%s is gone.\n", n.name)
			}
			if time.Duration(gone[n])*playLook < playRestart {
				continue
			}
			delete(gone, n)
			if err := n.start(ctx); err != nil && ctx.Err() == nil {
				fmt.Println("It can't be started again:", err)
			} else if err == nil {
				fmt.Printf("%s is back, as process %d.\n", n.name, n.cmd.Process.Pid)
			}
		}
	}
}

// furnish gives a cluster something to look at: services of a stack, a global one, one that
// fails now and then, one that finds no node, zones, and lines in logs; and its console may change it.
func furnish(ctx context.Context, api *client.Client) error {
	found, err := api.SwarmInspect(ctx)
	if err != nil {
		return fmt.Errorf("inspect cluster: %w", err)
	}
	found.Spec.Labels = map[string]string{cluster.LabelConsole.Name: "write"}
	if err := api.SwarmUpdate(ctx, found.Version, found.Spec, swarm.UpdateFlags{}); err != nil {
		return fmt.Errorf("let the console change the cluster: %w", err)
	}
	nodes, err := api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	for i, n := range nodes {
		n.Spec.Labels = map[string]string{"zone": []string{"east", "west"}[i%2]}
		if err := api.NodeUpdate(ctx, n.ID, n.Version, n.Spec); err != nil {
			return fmt.Errorf("label node %s: %w", n.Description.Hostname, err)
		}
	}
	for _, s := range playServices() {
		if _, err := api.ServiceCreate(ctx, s, swarm.ServiceCreateOptions{}); err != nil {
			return fmt.Errorf("create service %s: %w", s.Name, err)
		}
	}
	return nil
}

// playServices are the services of the cluster to play with.
func playServices() []swarm.ServiceSpec {
	service := func(name string, replicas uint64, behaves map[string]string, change ...func(*swarm.ServiceSpec)) swarm.ServiceSpec {
		s := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name, Labels: map[string]string{}}}
		if stack, _, ok := strings.Cut(name, "_"); ok {
			s.Labels[cluster.LabelStack] = stack
		}
		s.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "registry.example.org/" + name + ":1.0", Labels: map[string]string{}}
		for word, value := range behaves {
			s.TaskTemplate.ContainerSpec.Labels[cluster.LabelSimulate+word] = value
		}
		s.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
		s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, Delay: time.Second, Monitor: 2 * time.Second, Order: swarm.UpdateOrderStartFirst}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	return []swarm.ServiceSpec{
		service("shop_web", 8, map[string]string{"start-delay": "1500ms", "log-every": "2s"}, func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: swarm.PortConfigProtocolTCP, TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}}
		}),
		service("shop_api", 5, map[string]string{"start-delay": "1s", "log-every": "3s"}),
		service("shop_db", 1, nil, func(s *swarm.ServiceSpec) {
			s.Labels[cluster.LabelFence.Name] = "true"
			s.UpdateConfig.Order = swarm.UpdateOrderStopFirst
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.zone==east"}}
		}),
		service("agent", 0, nil, func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }),
		service("flaky", 3, map[string]string{"run-for": "40s", "run-spread": "40s", "exit-code": "3", "log-every": "1s"}),
		service("nowhere", 2, nil, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.zone==north"}}
		}),
	}
}
