package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"skep/cluster"
	"skep/cluster/node"
)

// newUpgradeBackCommand goes back to before the cluster's level rose. It speaks to no daemon: none starts.
func newUpgradeBackCommand() *cobra.Command {
	o := daemonOptions{logLevel: "warn", logFormat: "text"}
	var unlockFile string
	var order node.BackOrder
	cmd := &cobra.Command{
		Use:   "back [OPTIONS]",
		Short: "Go back to before the cluster's level rose, by the version from before",
		Long: `Go back to before the cluster's level rose, by the version from before.

Before the level rises, each manager keeps a copy of its database. This makes the copy of
this machine's manager the database of the cluster again, with this manager alone; the
workers follow it. All that was changed since is lost, and what runs and isn't in the copy
is stopped.

First stop the daemons of all managers, and install the older version on all nodes. Run
this on one manager and start its daemon; on the other managers run it with --as-worker,
start theirs, and promote them again.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unlockFile != "" {
				text, err := readToken(unlockFile, cmd.InOrStdin())
				if err != nil {
					return fmt.Errorf("read unlock key: %w", err)
				}
				if order.Unlock, err = cluster.ParseUnlockKey(text); err != nil {
					return err
				}
			}
			done, err := node.GoBack(cmd.Context(), node.Config{DataDir: o.dataDir, Build: cluster.NewBuild(version), Log: o.logger()}, order)
			switch {
			case errors.Is(err, cluster.ErrLocked):
				return fmt.Errorf("%w: give the unlock key with --unlock-key-file", err)
			case err != nil:
				return err
			case order.AsWorker:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "This node has no database any more. Start the daemon: it comes back as a worker.")
			default:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "The database is the one of %s, at level %d, and this node is the only manager. Start the daemon.\n"+
					"On the other managers run \"skep upgrade back --as-worker\", start their daemons, and promote them again (\"skep node promote\").\n", done.At.UTC().Format(time.RFC3339), done.Level)
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.dataDir, "data-dir", "/var/lib/skep", "Where the node keeps its state")
	fs.BoolVar(&order.AsWorker, "as-worker", false, "Drop this manager's database instead: another manager goes back")
	fs.StringVar(&unlockFile, "unlock-key-file", "", "File with the unlock key of a manager that is locked, or - for standard input")
	fs.BoolVarP(&order.Force, "force", "f", false, "Also when it isn't known that the level rose, or something answers where another manager was")
	return cmd
}
