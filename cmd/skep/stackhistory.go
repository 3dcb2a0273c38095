package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/stack/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cmd/skep/stack"
)

// rememberTries is how often a number is tried: somebody else may deploy the same stack and have it first.
const rememberTries = 20

// remember keeps what was deployed, and forgets what is too old.
func (d *deployment) remember(ctx context.Context, message string) error {
	c := d.cli.Client()
	records := stack.Records(d.Name, d.live)
	for try := 1; ; try++ {
		spec, err := d.Stack.Remember(records, message)
		if err != nil {
			return err
		}
		_, err = c.ConfigCreate(ctx, spec)
		if err == nil {
			break
		}
		if !errdefs.IsConflict(err) || try == rememberTries {
			return err
		}
		live, err := fetchLive(ctx, c, d.Name)
		if err != nil {
			return err
		}
		records = stack.Records(d.Name, live)
	}
	for i, record := range records {
		if i < stack.KeptDeploys-1 {
			continue
		}
		if err := c.ConfigRemove(ctx, record.ID()); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("forget deployment %d: %w", record.Number, err)
		}
	}
	return nil
}

// fetchRecords lists the deployments of a stack that are remembered, the newest first: at least one.
func fetchRecords(ctx context.Context, c client.APIClient, name string) ([]stack.Record, error) {
	if err := stack.CheckName(name); err != nil {
		return nil, err
	}
	live, err := fetchLive(ctx, c, name)
	if err != nil {
		return nil, err
	}
	records := stack.Records(name, live)
	if len(records) == 0 {
		return nil, fmt.Errorf("no deployment of stack %s is remembered: `skep stack ls` lists the stacks that there are", name)
	}
	return records, nil
}

func newStackHistoryCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] STACK",
		Short: "List the deployments of a stack that a rollback can go back to",
		Long: fmt.Sprintf(`List the deployments of a stack that a rollback can go back to, the newest first: the last
%d that "skep stack deploy" and "skep stack rollback" made, if they changed anything. Each is
kept as a config of the stack.`, stack.KeptDeploys),
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			records, err := fetchRecords(cmd.Context(), dockerCLI.Client(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				shown := []any{}
				for _, r := range records {
					shown = append(shown, struct {
						Number int
						stack.Record
					}{r.Number, r})
				}
				return printJSON(dockerCLI.Out(), shown)
			}
			t := tabwriter.NewWriter(dockerCLI.Out(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(t, "DEPLOYMENT\tCREATED\tSERVICES\tMESSAGE")
			for _, r := range records {
				fmt.Fprintf(t, "%d\t%s\t%d\t%s\n", r.Number, r.CreatedAt.UTC().Format(time.RFC3339), len(r.Services), r.Message)
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON, with the specs of all services")
	return cmd
}

func newStackRollbackCommand(dockerCLI command.Cli) *cobra.Command {
	flags := &rollFlags{deployFlags: deployFlags{resolve: swarm.ResolveImageNever}}
	cmd := &cobra.Command{
		Use:   "rollback [OPTIONS] STACK [DEPLOYMENT]",
		Short: "Deploy a stack as it was deployed before",
		Long: `Deploy a stack as it was deployed before, of what "skep stack history" lists: without a
number the one before the last. All its services get the specs that they had then, with the
images of those digests, and the secrets and configs of that content; services that were
removed since are created. Services that came since stay, unless --prune removes them.
This is a deployment, too, so another rollback returns.`,
		Args: cli.RequiresRangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			number := 0
			if len(args) == 2 {
				n, err := strconv.Atoi(args[1])
				if err != nil || n < 1 {
					return fmt.Errorf("deployment %q won't do, it takes a number that `skep stack history` lists", args[1])
				}
				number = n
			}
			records, err := fetchRecords(cmd.Context(), dockerCLI.Client(), args[0])
			if err != nil {
				return err
			}
			s, err := stack.Recall(args[0], records, number)
			if err != nil {
				return err
			}
			flags.message = fmt.Sprintf("back to deployment %d", s.Recalled())
			return flags.deploy(cmd.Context(), dockerCLI, s)
		},
	}
	flags.install(cmd.Flags())
	cmd.Flags().BoolVar(&flags.prune, "prune", false, "Remove services that came since")
	cmd.Flags().BoolVar(&flags.sendAuth, "with-registry-auth", false, "Send registry authentication details to nodes")
	cmd.Flags().BoolVar(&flags.asJSON, "json", false, "Print JSON")
	return cmd
}
