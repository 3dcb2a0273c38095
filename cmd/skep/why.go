package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newServiceWhyCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why [OPTIONS] SERVICE",
		Short: "Say what is in the way of a service",
		Long: `Say what is in the way of a service: what its tasks wait for, what the last ones failed
of and where, how its update goes, and how many nodes its constraints exclude.`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var why cluster.Why
			if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodGet, "services/"+url.PathEscape(args[0])+"/why", nil, &why); err != nil {
				return err
			}
			if asJSON {
				return printJSON(dockerCLI.Out(), why)
			}
			_, err := fmt.Fprint(dockerCLI.Out(), why)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}
