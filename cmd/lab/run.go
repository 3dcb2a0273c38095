package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"skep/cluster"
	"skep/cmd/lab/report"
	"skep/cmd/lab/scenario"
)

// runOptions are the flags of `lab run`.
type runOptions struct {
	managers, workers, rounds int
	driver, out, latency      string
}

// runScenarios runs scenarios and writes what came of them.
func runScenarios(ctx context.Context, l lab, args []string) error {
	fs := flag.NewFlagSet("lab run", flag.ContinueOnError)
	var o runOptions
	fs.IntVar(&o.managers, "managers", 0, "managers (default the scenario's, or 3)")
	fs.IntVar(&o.workers, "workers", -1, "workers (default the scenario's, or 5)")
	fs.StringVar(&o.driver, "driver", "", "what runs tasks: docker or simulate (default the scenario's, or simulate)")
	fs.IntVar(&o.rounds, "rounds", 20, "how often each scenario is run")
	fs.StringVar(&o.out, "out", "lab-results", "directory of results.json and report.html")
	fs.StringVar(&o.latency, "latency", "lan", "the nodes' timing: local, lan or wan")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: lab run [OPTIONS] SCENARIO|FILE...\n\nScenarios, besides \"all\":")
		listScenarios(fs.Output())
		fs.PrintDefaults()
	}
	names, err := parseMixed(fs, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		fs.Usage()
		return flag.ErrHelp
	}
	if o.rounds < 1 {
		return fmt.Errorf("-rounds %d: want at least 1", o.rounds)
	}
	settings, err := o.settings(ctx, l, names)
	if err != nil {
		return err
	}
	return runAll(ctx, settings, o.rounds, o.out, os.Stdout)
}

// parseMixed reads flags that stand before, between and after the other arguments.
func parseMixed(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		args = fs.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// settings reads the scenarios and completes them by the flags. "all" leaves out what
// can't be done here, and says so.
func (o runOptions) settings(ctx context.Context, l lab, names []string) ([]setting, error) {
	all := slices.Equal(names, []string{"all"})
	if all {
		names = scenario.Names()
	}
	if _, err := cluster.TimingFor(o.latency); err != nil {
		return nil, fmt.Errorf("-latency: %w", err)
	}
	isolated := canIsolate()
	var settings []setting
	for _, name := range names {
		s, err := readScenario(name)
		if err != nil {
			return nil, err
		}
		if o.managers > 0 {
			s.Managers = o.managers
		}
		if o.workers >= 0 {
			s.Workers = o.workers
		}
		set := setting{lab: l, scenario: s, driver: o.driver, latency: o.latency, isolated: isolated}
		if set.driver == "" {
			set.driver = s.Driver
		}
		if set.driver == "" {
			set.driver = "simulate"
		}
		if set.driver != "docker" && set.driver != "simulate" {
			return nil, fmt.Errorf("-driver %q: want docker or simulate", set.driver)
		}
		switch err := refuse(set, os.Geteuid() == 0); {
		case err != nil && all:
			fmt.Fprintln(os.Stderr, "left out:", err)
			continue
		case err != nil:
			return nil, err
		}
		settings = append(settings, set)
	}
	if slices.ContainsFunc(settings, func(s setting) bool { return s.driver == "docker" }) {
		if !engineAnswers(ctx, l.engine) {
			return nil, fmt.Errorf("no Docker Engine answers at %s: use -driver simulate", l.engine)
		}
		if err := buildTimecheck(ctx, l); err != nil {
			return nil, err
		}
	}
	return settings, nil
}

// readScenario finds a scenario: a file when the argument looks like one, else by name.
func readScenario(name string) (scenario.Scenario, error) {
	if !strings.ContainsAny(name, "./") {
		return scenario.Named(name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return scenario.Scenario{}, fmt.Errorf("read scenario: %w", err)
	}
	return scenario.Parse(strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), string(text))
}

// runAll runs the settings, shows the table, and writes the results. Numbers out of
// bounds are shown only, since the machine has a part in them; lost writes and rounds
// that couldn't be completed are errors.
func runAll(ctx context.Context, settings []setting, rounds int, out string, w io.Writer) error {
	if err := errors.Join(adoptOrphans(), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	var runs []report.Run
	for _, s := range settings {
		run, err := runOne(ctx, s, rounds, out, w)
		if len(run.Rounds) > 0 {
			runs = append(runs, run)
		}
		if err != nil {
			// What there is by now is worth keeping, also when the lab is interrupted.
			return errors.Join(err, writeResults(out, runs, w))
		}
	}
	report.Table(w, runs)
	if err := writeResults(out, runs, w); err != nil {
		return err
	}
	return judge(runs)
}

// judge is an error when a run shows a fault of skep's, or of the scenario's.
func judge(runs []report.Run) error {
	var errs []error
	for _, run := range runs {
		switch lost, failed := run.Lost(); {
		case lost > 0:
			errs = append(errs, fmt.Errorf("%s: %d accepted writes were lost", run.Scenario, lost))
		case failed > 0:
			errs = append(errs, fmt.Errorf("%s: %d rounds could not be completed", run.Scenario, failed))
		}
	}
	return errors.Join(errs...)
}

// runOne runs the rounds of one scenario and shows how it goes.
func runOne(ctx context.Context, s setting, rounds int, keep string, w io.Writer) (report.Run, error) {
	run := report.Run{
		Subject: "skep", Scenario: s.scenario.Name, About: s.scenario.About, Text: s.scenario.Text, Driver: s.driver, Latency: s.latency,
		Isolated: s.isolated, Managers: s.scenario.Managers, Workers: s.scenario.Workers, Machine: thisMachine(), Began: time.Now(),
	}
	if s.swarm {
		run.Subject, run.Driver = "Docker Swarm", "docker"
	}
	fmt.Fprintf(w, "\n%s on %s: %s\n", run.Scenario, run.Subject, run.About)
	show := progress{w: w}
	if f, ok := w.(*os.File); ok {
		show.terminal = term.IsTerminal(int(f.Fd()))
	}
	for number := 1; number <= rounds; number++ {
		show.prefix = fmt.Sprintf("  round %d of %d: ", number, rounds)
		begin := time.Now()
		round, err := runRound(ctx, s, number, keep, show.now)
		if err != nil {
			show.now("")
			return run, err
		}
		run.Rounds = append(run.Rounds, round)
		show.done(fmt.Sprintf("%s (%v)", run.Says(len(run.Rounds)-1), time.Since(begin).Round(time.Second)))
	}
	return run, nil
}

// progress shows what is going on: on a terminal in one line that changes, elsewhere a
// line per round.
type progress struct {
	w        io.Writer
	terminal bool
	prefix   string
}

func (p *progress) now(what string) {
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s%s", p.prefix, what)
	}
}

func (p *progress) done(what string) {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, p.prefix+what)
}

