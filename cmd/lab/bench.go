package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// finding is one number of the bench, beside what it is compared with in the same run.
type finding struct {
	what      string
	measured  string
	reference string // what else did the same here and now, or "" when nothing could
	must      string // the number to reach
	reached   bool
}

// notes are what a measurement leaves: its findings, and what it couldn't do and why.
type notes struct {
	out      io.Writer
	findings []finding
	skipped  []string
}

func (n *notes) add(f finding) {
	n.findings = append(n.findings, f)
	fmt.Fprintf(n.out, "  %s: %s (reference: %s; must: %s)\n", f.what, f.measured, orNone(f.reference), f.must)
}

// skip says what wasn't measured. A number that is missing is never a number reached.
func (n *notes) skip(what string, why error) {
	n.skipped = append(n.skipped, fmt.Sprintf("%s: %v", what, why))
	fmt.Fprintf(n.out, "  NOT MEASURED: %s: %v\n", what, why)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// bench is what the measurements share.
type bench struct {
	lab
	notes
	n      int // replicas
	rounds int // how often a leader is killed
}

// formed gives a cluster of count nodes, of which the first ones are managers. The caller closes it.
func (b *bench) formed(ctx context.Context, driver string, count, managers int) (*processes, error) {
	p, err := newProcesses(ctx, b.lab, driver, count)
	if err != nil {
		return nil, err
	}
	if err := p.form(ctx, managers); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// measurement is one part of the bench.
type measurement struct {
	name        string
	needsEngine bool
	run         func(context.Context, *bench) error
}

var measurements = []measurement{
	{"containers", true, benchContainers},
	{"failover", false, benchFailover},
	{"worker", true, benchWorker},
	{"writes", false, benchWrites},
	{"follower", false, benchFollower},
	{"plan", false, benchPlan},
	{"heap", false, benchHeap},
	{"roll", false, benchRoll},
	{"snapshot", false, benchSnapshot},
	{"metrics", false, benchMetrics},
	{"networks", false, benchNetworks},
	{"overlay", true, benchOverlay},
	{"idle", false, benchIdle},
}

// runBench runs all measurements, or those named, and prints the table. A number that
// isn't reached is shown as such; only a measurement that fails is an error.
func runBench(ctx context.Context, l lab, args []string) error {
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	b := &bench{lab: l, notes: notes{out: os.Stdout}}
	fs := flag.NewFlagSet("lab bench", flag.ContinueOnError)
	fs.IntVar(&b.n, "n", 30, "replicas")
	fs.IntVar(&b.rounds, "rounds", 20, "how often a leader is killed")
	only := fs.String("only", strings.Join(names, ","), "measurements to make")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for _, name := range strings.Split(*only, ",") {
		if !slices.Contains(names, name) {
			return fmt.Errorf("no measurement is called %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	fmt.Printf("%d processors, %s, %s\n", runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly))
	engine := engineAnswers(ctx, l.engine)
	if engine {
		if err := buildTimecheck(ctx, l); err != nil {
			return err
		}
	}
	var errs []error
	for _, m := range measurements {
		if !slices.Contains(strings.Split(*only, ","), m.name) {
			continue
		}
		fmt.Printf("\n%s\n", m.name)
		if m.needsEngine && !engine {
			b.skip(m.name, fmt.Errorf("no Docker Engine answers at %s", l.engine))
			continue
		}
		if err := m.run(ctx, b); err != nil {
			errs = append(errs, fmt.Errorf("bench %s: %w", m.name, err))
			b.skip(m.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Println()
	b.table(os.Stdout)
	return errors.Join(errs...)
}

func (n *notes) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "WHAT\tHERE\tREFERENCE\tMUST\tREACHED")
	for _, f := range n.findings {
		reached := "yes"
		if !f.reached {
			reached = "NO"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", f.what, f.measured, orNone(f.reference), f.must, reached)
	}
	t.Flush()
	for _, s := range n.skipped {
		fmt.Fprintln(w, "NOT MEASURED:", s)
	}
}

// median and worst of durations; both want at least one.
func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func worst(all []time.Duration) time.Duration { return slices.Max(all) }

// seconds and millis show durations alike in all rows.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
func millis(d time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}
