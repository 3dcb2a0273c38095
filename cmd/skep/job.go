package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newJobCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Manage jobs and their schedules",
		Long: `Manage jobs and their schedules. Jobs are services of the modes replicated-job and
global-job; one with the label ` + cluster.LabelSchedule.Name + ` runs when that says.`,
		Args: cli.NoArgs,
		RunE: command.ShowHelp(dockerCLI.Err()),
	}
	var asJSON bool
	list := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List jobs, when they run next, and how they did last",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var jobs []cluster.JobState
			if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodGet, "jobs", nil, &jobs); err != nil {
				return err
			}
			if asJSON {
				return printJSON(dockerCLI.Out(), jobs)
			}
			return showJobs(dockerCLI.Out(), jobs)
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	cmd.AddCommand(list)
	for _, verb := range []struct{ name, short, long string }{
		{"run", "Run a job now", "Run a job now, besides its schedule if it has one. Its last run is ended if it goes on,\nunless the schedule forbids that."},
		{"pause", "Have a scheduled job not run by itself", "Have a scheduled job not run by itself until \"skep job resume\". A run that goes on isn't\nended, and \"skep job run\" works."},
		{"resume", "Have a scheduled job run by itself again", "Have a scheduled job run by itself again. What was due meanwhile is over."},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: verb.name + " JOB", Short: verb.short, Long: verb.long, Args: cli.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				var done swarm.ServiceUpdateResponse
				if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodPost, "jobs/"+url.PathEscape(args[0])+"/"+verb.name, nil, &done); err != nil {
					return err
				}
				fmt.Fprintln(dockerCLI.Out(), args[0])
				return nil
			},
		})
	}
	return cmd
}

func showJobs(w io.Writer, jobs []cluster.JobState) error {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tSCHEDULE\tNEXT\tLAST RUN\tENDED\tOUTCOME")
	for _, j := range jobs {
		schedule, next := dash(j.Schedule), at(j.Next)
		if j.Zone != "" {
			schedule += " " + j.Zone
		}
		if j.Paused {
			next = "paused"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", j.Name, schedule, next, at(j.Began), at(j.Ended), dash(j.Outcome))
	}
	return t.Flush()
}
