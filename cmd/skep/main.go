// Command skep is the one binary of the project: `skep daemon` runs a node of the
// cluster, `skep cluster` shows how the cluster is, and everything else is what
// `docker` can say to a swarm, said to a skep node.
//
// A user runs it at a terminal, systemd or a container engine runs the daemon. It
// exits with 0 when it did what was asked, 125 when the command line is wrong,
// 128+n when signal n ended a command, and otherwise with the status of the
// command, which is 1 unless the command says more. The first SIGTERM or SIGINT
// asks for an orderly stop, the second ends the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	cliversion "github.com/docker/cli/cli/version"
	"github.com/sirupsen/logrus"
)

// version is set when the binary is built from a tag: `-ldflags "-X main.version=0.1.0"`.
var version = "0.1.0-dev"

func main() {
	cliversion.Version, cliversion.PlatformName = version, "skep"
	if info, ok := debug.ReadBuildInfo(); ok {
		cliversion.GitCommit, cliversion.BuildTime = source(info)
	}
	ctx, sent := untilSignal(context.Background())
	err := run(ctx, os.Args[0], os.Args[1:])
	os.Exit(report(err, sent()))
}

// source is the commit that the binary was built from and its time, as the Go tool noted
// them; a tree with changes has a mark.
func source(info *debug.BuildInfo) (commit, when string) {
	noted := map[string]string{}
	for _, s := range info.Settings {
		noted[s.Key] = s.Value
	}
	commit, when = noted["vcs.revision"], noted["vcs.time"]
	if commit == "" {
		return "unknown", "unknown" // Built from files without their history.
	}
	commit = commit[:min(len(commit), 12)]
	if noted["vcs.modified"] == "true" {
		commit += "-dirty"
	}
	return commit, when
}

// run does what the arguments say; the program's name tells whether docker calls.
func run(ctx context.Context, program string, args []string) error {
	dockerCLI, err := command.NewDockerCli(command.WithBaseContext(ctx))
	if err != nil {
		return err
	}
	logrus.SetOutput(dockerCLI.Err())
	root := newRoot(dockerCLI)
	cmd, rest, err := root.parse(root.withoutPluginName(program, args))
	if err != nil {
		return err
	}
	cmd.SetArgs(rest)
	return cmd.ExecuteContext(ctx)
}

// untilSignal returns a context that ends at the first SIGTERM or SIGINT, and a
// function that tells which signal that was (nil for none). The second signal ends
// the process: whoever asks twice doesn't want to wait for order.
func untilSignal(parent context.Context) (context.Context, func() os.Signal) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		cancel(stopSignal{<-signals})
		os.Exit(exitStatusOf(<-signals))
	}()
	return ctx, func() os.Signal {
		var stop stopSignal
		if errors.As(context.Cause(ctx), &stop) {
			return stop.Signal
		}
		return nil
	}
}

// stopSignal is the cause of a context that a signal ended.
type stopSignal struct{ os.Signal }

func (s stopSignal) Error() string { return "stopped by signal: " + s.String() }

// report prints what went wrong, if anything did, and returns the exit status.
func report(err error, sent os.Signal) int {
	switch {
	case err == nil:
		return 0
	case sent != nil && (errors.Is(err, context.Canceled) || errors.As(err, new(stopSignal))):
		return exitStatusOf(sent)
	}
	if text := err.Error(); text != "" {
		if toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
			fmt.Fprintf(os.Stderr, "<%d>", priority(slog.LevelError))
		}
		fmt.Fprintln(os.Stderr, ourWords.Replace(text))
	}
	var status cli.StatusError
	if errors.As(err, &status) && status.StatusCode != 0 {
		return status.StatusCode
	}
	return 1
}

// exitStatusOf is what a shell reports of a process that the signal ended.
func exitStatusOf(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 1
}
