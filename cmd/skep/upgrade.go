package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"skep/cluster"
)

func newUpgradeCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Look whether the cluster can be upgraded to this version, and how far it is",
		Long: `Look whether the cluster can be upgraded to this version, and how far it is.

To upgrade, replace the binary and restart the daemon, node by node: managers that
follow, then the leader, then workers. Containers run on meanwhile.`,
		Args: cli.NoArgs,
		RunE: command.ShowHelp(dockerCLI.Err()),
	}
	cmd.AddCommand(newUpgradeCheckCommand(dockerCLI), newUpgradeStatusCommand(dockerCLI), newUpgradeBackCommand())
	return cmd
}

func newUpgradeCheckCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [OPTIONS]",
		Short: "Say what is in the way of an upgrade to the version of this command",
		Long: `Say what is in the way of an upgrade to the version of this command: so run the new
binary, before any daemon does.

Exits with 0 when nothing is, 2 when something is, 1 when no answer came.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := fetchDigests(cmd.Context(), dockerCLI)
			if err != nil {
				return err
			}
			found := hindrances(status, cluster.NewBuild(version), time.Now())
			if asJSON {
				err = printJSON(dockerCLI.Out(), struct{ Problems, Warnings []string }{append([]string{}, found...), append([]string{}, warnings(status)...)})
			} else {
				err = showHindrances(dockerCLI.Out(), status, found)
			}
			if err == nil && len(found) > 0 {
				err = cli.StatusError{StatusCode: exitProblems}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

// fetchDigests is fetchStatus, with the digests of the managers' databases.
func fetchDigests(ctx context.Context, dockerCLI command.Cli) (status cluster.Status, err error) {
	return status, ask(ctx, dockerCLI.Client(), http.MethodGet, "status?digests=1", nil, &status)
}

const (
	// freshBackup is how old the last backup may be.
	freshBackup = 24 * time.Hour
	// leastFree is how much room a manager's disk must have.
	leastFree = 1 << 30
)

// warnings are what nodes that are ready warn of. A restart makes none of that worse, another version may
// mend it, and some of it stays: that the kernel has no WireGuard.
func warnings(s cluster.Status) (all []string) {
	for _, n := range s.Nodes {
		if w := n.Warning(); w != "" {
			all = append(all, w)
		}
	}
	return all
}

// hindrances says what is in the way of an upgrade to a build.
func hindrances(s cluster.Status, to cluster.Build, now time.Time) []string {
	found := slices.DeleteFunc(slices.Clone(s.Problems), func(p string) bool { return slices.Contains(warnings(s), p) })
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if err := to.Fits(s.ClusterLevel); err != nil {
		say("%v", err)
	}
	if s.LevelWaits != "" {
		say("the level of the last upgrade isn't reached yet: %s", s.LevelWaits)
	}
	voters, answer := 0, 0
	digests := map[uint64]string{}
	for _, m := range s.Managers {
		if m.Voter {
			voters++
			if m.Reachable {
				answer++
			}
		}
		if m.DiskSize > 0 && (m.DiskFree < leastFree || m.DiskFree < m.DiskSize/20) {
			say("the disk of manager %s has %d MiB free of %d: make room for 1 GiB and a twentieth of it", m.Hostname, m.DiskFree>>20, m.DiskSize>>20)
		}
		if need := cluster.KeptRoom(m.CopySize); m.DiskSize > 0 && m.DiskFree >= leastFree && m.DiskFree < need {
			say("the disk of manager %s has %d MiB free, and %d are needed to keep a copy of the database before the level rises", m.Hostname, m.DiskFree>>20, need>>20)
		}
		if known := digests[m.DigestIndex]; m.Digest != "" && known != "" && known != m.Digest {
			say("manager %s has another database than others at index %d: upgrade nothing, back up and report this", m.Hostname, m.DigestIndex)
		}
		digests[m.DigestIndex] = m.Digest
		if !to.Can(max(m.Level, 1)) {
			say("manager %s runs skep %s, which is newer than this command: run the version to upgrade to", m.Hostname, orUnknown(m.Version))
		}
	}
	if voters > 0 && answer-1 < voters/2+1 {
		say("while a manager restarts nothing can be written: %d of %d managers would answer, and %d are needed", answer-1, voters, voters/2+1)
	}
	switch age := now.Sub(s.BackupAt); {
	case s.BackupAt.IsZero():
		say("there is no backup: make one with \"skep cluster backup\"")
	case age > freshBackup:
		say("the last backup is %v old: make one with \"skep cluster backup\"", age.Round(time.Minute))
	}
	return found
}

func orUnknown(version string) string {
	if version == "" {
		return "of an unknown version"
	}
	return version
}

func showHindrances(w io.Writer, s cluster.Status, found []string) error {
	for _, said := range warnings(s) {
		fmt.Fprintln(w, "Not in the way: "+said)
	}
	if len(found) == 0 {
		_, err := fmt.Fprintf(w, "Nothing is in the way of skep %s. In this order: %s.\n", version, strings.Join(order(s, version), ", "))
		return err
	}
	fmt.Fprintf(w, "In the way of skep %s:\n", version)
	for _, f := range found {
		fmt.Fprintln(w, "  "+f)
	}
	return nil
}

// order lists the nodes that don't run the version yet: managers that follow, the leader,
// workers.
func order(s cluster.Status, version string) []string {
	var followers, leader, workers []string
	managers := map[string]bool{}
	for _, m := range s.Managers {
		managers[m.NodeID] = true
		switch {
		case m.Version == version:
		case m.NodeID == s.LeaderID:
			leader = append(leader, m.Hostname)
		default:
			followers = append(followers, m.Hostname)
		}
	}
	for _, n := range s.Nodes {
		if !managers[n.NodeID] && n.Version != version {
			workers = append(workers, n.Hostname)
		}
	}
	return append(append(followers, leader...), workers...)
}

func newUpgradeStatusCommand(dockerCLI command.Cli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [OPTIONS]",
		Short: "Show which node runs which version, and what is left to upgrade",
		Long: `Show which node runs which version, and what is left to upgrade to the version of this
