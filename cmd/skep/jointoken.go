package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newTokenCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make join tokens for some nodes and for a while, list and remove them",
		Args:  cli.NoArgs,
		RunE:  command.ShowHelp(dockerCLI.Err()),
	}
	cmd.AddCommand(newTokenCreateCommand(dockerCLI), newTokenListCommand(dockerCLI), newTokenRemoveCommand(dockerCLI))
	return cmd
}

func newTokenCreateCommand(dockerCLI command.Cli) *cobra.Command {
	var wanted cluster.TokenRequest
	var labels []string
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "create [OPTIONS]",
		Short: "Make a join token for some nodes and for a while",
		Long: `Make a join token for some nodes and for a while. Nodes that join by it get its labels.

It is printed this once, alone on standard output, and the cluster keeps no more than its
digest. "skep swarm join --token-file", "skep daemon --token-file" and "docker swarm join"
take it as they take those of "skep swarm join-token", which go on to hold beside it. After
a change of the root CA ("skep swarm ca --rotate"), and in a cluster that was restored or
goes on with one manager, it lets nobody in.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted.For, wanted.Labels = length.String(), map[string]string{}
			for _, label := range labels {
				name, value, _ := strings.Cut(label, "=")
				if _, twice := wanted.Labels[name]; twice {
					return fmt.Errorf("--label %s: given twice", name)
				}
				wanted.Labels[name] = value
			}
			var made cluster.TokenShown
			if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodPost, "tokens", wanted, &made); err != nil {
				return err
			}
			fmt.Fprintf(dockerCLI.Err(), "Token %s lets in %s of role %s until %s%s. It isn't shown again:\n",
				made.ID, plural(made.Uses, "node"), made.Role, made.Until.UTC().Format(time.RFC3339), withLabels(made.Labels))
			_, err := fmt.Fprintln(dockerCLI.Out(), made.Token)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&wanted.Role, "role", "worker", `Role of the nodes ("worker", "manager")`)
	fs.StringArrayVar(&labels, "label", nil, "Label that the nodes get (NAME=VALUE); may be repeated")
	fs.IntVar(&wanted.Uses, "uses", 1, "How many nodes it lets in")
	fs.DurationVar(&length, "for", time.Hour, "How long it is good, such as 24h")
	return cmd
}

func withLabels(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	return ", with the labels " + labelsLine(labels)
}

func labelsLine(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return strings.Join(parts, ",")
}

func newTokenListCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List join tokens that were made for some nodes and for a while",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []cluster.TokenShown
			if err := ask(cmd.Context(), dockerCLI.Client(), http.MethodGet, "tokens", nil, &list); err != nil {
				return err
			}
			if asJSON {
				return printJSON(dockerCLI.Out(), list)
			}
			return showTokens(dockerCLI.Out(), list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

func showTokens(w io.Writer, list []cluster.TokenShown) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tROLE\tUSED\tSTATE\tUNTIL\tLABELS\tMADE BY")
	for _, k := range list {
		fmt.Fprintf(t, "%s\t%s\t%d of %d\t%s\t%s\t%s\t%s\n", k.ID, k.Role, k.Used, k.Uses, k.State, k.Until.UTC().Format(time.RFC3339), dash(labelsLine(k.Labels)), dash(k.By))
	}
	return t.Flush()
}

func newTokenRemoveCommand(dockerCLI command.Cli) *cobra.Command {
	return &cobra.Command{
		Use:   "rm TOKEN [TOKEN...]",
		Short: "Remove one or more join tokens by their IDs: they let nobody in any more",
		Args:  cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, id := range args {
				resp, err := open(cmd.Context(), dockerCLI.Client(), http.MethodDelete, "tokens/"+url.PathEscape(id), nil)
				if err == nil {
					err = resp.Body.Close()
				}
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(dockerCLI.Out(), id)
			}
			return errors.Join(errs...)
		},
	}
}
