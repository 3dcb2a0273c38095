package main

//lint:file-ignore SA1019 as in root.go.

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/system"
	"github.com/spf13/cobra"

	"skep/cluster"
)

// newVersionCommand is docker's, with flags for the versions that all nodes run, and for what this
// binary is made of.
func newVersionCommand(dockerCLI command.Cli) *cobra.Command {
	var all, asJSON bool
	cmd := system.NewVersionCommand(dockerCLI)
	one := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case asJSON && (all || cmd.Flags().Changed("format")):
			return fmt.Errorf("--json is about this command alone: without --cluster and --format")
		case asJSON:
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return fmt.Errorf("read what the binary is made of: it wasn't built with modules")
			}
			return printJSON(dockerCLI.Out(), contentsOf(info))
		case !all:
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print what this command was built from, with all modules; asks no node")
	return cmd
}

// contents is what a binary was built from, as the Go tool noted it.
type contents struct {
	cluster.Build
	Commit, Time, Go, OS, Arch string
	Modules                    []linkedModule
}

type linkedModule struct {
	Path, Version string
	Sum           string `json:",omitempty"`
}

func contentsOf(info *debug.BuildInfo) contents {
	c := contents{Build: cluster.NewBuild(version), Go: info.GoVersion, OS: runtime.GOOS, Arch: runtime.GOARCH, Modules: []linkedModule{}}
	c.Commit, c.Time = source(info)
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c.Modules = append(c.Modules, linkedModule{m.Path, m.Version, m.Sum})
	}
	return c
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
