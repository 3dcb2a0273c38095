package main

//lint:file-ignore SA1019 as in root.go.

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/service"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newServiceRestartCommand(dockerCLI command.Cli) *cobra.Command {
	var detach, quiet, atOnce bool
	var message string
	cmd := &cobra.Command{
		Use:   "restart [OPTIONS] SERVICE [SERVICE...]",
		Short: "Replace the tasks of one or more services by others that run the same",
		Long: `Replace the tasks of one or more services by others that run the same.

This is an update as "skep service update --force" makes it: in the order, with the
parallelism and the delay of the service's updates, and it does on failure what they do.
With --now, all tasks of a service are replaced at the same time. All services begin at
once; the command shows the progress of one after the other, and ends with the last.`,
		Args: cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cluster.CheckMessage(message); err != nil {
				return err
			}
			query := ""
			if atOnce {
				query = "?now=1"
			}
			for _, ref := range args {
				var done swarm.ServiceUpdateResponse
				if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodPost, "services/"+url.PathEscape(ref)+"/restart"+query, nil, &done, cluster.HeaderMessage, url.QueryEscape(message)); err != nil {
					return fmt.Errorf("restart %s: %w", ref, err)
				}
				fmt.Fprintln(dockerCLI.Out(), ref)
			}
			if detach {
				return nil
			}
			for _, ref := range args {
				if err := service.WaitOnService(cmd.Context(), dockerCLI, ref, quiet); err != nil {
					return fmt.Errorf("wait for %s: %w", ref, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&message, "message", "", messageUsage)
	cmd.Flags().BoolVar(&atOnce, "now", false, "Replace all tasks at the same time")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Exit at once instead of waiting for the end")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Show no progress")
	return cmd
}
