package main

//lint:file-ignore SA1019 as in root.go.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"
)

// rebalanceCheck is how often `skep service rebalance` looks.
const rebalanceCheck = 500 * time.Millisecond

func newServiceRebalanceCommand(dockerCLI command.Cli) *cobra.Command {
	var detach, quiet bool
	cmd := &cobra.Command{
		Use:   "rebalance [OPTIONS] SERVICE",
		Short: "Move tasks of a service to where they would be placed now",
		Long: `Move tasks of a replicated service to where they would be placed now, such as after a
node came back.

Tasks are moved in the order, with the parallelism and the delay of the service's updates,
and only where that makes them more evenly spread. The command shows how many were moved,
and ends when none is left to move. An update of the service ends the rebalance.`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := dockerCLI.Client()
			var done swarm.ServiceUpdateResponse
			if err := ask(cmd.Context(), c, http.MethodPost, "services/"+url.PathEscape(args[0])+"/rebalance", nil, &done); err != nil {
				return err
			}
			fmt.Fprintln(dockerCLI.Out(), args[0])
			if detach {
				return nil
			}
			out := io.Writer(dockerCLI.Out())
			if quiet {
				out = io.Discard
			}
			return watchRebalance(cmd.Context(), c, out, args[0])
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Exit at once instead of waiting for the end")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Show no progress")
	return cmd
}

// watchRebalance shows how a service's rebalance goes on, to its end. While managers
// have no leader it waits for that too.
func watchRebalance(ctx context.Context, c client.APIClient, out io.Writer, ref string) error {
	check := time.NewTicker(rebalanceCheck)
	defer check.Stop()
	var began time.Time
	shown := -1
	for {
		service, _, err := c.ServiceInspectWithRaw(ctx, ref, swarm.ServiceInspectOptions{})
		var tasks []swarm.Task
		if err == nil {
			tasks, err = c.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", service.ID))})
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errdefs.IsUnavailable(err):
		case err != nil:
			return err
		default:
			status := service.UpdateStatus
			if status == nil || status.StartedAt == nil || !began.IsZero() && !status.StartedAt.Equal(began) {
				return errors.New("the service was updated, which ended its rebalance")
			}
			began = *status.StartedAt
			if moved := countMoved(tasks, began); moved != shown {
				fmt.Fprintf(out, "%s: %s moved\n", service.Spec.Name, plural(moved, "task"))
				shown = moved
			}
			switch status.State {
			case swarm.UpdateStateCompleted:
				fmt.Fprintf(out, "%s: %s\n", service.Spec.Name, status.Message)
				return nil
			case swarm.UpdateStatePaused:
				return errors.New(status.Message)
			}
		}
		select {
		case <-check.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// countMoved counts the slots with a task that was made since the rebalance began and
// runs.
func countMoved(tasks []swarm.Task, began time.Time) int {
	slots := map[int]bool{}
	for _, t := range tasks {
		if t.CreatedAt.After(began) && t.Status.State == swarm.TaskStateRunning {
			slots[t.Slot] = true
		}
	}
	return len(slots)
}
