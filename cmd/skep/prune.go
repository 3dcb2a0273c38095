package main

//lint:file-ignore SA1019 as in root.go.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newNodePruneCommand(dockerCLI command.Cli) *cobra.Command {
	var until time.Duration
	var force, dry bool
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove workers that have been down for long",
		Long: `Remove workers that have been down for long, such as machines that are gone for good.

Managers stay, and so do nodes on which tasks may still run, as far as is known; the
command says which and why. It shows the nodes and asks before it removes them. A removed
node that comes back after all must leave and join again.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if until < 0 {
				return errors.New("--until can't be negative")
			}
			c, out := dockerCLI.Client(), dockerCLI.Out()
			if dry || !force {
				found, err := prune(cmd.Context(), c, until, true)
				if err != nil {
					return err
				}
				if err := showPruned(out, found); err != nil {
					return err
				}
				count := len(found.Nodes) + found.Left
				switch {
				case count == 0:
					fmt.Fprintf(out, "No node to remove.\n")
					return nil
				case dry:
					fmt.Fprintf(out, "%s would be removed.\n", plural(count, "node"))
					return nil
				}
				yes, err := command.PromptForConfirmation(cmd.Context(), dockerCLI.In(), out, fmt.Sprintf("WARNING! This will remove %s.\nAre you sure you want to continue?", plural(count, "node")))
				if err != nil {
					return err
				}
				if !yes {
					return errors.New("node prune has been cancelled")
				}
			}
			removed := 0
			for {
				done, err := prune(cmd.Context(), c, until, false)
				if err != nil {
					return err
				}
				for _, n := range done.Nodes {
					fmt.Fprintf(out, "%s\t%s\n", n.ID, n.Hostname)
				}
				if removed += len(done.Nodes); done.Left == 0 || len(done.Nodes) == 0 {
					break
				}
			}
			fmt.Fprintf(out, "%s removed.\n", plural(removed, "node"))
			return nil
		},
	}
	cmd.Flags().DurationVar(&until, "until", 24*time.Hour, "Only nodes that have been down for so long, such as 1h30m")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "Show what would be removed, and remove nothing")
	return cmd
}

// prune asks for it; dry only says what would be removed.
func prune(ctx context.Context, c client.APIClient, until time.Duration, dry bool) (answer cluster.PrunedNodes, err error) {
	query := url.Values{"until": {until.String()}}
	if dry {
		query.Set("dry-run", "1")
	}
	return answer, ask(ctx, c, http.MethodPost, "nodes/prune?"+query.Encode(), nil, &answer)
}

func showPruned(w io.Writer, found cluster.PrunedNodes) error {
	if len(found.Nodes)+len(found.Kept) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tHOSTNAME\tADDRESS\tDOWN SINCE\tNOTE")
	for _, n := range found.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.ID, n.Hostname, n.Addr, n.DownSince.UTC().Format(time.RFC3339), n.Message)
	}
	for _, n := range found.Kept {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\tstays: %s\n", n.ID, n.Hostname, n.Addr, n.DownSince.UTC().Format(time.RFC3339), n.Kept)
	}
	return t.Flush()
}
