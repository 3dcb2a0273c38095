package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cluster"
)

// exitProblems is the status of `skep cluster status` when it got an answer and the
// answer says that something is wrong; 1 means that there was no answer.
const exitProblems = 2

func newClusterCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look at the cluster as a whole, change what it allows and keeps, back it up",
		Args:  cli.NoArgs,
		RunE:  command.ShowHelp(dockerCLI.Err()),
	}
	cmd.AddCommand(newClusterStatusCommand(dockerCLI), newClusterTimelineCommand(dockerCLI), newClusterAuditCommand(dockerCLI), newClusterUpdateCommand(dockerCLI),
		newClusterBackupCommand(dockerCLI), newClusterRestoreCommand(dockerCLI))
	return cmd
}

func newClusterUpdateCommand(dockerCLI command.Cli) *cobra.Command {
	var hostOptions, encrypt, forbidExec bool
	var revisions uint
	var console string
	cmd := &cobra.Command{
		Use:   "update [OPTIONS]",
		Short: "Change what the cluster allows and keeps",
		Long: `Change what the cluster allows and keeps.

What Docker has a flag for is changed with "skep swarm update".`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			labels := map[string]string{}
			if cmd.Flags().Changed("allow-host-options") {
				labels[cluster.LabelAllowHostOptions.Name] = strconv.FormatBool(hostOptions)
			}
			if cmd.Flags().Changed("forbid-exec") {
				labels[cluster.LabelForbidExec.Name] = strconv.FormatBool(forbidExec)
			}
			if cmd.Flags().Changed("console") {
				labels[cluster.LabelConsole.Name] = console
			}
			if cmd.Flags().Changed("revision-history") {
				labels[cluster.LabelRevisionHistory.Name] = strconv.FormatUint(uint64(revisions), 10)
			}
			if cmd.Flags().Changed("encrypt-networks") {
				labels[cluster.LabelEncryptNetworks.Name] = strconv.FormatBool(encrypt)
			}
			if len(labels) == 0 {
				return errors.New("nothing to change: give --allow-host-options, --encrypt-networks, --forbid-exec, one of these with =false, --console or --revision-history")
			}
			err := updateCluster(cmd.Context(), dockerCLI.Client(), func(spec *swarm.Spec) {
				if spec.Labels == nil {
					spec.Labels = map[string]string{}
				}
				maps.Copy(spec.Labels, labels)
			})
			if err != nil || !encrypt {
				return err
			}
			status, err := fetchStatus(cmd.Context(), dockerCLI.Client())
			if err != nil {
				return fmt.Errorf("overlay networks that are made from now on are encrypted; list those that aren't: %w", err)
			}
			showInClear(dockerCLI.Out(), status.InClear)
			return nil
		},
	}
	cmd.Flags().BoolVar(&hostOptions, "allow-host-options", false,
		"Let services have labels that begin with "+cluster.LabelHost+", each of which can give a service power over its nodes")
	cmd.Flags().BoolVar(&encrypt, "encrypt-networks", false,
		"Encrypt all overlay networks that are made from now on, the ingress network too, as \"network create --opt encrypted\" does for one")
	cmd.Flags().BoolVar(&forbidExec, "forbid-exec", false,
		"Refuse \"docker exec\" and \"skep service exec\" in containers of tasks, by all managers")
	cmd.Flags().StringVar(&console, "console", "read",
		`What the pages of "skep console" may do: "off", "read", or "write", which lets them change services and nodes`)
	cmd.Flags().UintVar(&revisions, "revision-history", cluster.DefaultRevisionHistory,
		"How many revisions of each service to keep for \"skep service rollback --to\"")
	return cmd
}

// showInClear says which networks stay as they are when all that are made are encrypted, and what to do.
func showInClear(w io.Writer, names []string) {
	if len(names) == 0 {
		fmt.Fprintln(w, "All overlay networks are encrypted, and so are those that are made from now on.")
		return
	}
	fmt.Fprintln(w, "Overlay networks that are made from now on are encrypted. These were made before and stay in clear:")
	for _, name := range names {
		fmt.Fprintln(w, "  "+name)
	}
	fmt.Fprintln(w, `To have one encrypted, take services and containers off it, remove it with "skep network rm", and make it anew with "skep network create".`)
}

// updateCluster reads the cluster's spec, changes it and writes it back.
func updateCluster(ctx context.Context, c client.APIClient, change func(*swarm.Spec)) error {
	now, err := c.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	change(&now.Spec)
	return c.SwarmUpdate(ctx, now.Version, now.Spec, swarm.UpdateFlags{})
}

func newClusterStatusCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON, again bool
	cmd := &cobra.Command{
		Use:   "status [OPTIONS]",
		Short: "Show leader, managers and nodes, and what is unhealthy and why",
		Long: `Show leader, managers and nodes, and what is unhealthy and why.

Exits with 0 when all is well, 2 when something is unhealthy, 1 when no answer came. With
--watch it shows it every two seconds until it is interrupted.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case again && asJSON:
				return errors.New("--watch and --json exclude each other")
			case again:
				return watch(cmd.Context(), dockerCLI.Out(), dockerCLI.Out().IsTerminal(), watchEvery, func(ctx context.Context, w io.Writer) error {
					status, err := fetchStatus(ctx, dockerCLI.Client())
					if err != nil {
						return err
					}
					return showStatus(w, status, false)
				})
			}
			status, err := fetchStatus(cmd.Context(), dockerCLI.Client())
			if err != nil {
				return err
			}
			if err := showStatus(dockerCLI.Out(), status, asJSON); err != nil {
				return err
			}
			if len(status.Problems) > 0 {
				return cli.StatusError{StatusCode: exitProblems}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	cmd.Flags().BoolVarP(&again, "watch", "w", false, "Show it every two seconds")
	return cmd
}

func fetchStatus(ctx context.Context, c client.APIClient) (cluster.Status, error) {
	var status cluster.Status
	err := ask(ctx, c, http.MethodGet, "status", nil, &status)
	return status, err
}

func showStatus(w io.Writer, s cluster.Status, asJSON bool) error {
	if asJSON {
		return printJSON(w, s)
	}
	leader := "none"
	for _, m := range s.Managers {
		if m.Leader {
			leader = m.Hostname
		}
	}
	fmt.Fprintf(w, "Cluster %s: leader %s, term %d, level %d\n", s.ClusterID, leader, s.Term, s.At())
	switch {
	case len(s.InClear) > 0:
		fmt.Fprintf(w, "New overlay networks are encrypted; in clear are those of before: %s\n", strings.Join(s.InClear, ", "))
	case s.EncryptNetworks:
		fmt.Fprintln(w, "All overlay networks are encrypted.")
	}
	fmt.Fprintln(w)

	// tabwriter pads with what it is told, and docker's tables have three spaces too.
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	row("MANAGER", "ADDRESS", "ROLE", "TERM", "LAST", "COMMIT", "APPLIED", "SNAPSHOT", "HEARD OF LEADER")
	for _, m := range s.Managers {
		row(append([]string{m.Hostname, m.Addr, raftRole(m)}, progress(m)...)...)
	}
	row()
	managers := map[string]string{}
	for _, m := range s.Managers {
		managers[m.NodeID] = m.Hostname
	}
	row("NODE", "ADDRESS", "ROLE", "STATE", "AVAILABILITY", "GOSSIP", "SESSION WITH", "SKEP", "REASON")
	for _, n := range s.Nodes {
		session := n.Session
		if name := managers[session]; name != "" {
			session = name
		}
		row(n.Hostname, n.Addr, n.Role, n.State, withDrainUntil(n.Availability, n.DrainUntil), dash(n.Gossip), dash(session), dash(n.Version), n.Reason)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(s.Problems) == 0 {
		_, err := fmt.Fprintln(w, "\nAll is well.")
		return err
	}
	fmt.Fprintln(w, "\nProblems:")
	for _, p := range s.Problems {
		fmt.Fprintln(w, "  "+p)
	}
	return nil
}

func raftRole(m cluster.ManagerHealth) string {
	switch {
	case m.Leader:
		return "leader"
	case !m.Voter:
		return "learner"
	case !m.Reachable:
		return "unreachable"
	}
	return "follower"
}

// progress is how far a manager has come in the log; unknown when it didn't answer.
func progress(m cluster.ManagerHealth) []string {
	if !m.Reachable {
		return []string{"-", "-", "-", "-", "-", "-"}
	}
	contact := "-"
	if !m.Leader {
		contact = m.LastContact.Round(time.Millisecond).String() + " ago"
	}
	n := func(i uint64) string { return fmt.Sprint(i) }
	return []string{n(m.Term), n(m.LastIndex), n(m.CommitIndex), n(m.AppliedIndex), n(m.SnapshotIndex), contact}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