// thisMachine says what the experiment ran on.
func thisMachine() string {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("?")
	}
	return fmt.Sprintf("%d processors, Linux %s, %s", runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version())
}

// writeResults writes results.json and report.html.
func writeResults(out string, runs []report.Run, w io.Writer) error {
	if len(runs) == 0 {
		return nil
	}
	for name, write := range map[string]func(io.Writer, []report.Run) error{"results.json": report.WriteJSON, "report.html": report.WritePage} {
		f, err := os.Create(filepath.Join(out, name))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f, runs), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	fmt.Fprintf(w, "\n%s has the timelines of all rounds, %s all that was recorded.\n", filepath.Join(out, "report.html"), filepath.Join(out, "results.json"))
	return nil
}

// runReport makes table and page anew from results.json.
func runReport(_ context.Context, _ lab, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: lab report DIR/results.json")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	runs, err := report.ReadJSON(f)
	if err != nil {
		return fmt.Errorf("report %s: %w", args[0], err)
	}
	if len(runs) == 0 {
		return fmt.Errorf("report %s: it has no runs", args[0])
	}
	report.Table(os.Stdout, runs)
	return writeResults(filepath.Dir(args[0]), runs, os.Stdout)
}

// runList lists the scenarios, or prints one.
func runList(_ context.Context, _ lab, args []string) error {
	switch len(args) {
	case 0:
		listScenarios(os.Stdout)
		fmt.Println("\nWrite your own:\n\n" + scenario.Page())
		return nil
	case 1:
		s, err := scenario.Named(args[0])
		if err == nil {
			fmt.Print(s.Text)
		}
		return err
	}
	return errors.New("usage: lab scenarios [SCENARIO]")
}

func listScenarios(w io.Writer) {
	for _, name := range scenario.Names() {
		s, err := scenario.Named(name)
		if err != nil {
			fmt.Fprintf(w, "  %-20s %v\n", name, err)
			continue
		}
		about, _, _ := strings.Cut(s.About, ". ")
		fmt.Fprintf(w, "  %-20s %s\n", name, strings.TrimSuffix(about, "."))
	}
}
