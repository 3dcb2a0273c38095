package main

//lint:file-ignore SA1019 as in root.go.

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/service"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"

	"skep/cluster"
)

// pauseAfterFlag is --pause-after of docker's own commands: a label, as they send it.
type pauseAfterFlag struct {
	cmd *cobra.Command
	n   uint64
}

// addPauseAfter gives docker's create or update the flag.
func addPauseAfter(cmd *cobra.Command) {
	cmd.Flags().Var(&pauseAfterFlag{cmd: cmd}, "pause-after", `Tasks after which an update pauses, until "skep service resume"; 0 for never (label `+cluster.LabelPauseAfter.Name+`)`)
}

func (f *pauseAfterFlag) String() string { return strconv.FormatUint(f.n, 10) }
func (f *pauseAfterFlag) Type() string   { return "uint" }

// Set sets or removes the label.
func (f *pauseAfterFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("%q is no number of tasks", text)
	}
	f.n = n
	flag, value := "label-add", cluster.LabelPauseAfter.Name+"="+f.String()
	switch create := f.cmd.Flags().Lookup(flag) == nil; {
	case create && n == 0:
		return nil
	case create:
		flag = "label"
	case n == 0:
		flag, value = "label-rm", cluster.LabelPauseAfter.Name
	}
	return f.cmd.Flags().Set(flag, value)
}

func newServicePauseCommand(dockerCLI command.Cli) *cobra.Command {
	return &cobra.Command{
		Use:   "pause SERVICE",
		Short: "Pause the update of a service that is under way",
		Long: `Pause the update, rollback or rebalance of a service that is under way. Tasks that are being
replaced go on to their end, and no others are begun until "skep service resume".`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeRollout(cmd, dockerCLI, args[0], "pause")
		},
	}
}

func newServiceResumeCommand(dockerCLI command.Cli) *cobra.Command {
	var detach, quiet bool
	cmd := &cobra.Command{
		Use:   "resume [OPTIONS] SERVICE",
		Short: "Go on with the update of a service that is paused",
		Long: `Go on with the update, rollback or rebalance of a service that is paused: by "skep service
pause", after its first tasks (--pause-after of "skep service update"), or after failures.
What had failed is tried first. The command shows the progress, and ends when it is done.`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := changeRollout(cmd, dockerCLI, args[0], "resume"); err != nil || detach {
				return err
			}
			return service.WaitOnService(cmd.Context(), dockerCLI, args[0], quiet)
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Exit at once instead of waiting for the end")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Show no progress")
	return cmd
}

// changeRollout does what the verb says to a service's rollout.
func changeRollout(cmd *cobra.Command, dockerCLI command.Cli, ref, verb string) error {
	var done swarm.ServiceUpdateResponse
	if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodPost, "services/"+url.PathEscape(ref)+"/"+verb, nil, &done); err != nil {
		return err
	}
	fmt.Fprintln(dockerCLI.Out(), ref)
	return nil
}
