// Command lab runs failover and scale experiments on a cluster of real skep
// processes, each on its own loopback address of this machine, and puts the
// project's images into the local Docker Engine.
//
// A developer runs it through make: `lab demo` plays the README's story and fails
// when anything it shows isn't so, `lab bench` measures and sets each number beside
// its reference, `lab run` injects faults by scenario files and reports what came of
// them, `lab images` and `lab image` build images. It expects the skep and
// timecheck binaries beside its own, and it removes what it made: processes,
// containers, directories; also when it fails and at SIGINT or SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// command is one thing the lab does.
type command struct {
	name, does string
	run        func(ctx context.Context, l lab, args []string) error
}

var commands = []command{
	{"demo", "play the README's story on three managers and two workers", runDemo},
	{"bench", "measure, each number beside its reference", runBench},
	{"run", "run scenarios of faults, and report", runScenarios},
	{"compare", "run scenarios on skep and on real Docker Swarm, side by side", runCompare},
	{"report", "make table and page anew from a results.json", runReport},
	{"scenarios", "list the scenarios and how to write one, or print one", runList},
	{"images", "build timecheck:1.0 and timecheck:2.0 into the local engine", runImages},
	{"image", "build skep:dev into the local engine", runImage},
}

// lab is what every command needs to know of its surroundings.
type lab struct {
	bin    string // directory of the binaries
	engine string // the local Docker Engine's address
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case interrupted:
		fmt.Fprintln(os.Stderr, "lab: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l := lab{bin: filepath.Dir(self), engine: defaultEngine}
	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	fs.StringVar(&l.bin, "bin", l.bin, "directory of the skep and timecheck binaries")
	fs.StringVar(&l.engine, "engine", l.engine, "the local Docker Engine")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: lab [-bin DIR] [-engine URL] COMMAND [OPTIONS]")
		for _, c := range commands {
			fmt.Fprintf(fs.Output(), "  %-10s %s\n", c.name, c.does)
		}
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	for _, c := range commands {
		if c.name == fs.Arg(0) {
			return c.run(ctx, l, fs.Args()[1:])
		}
	}
	fs.Usage()
	return flag.ErrHelp
}
