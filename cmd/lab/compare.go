package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"skep/cmd/lab/report"
	"skep/cmd/lab/scenario"
)

// compared are the scenarios that `lab compare` runs unless it is told others.
var compared = []string{"leader-crash", "leader-stop", "worker-crash"}

// swarmPatience is how long a wait may take with Docker Swarm, which needs a minute
// for some of what skep does in one second.
const swarmPatience = 4 * time.Minute

// runCompare runs scenarios on skep and on real Docker Swarm: the same steps, the same
// clients, the same network between the nodes.
func runCompare(ctx context.Context, l lab, args []string) error {
	fs := flag.NewFlagSet("lab compare", flag.ContinueOnError)
	o := runOptions{latency: "lan"}
	fs.IntVar(&o.managers, "managers", 3, "managers")
	fs.IntVar(&o.workers, "workers", 2, "workers; with Docker Swarm each node is a dockerd")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each scenario is run")
	fs.StringVar(&o.driver, "driver", "docker", "what runs skep's tasks: docker or simulate")
	fs.StringVar(&o.out, "out", "lab-compare", "directory of results.json and report.html")
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: lab compare [OPTIONS] [SCENARIO|FILE...] (default %v)\n", compared)
		fs.PrintDefaults()
	}
	names, err := parseMixed(fs, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = compared
	}
	if o.rounds < 1 {
		return fmt.Errorf("-rounds %d: want at least 1", o.rounds)
	}
	if !canIsolate() {
		return errors.New("compare with Docker Swarm: several of its nodes on one machine need network namespaces, and those need root, iproute2 and /dev/net/tun")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return fmt.Errorf("compare with Docker Swarm: %w", err)
	}
	settings, err := o.settings(ctx, l, names)
	if err != nil {
		return err
	}
	for _, s := range settings {
		if err := comparable(s.scenario); err != nil {
			return err
		}
	}
	return compareAll(ctx, settings, o.rounds, o.out, os.Stdout)
}

// comparable refuses what can be done to skep's nodes only.
func comparable(s scenario.Scenario) error {
	if needs := s.Needs(); needs.Disks || needs.Engine || needs.Clocks {
		return fmt.Errorf("compare %s: it disturbs disks, engines or clocks, and Docker Swarm's nodes are engines", s.Name)
	}
	return nil
}

// onSwarm is the setting for Docker Swarm: more patience, and without what can't be
// seen from its outside.
func (s setting) onSwarm() setting {
	s.swarm = true
	s.scenario.Steps = slices.Clone(s.scenario.Steps)
	for i := range s.scenario.Steps {
		step := &s.scenario.Steps[i]
		step.Limit = max(step.Limit, swarmPatience)
		step.Measures = slices.DeleteFunc(slices.Clone(step.Measures), func(m scenario.Measure) bool { return m.Name == "noticed" })
		for j := range step.Measures {
			step.Measures[j].Median, step.Measures[j].Worst = nil, nil // what skep must reach
		}
	}
	return s
}

// compareAll runs each setting on both, and shows them side by side.
func compareAll(ctx context.Context, settings []setting, rounds int, out string, w io.Writer) error {
	if err := errors.Join(adoptOrphans(), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	var all []report.Run
	for _, s := range settings {
		// One after the other: at the same time they would take each other's processors.
		for _, each := range []setting{s, s.onSwarm()} {
			run, err := runOne(ctx, each, rounds, out, w)
			if len(run.Rounds) > 0 {
				all = append(all, run)
			}
			if err != nil {
				return errors.Join(err, writeResults(out, all, w))
			}
		}
	}
	report.Compare(w, all)
	return errors.Join(writeResults(out, all, w), judge(all))
}