command.

Exits with 0 when all nodes run it, 2 when some don't, 1 when no answer came.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := fetchStatus(cmd.Context(), dockerCLI.Client())
			if err != nil {
				return err
			}
			left := order(status, version)
			if asJSON {
				err = printJSON(dockerCLI.Out(), struct {
					cluster.ClusterLevel
					Nodes []cluster.NodeHealth
					Left  []string
				}{status.ClusterLevel, status.Nodes, append([]string{}, left...)})
			} else {
				err = showUpgrade(dockerCLI.Out(), status, left)
			}
			if err == nil && len(left) > 0 {
				err = cli.StatusError{StatusCode: exitProblems}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

func showUpgrade(w io.Writer, s cluster.Status, left []string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tSKEP\tLEVEL\tSTATE")
	for _, n := range s.Nodes {
		role := n.Role
		if n.NodeID == s.LeaderID {
			role = "leader"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", n.Hostname, role, orUnknown(n.Version), max(n.Level, 1), n.State)
	}
	var lowest []string
	next := max(cluster.NewBuild("").Level, s.At())
	for _, n := range s.Nodes {
		if !n.Can(next) {
			lowest = append(lowest, n.Hostname)
		}
	}
	errs := []error{t.Flush()}
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	say("\nThe cluster is at level %d.", s.At())
	if len(lowest) > 0 {
		say("It stays there, and the way back is open, until these nodes are upgraded or removed: %s.", strings.Join(lowest, ", "))
	}
	if s.LevelWaits != "" {
		say("The leader doesn't raise it yet: %s.", s.LevelWaits)
	}
	var kept []string
	for _, m := range s.Managers {
		if m.Kept > 1 && m.Kept == s.At() {
			kept = append(kept, m.Hostname)
		}
	}
	if len(kept) > 0 {
		say("The way back to before it rose is \"skep upgrade back\" on one of these: %s.", strings.Join(kept, ", "))
	}
	if len(left) == 0 {
		say("All nodes run skep %s.", version)
	} else {
		say("To be upgraded to skep %s, in this order: %s.", version, strings.Join(left, ", "))
	}
	return errors.Join(errs...)
}
