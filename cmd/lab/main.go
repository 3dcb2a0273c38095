// Command lab runs failover and scale experiments on a cluster of real skep
// processes, each on its own loopback address of this machine, and puts the
// project's images into the local Docker Engine.
//
// A developer runs it through make: `lab demo` plays the README's story and fails
// when anything it shows isn't so, `lab play` keeps a cluster to play with, `lab bench` measures and sets each number beside
// its reference, `lab run` injects faults by scenario files and reports what came of
// them, `lab scale` what many agents cost, `lab images` and `lab image` build images. It expects the skep and
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
	"strings"
	"syscall"
)

// command is one thing the lab does.
type command struct {
	name, does string
	run        func(ctx context.Context, l lab, args []string) error
	// needs is the binary that it can't do without; empty for none.
	needs string
	// images is set when it puts images where docker finds them.
	images bool
}

var commands = []command{
	{"demo", "play the README's story on three managers and two workers", runDemo, "skep", false},
	{"play", "keep a simulated cluster of three managers and five workers running, with its console", runPlay, "skep", false},
	{"bench", "measure, each number beside its reference", runBench, "skep", false},
	{"run", "run scenarios of faults, and report", runScenarios, "skep", false},
	{"compare", "run scenarios on skep and on real Docker Swarm, side by side", runCompare, "skep", false},
	{"scale", "measure what ten thousand agents and a million tasks cost", runScale, "skep", false},
	{"report", "make table and page anew from a results.json", runReport, "", false},
	{"scenarios", "list the scenarios and how to write one, or print one", runList, "", false},
	{"machines", "make machines of their own root file system, with systemd; or remove them", runMachines, "", false},
	{"images", "build timecheck:1.0 and timecheck:2.0 into the local engine", runImages, "timecheck", true},
	{"image", "build skep:dev into the local engine", runImage, "skep", true},
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
	l := lab{bin: filepath.Dir(self)}
	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	fs.StringVar(&l.bin, "bin", l.bin, "directory of the skep and timecheck binaries")
	fs.StringVar(&l.engine, "engine", "", "the local Docker Engine (default "+defaultEngine+"; for images, $DOCKER_HOST if it is set)")
	if len(args) == 1 && args[0] == "scale-agents" {
		return runCrowd(ctx, l, nil)
	}
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
		if c.name != fs.Arg(0) {
			continue
		}
		if c.needs != "" {
			if l.bin, err = findBinaries(l.bin, c.needs); err != nil {
				return err
			}
		}
		if l.engine == "" {
			if l.engine, err = c.defaultEngine(); err != nil {
				return err
			}
		}
		return c.run(ctx, l, fs.Args()[1:])
	}
	fs.Usage()
	return flag.ErrHelp
}

// defaultEngine is the engine when none is named: nodes get the machine's own, whatever
// docker speaks to now, which may be a node.
func (c command) defaultEngine() (string, error) {
	host := os.Getenv("DOCKER_HOST")
	switch {
	case !c.images || host == "":
		return defaultEngine, nil
	case !strings.HasPrefix(host, "unix://") && !strings.HasPrefix(host, "tcp://"):
		return "", fmt.Errorf("DOCKER_HOST=%s: the lab speaks to engines at unix:///path and tcp://ADDRESS:PORT only", host)
	}
	return host, nil
}

// findBinaries finds the directory with the program that a command needs: the one given,
// or bin at the root of the source, where make puts them; "go run" builds the lab alone, in
// a directory of the Go tool's.
func findBinaries(dir, program string) (string, error) {
	built := filepath.Join(sourceRoot(), "bin")
	for _, candidate := range []string{dir, built} {
		if info, err := os.Stat(filepath.Join(candidate, program)); err == nil && info.Mode().IsRegular() {
			return filepath.Abs(candidate)
		}
	}
	return "", fmt.Errorf("there is no %s in %s, nor in %s: build it with \"make build\", or name its directory with -bin", program, dir, built)
}

// sourceRoot is the directory with go.mod that the working directory is in; else the working
// directory itself.
func sourceRoot() string {
	root := "."
	for range 64 { // More than any path has.
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return root
		}
		root = filepath.Join("..", root)
	}
	return "."
}
