package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cmd/lab/report"
)

// scaleSteps are the steps of `lab scale`, in the order in which they are done by default.
var scaleSteps = []string{"join", "create", "update", "drain", "kill", "leader", "zero"}

// scaleOptions are the flags of `lab scale`.
type scaleOptions struct {
	managers, agents, processes, tasks, services, parallelism int
	out, latency, steps                                       string
	idle, limit                                               time.Duration
	killLeader, networks, profile                             bool
}

// runScale shows what many agents and tasks cost.
func runScale(ctx context.Context, l lab, args []string) error {
	o, err := parseScale(args)
	if err != nil {
		return err
	}
	return scale(ctx, l, o, os.Stdout)
}

func parseScale(args []string) (scaleOptions, error) {
	fs := flag.NewFlagSet("lab scale", flag.ContinueOnError)
	var o scaleOptions
	fs.IntVar(&o.managers, "managers", 3, "managers, each a process with its log on disk and synced")
	fs.IntVar(&o.agents, "agents", 10_000, "agents, each with its own certificate and session")
	fs.IntVar(&o.processes, "processes", 0, "processes that the agents are in (default one for each 1,250)")
	fs.IntVar(&o.tasks, "tasks", 1_000_000, "tasks of all services")
	fs.IntVar(&o.services, "services", 0, "services that they are of (default one for each 10,000)")
	fs.IntVar(&o.parallelism, "parallelism", 100, "how many tasks of a service an update replaces at a time")
	fs.StringVar(&o.latency, "latency", cluster.LatencyLAN, "the managers' timing: local, lan or wan")
	fs.StringVar(&o.steps, "steps", strings.Join(scaleSteps, ","), "what is done, in this order")
	fs.DurationVar(&o.idle, "idle", 20*time.Second, "how long nothing happens after join, after create and at the end; 0 leaves that out")
	fs.DurationVar(&o.limit, "limit", 10*time.Minute, "how long a step may take")
	fs.BoolVar(&o.killLeader, "kill-leader", false, "kill the leader in the middle of create, update, drain, kill and zero, too")
	fs.BoolVar(&o.networks, "networks", true, "agents carry networks, in simulation: each is told of all nodes")
	fs.BoolVar(&o.profile, "profile", true, "profile the managers, step by step")
	fs.StringVar(&o.out, "out", "lab-scale", "directory of scale.json, scale.html and the profiles")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: lab scale [OPTIONS]\n\nSteps: join, create (tasks to running), update (all of them), drain (a tenth of the nodes), kill (a twentieth\nof the agents at once), leader (an update in the middle of which the leader is killed), zero")
		fs.PrintDefaults()
	}
	rest, err := parseMixed(fs, args)
	if err != nil {
		return o, err
	}
	if len(rest) > 0 {
		fs.Usage()
		return o, flag.ErrHelp
	}
	return o, o.complete()
}

// complete checks the flags and sets what follows from others.
func (o *scaleOptions) complete() error {
	for name, v := range map[string]int{"managers": o.managers, "agents": o.agents, "tasks": o.tasks, "parallelism": o.parallelism} {
		if v < 1 {
			return fmt.Errorf("-%s %d: want at least 1", name, v)
		}
	}
	if o.agents > 60_000 {
		return fmt.Errorf("-agents %d: want at most 60,000", o.agents)
	}
	if o.processes == 0 {
		o.processes = (o.agents + 1249) / 1250
	}
	if o.services == 0 {
		o.services = (o.tasks + 9999) / 10_000
	}
	if o.processes < 1 || o.processes > o.agents || o.services < 1 || o.services > o.tasks {
		return fmt.Errorf("-processes %d, -services %d: want at least 1, and not more than agents and tasks", o.processes, o.services)
	}
	if _, err := cluster.TimingFor(o.latency); err != nil {
		return fmt.Errorf("-latency: %w", err)
	}
	for _, step := range o.chosen() {
		if !slices.Contains(scaleSteps, step) {
			return fmt.Errorf("-steps %q: want some of %s", step, strings.Join(scaleSteps, ","))
		}
	}
	if o.chosen()[0] != "join" {
		return errors.New("-steps: the first one must be join")
	}
	return nil
}

func (o *scaleOptions) chosen() []string { return strings.Split(o.steps, ",") }

// scaling is a run of `lab scale`.
type scaling struct {
	o       scaleOptions
	p       *processes // the managers
	block   int
	crowds  []*crowdProcess
	run     report.Scale
	w       io.Writer
	meter   *meter
	ids     []string // of the services
	image   string   // that they have now
	drained int      // of each process's agents, the first ones
}

