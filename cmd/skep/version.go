package main

//lint:file-ignore SA1019 as in root.go.

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/system"
	"github.com/spf13/cobra"

	"skep/cluster"
)

// newVersionCommand is docker's, with a flag for the versions that all nodes run.
func newVersionCommand(dockerCLI command.Cli) *cobra.Command {
	var all bool
	cmd := system.NewVersionCommand(dockerCLI)
	one := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !all {
			return one(cmd, args)
		}
		if cmd.Flags().Changed("format") {
			return fmt.Errorf("--cluster has no --format: \"skep cluster status --json\" has the same for programs")
		}
		status, err := fetchStatus(cmd.Context(), dockerCLI.Client())
		if err != nil {
			return err
		}
		return showVersions(dockerCLI.Out(), status)
	}
	cmd.Flags().BoolVar(&all, "cluster", false, "Show which version each node of the cluster runs")
	return cmd
}

func showVersions(w io.Writer, s cluster.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tSTATE\tSKEP\tLEVEL")
	count := map[string]int{}
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", n.Hostname, n.Role, n.State, dash(n.Version), max(n.Level, 1))
		count[orUnknown(n.Version)]++
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThe cluster is at level %d.\n", s.At())
	for _, v := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "skep %s: %s\n", v, plural(count[v], "node"))
	}
	return nil
}
