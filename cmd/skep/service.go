package main

//lint:file-ignore SA1019 as in root.go.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/service"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cluster"
)

// newServiceCommand is docker's group of that name, with what is ours in it.
func newServiceCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := service.NewServiceCommand(dockerCLI)
	for _, sub := range cmd.Commands() {
		switch sub.Name() {
		case "rollback":
			addRollbackTo(sub, dockerCLI)
		case "create", "update":
			sub.Flags().Var(&messageFlag{cli: dockerCLI}, "message", messageUsage)
			addPauseAfter(sub)
		}
	}
	cmd.AddCommand(newServiceHistoryCommand(dockerCLI), newServiceRebalanceCommand(dockerCLI), newServiceRestartCommand(dockerCLI),
		newServiceDiffCommand(dockerCLI), newServiceWhyCommand(dockerCLI))
	cmd.AddCommand(newServicePauseCommand(dockerCLI), newServiceResumeCommand(dockerCLI))
	cmd.AddCommand(newServiceExecCommand(dockerCLI), newServiceStatsCommand(dockerCLI))
	return cmd
}

func newServiceHistoryCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] SERVICE",
		Short: "List the revisions of a service that a rollback can go back to",
		Long: `List the revisions of a service that a rollback can go back to, the newest first.

Each change of what a service's tasks run makes a revision; scaling makes none. "skep
cluster update --revision-history" sets how many are kept.`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			revisions, err := fetchRevisions(cmd.Context(), dockerCLI.Client(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(dockerCLI.Out(), revisions)
			}
			return showRevisions(dockerCLI.Out(), revisions)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON, with all that each revision runs")
	return cmd
}

// fetchRevisions lists the revisions of a service that are kept, the newest first.
func fetchRevisions(ctx context.Context, c client.APIClient, ref string) (revisions []cluster.KeptRevision, err error) {
	return revisions, ask(ctx, c, http.MethodGet, "services/"+url.PathEscape(ref)+"/revisions", nil, &revisions)
}

func showRevisions(w io.Writer, revisions []cluster.KeptRevision) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "REVISION\tCREATED\tIMAGE\tNOTE\tBY\tMESSAGE")
	for _, r := range revisions {
		note := ""
		switch {
		case r.Current:
			note = "current"
		case r.Previous:
			note = "previous"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", r.Number, r.CreatedAt.UTC().Format(time.RFC3339), r.Image, dash(note), dash(r.By), r.Message)
	}
	return t.Flush()
}

// addRollbackTo gives docker's command a flag for the revision. Without it the
// command does what it always did.
func addRollbackTo(cmd *cobra.Command, dockerCLI command.Cli) {
	const flag = "to"
	to := cmd.Flags().Uint64(flag, 0, `Revision to go back to, of those that "skep service history" lists (default: the previous spec)`)
	cmd.Long = cmd.Short + `.

Without --to, all of the service goes back to its previous spec. With it, what the tasks
run, the published ports and the service's labels go back to what they were in that
revision; the number of replicas and how updates are done stay as they are.`
	previous := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed(flag) {
			return previous(cmd, args)
		}
		if err := rollbackTo(cmd.Context(), dockerCLI.Client(), args[0], *to); err != nil {
			return err
		}
		fmt.Fprintln(dockerCLI.Out(), args[0])
		if detach, err := cmd.Flags().GetBool("detach"); err != nil || detach {
			return err
		}
		quiet, err := cmd.Flags().GetBool("quiet")
		if err != nil {
			return err
		}
		return service.WaitOnService(cmd.Context(), dockerCLI, args[0], quiet)
	}
}

func rollbackTo(ctx context.Context, c client.APIClient, ref string, to uint64) error {
	found, _, err := c.ServiceInspectWithRaw(ctx, ref, swarm.ServiceInspectOptions{})
	if err != nil {
		return err
	}
	var done swarm.ServiceUpdateResponse
	return ask(ctx, c, http.MethodPost, fmt.Sprintf("services/%s/rollback?version=%d&to=%d", found.ID, found.Version.Index, to), nil, &done)
}