// scale does the steps and writes what came of them. A number that isn't reached is no error, a step that can't be
// completed is one.
func scale(ctx context.Context, l lab, o scaleOptions, w io.Writer) (err error) {
	if err := enoughFiles(uint64(o.agents) + 2000); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	x := &scaling{o: o, w: w, image: oldImage}
	defer func() { err = errors.Join(err, x.close()) }()
	if err := x.form(ctx, l); err != nil {
		return err
	}
	if x.run.Form, err = x.state(ctx); err != nil {
		return err
	}
	x.meter = x.startMeter(ctx)
	err = x.steps(ctx)
	x.meter.stop()
	x.run.Samples = x.meter.samples
	x.readProfiles(ctx)
	x.run.Length = report.Since(x.run.Began, time.Now())
	report.ScaleTable(w, x.run)
	return errors.Join(err, x.write())
}

// enoughFiles raises the limit of open files, which the processes inherit: every agent may have its session with one
// manager.
func enoughFiles(want uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max >= want {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}); err != nil {
		return fmt.Errorf("a process may open %d files, and a manager needs %d: raise the limit (\"ulimit -Hn %d\"): %w", limit.Max, want, want, err)
	}
	return nil
}

// form makes the managers a cluster. They run no tasks, as is usual in large clusters.
func (x *scaling) form(ctx context.Context, l lab) (err error) {
	if x.block, err = freeBlock(x.o.managers); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "skep-lab-")
	if err != nil {
		return err
	}
	x.p = &processes{lab: l, dir: dir, driver: "simulate", ids: map[string]bool{}}
	for i := 1; i <= x.o.managers; i++ {
		name := fmt.Sprintf("m%d", i)
		n := newNode(name, fmt.Sprintf("127.0.%d.%d", x.block, i), filepath.Join(dir, name), filepath.Join(l.bin, "skep"),
			"--driver", "simulate", "--engine", l.engine, "--latency", x.o.latency, "--profile-socket", filepath.Join(dir, name, "profile.sock"))
		x.p.nodes = append(x.p.nodes, n)
		x.run.Processes = append(x.run.Processes, report.ScaleProcess{Name: name, Manager: true})
	}
	for _, n := range x.p.nodes {
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	if err := x.p.form(ctx, x.o.managers); err != nil {
		return err
	}
	list, err := x.p.nodes[0].api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list {
		if err := x.drainNode(ctx, n.ID); err != nil {
			return err
		}
	}
	x.run.Machine, x.run.Latency, x.run.Began = thisMachine(), x.o.latency, time.Now()
	x.run.Managers, x.run.Agents, x.run.Tasks = x.o.managers, x.o.agents, x.o.tasks
	x.run.Services, x.run.Parallelism = x.o.services, x.o.parallelism
	x.run.Simulated = []string{
		"the agents' containers (simulate driver), and their disks: an agent keeps nothing",
		"the agents' part in gossip: they have none, so a killed agent is down when its session has been gone for 10 s; a leader that begins takes who has no session within half a second for dead",
	}
	if x.o.networks {
		x.run.Simulated = append(x.run.Simulated, "the agents' networks: told by managers as to any node, carried by no kernel")
	} else {
		x.run.Simulated = append(x.run.Simulated, "the agents' networks: they say that they can't carry any")
	}
	return x.startCrowds(ctx)
}

// drainNode takes the tasks off a node, or keeps them away.
func (x *scaling) drainNode(ctx context.Context, id string) error {
	return until(ctx, time.Minute, "node "+id+" to be drained", func(ctx context.Context) error {
		api := x.p.anyManager().api
		n, _, err := api.NodeInspectWithRaw(ctx, id)
		if err != nil {
			return err
		}
		n.Spec.Availability = swarm.NodeAvailabilityDrain
		return api.NodeUpdate(ctx, id, n.Version, n.Spec)
	})
}

// write writes scale.json and scale.html.
func (x *scaling) write() error {
	for name, write := range map[string]func(io.Writer, report.Scale) error{"scale.json": report.WriteScaleJSON, "scale.html": report.WriteScalePage} {
		f, err := os.Create(filepath.Join(x.o.out, name))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f, x.run), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	fmt.Fprintf(x.w, "\n%s has the pictures, %s all that was recorded.\n", filepath.Join(x.o.out, "scale.html"), filepath.Join(x.o.out, "scale.json"))
	return nil
}

// close ends all processes; their logs stay when a step failed.
func (x *scaling) close() error {
	for _, c := range x.crowds {
		c.close()
	}
	if x.p == nil {
		return nil
	}
	var errs []error
	if slices.ContainsFunc(x.run.Steps, func(s report.ScaleStep) bool { return s.Failure != "" }) {
		for _, p := range x.run.Processes {
			from := filepath.Join(x.p.dir, p.Name+".log")
			if p.Manager {
				from = filepath.Join(x.p.dir, p.Name, "log")
			}
			errs = append(errs, copyFile(from, filepath.Join(x.o.out, p.Name+".log")))
		}
	}
	return errors.Join(append(errs, x.p.close())...)
}
