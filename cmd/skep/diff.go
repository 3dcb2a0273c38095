package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newServiceDiffCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff [OPTIONS] SERVICE [REVISION [REVISION]]",
		Short: "Show what differs between two revisions of a service",
		Long: `Show what differs between two revisions of a service, of those that "skep service history"
lists: between the previous and the current one, between the one named and the current
one, or between the two named, in that order.

A + is before what came, a - before what went, a ~ before what changed.`,
		Args: cli.RequiresRangeArgs(1, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			revisions, err := fetchRevisions(cmd.Context(), dockerCLI.Client(), args[0])
			if err != nil {
				return err
			}
			from, to, err := chooseRevisions(revisions, args[0], args[1:])
			if err != nil {
				return err
			}
			found := cluster.DiffRevisions(from, to)
			if asJSON {
				return printJSON(dockerCLI.Out(), struct {
					From, To    uint64
					Differences []cluster.Difference
				}{from.Number, to.Number, found})
			}
			return showDifferences(dockerCLI.Out(), from, to, found)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

// chooseRevisions finds the two revisions to compare among those that are kept, the newest
// first.
func chooseRevisions(kept []cluster.KeptRevision, service string, named []string) (from, to cluster.KeptRevision, err error) {
	find := func(is func(cluster.KeptRevision) bool) (cluster.KeptRevision, bool) {
		if i := slices.IndexFunc(kept, is); i >= 0 {
			return kept[i], true
		}
		return cluster.KeptRevision{}, false
	}
	number := func(text string) (cluster.KeptRevision, error) {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return cluster.KeptRevision{}, fmt.Errorf("revision %q is no number", text)
		}
		r, ok := find(func(r cluster.KeptRevision) bool { return r.Number == n })
		if !ok {
			return r, fmt.Errorf("revision %d of service %s isn't kept: `skep service history %s` lists those that are", n, service, service)
		}
		return r, nil
	}
	to, ok := find(func(r cluster.KeptRevision) bool { return r.Current })
	if !ok {
		return from, to, fmt.Errorf("service %s has no current revision", service)
	}
	if len(named) == 2 {
		if to, err = number(named[1]); err != nil {
			return from, to, err
		}
	}
	if len(named) > 0 {
		from, err = number(named[0])
		return from, to, err
	}
	if from, ok = find(func(r cluster.KeptRevision) bool { return r.Previous }); !ok {
		return from, to, errors.New("service " + service + " has no previous revision: name one")
	}
	return from, to, nil
}

func showDifferences(w io.Writer, from, to cluster.KeptRevision, found []cluster.Difference) error {
	if len(found) == 0 {
		_, err := fmt.Fprintf(w, "Revisions %d and %d are the same.\n", from.Number, to.Number)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, d := range found {
		fmt.Fprintln(t, d)
	}
	return t.Flush()
}
