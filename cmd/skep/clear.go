package main

import (
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"skep/cluster/node"
)

// newNodeClearCommand removes what a node has left on this machine. It speaks to no daemon.
func newNodeClearCommand() *cobra.Command {
	o := daemonOptions{driver: "docker", logLevel: "warn", logFormat: "text"}
	force := false
	cmd := &cobra.Command{
		Use:   "clear [OPTIONS]",
		Short: "Remove from this machine what a node left that is gone for good",
		Long: `Remove from this machine what a node left whose daemon was killed, and won't be started
again: its containers, their secrets, the cluster's networks with their bridges, rules and
names, and its data directory's files. Networks that another node on the same engine uses
stay. It refuses while a daemon uses the data directory: then
"skep swarm leave" is the way. Remove the node from the cluster by "skep node rm --force".`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(o.checkEngine(), o.checkDirs()); err != nil {
				return cli.StatusError{StatusCode: 125, Status: "skep node clear: " + err.Error()}
			}
			log := o.logger()
			carries := o.newPlane(log)
			plane, lack := carries.plane, carries.lack
			driver, err := o.newDriver(plane)
			if err != nil {
				return err
			}
			if lack != "" {
				log.Warn("networks are left as they are", "reason", lack)
			}
			err = node.Clear(cmd.Context(), node.Config{DataDir: o.dataDir, Driver: driver, Plane: plane, Names: o.passNames(plane), EndHelpers: o.endHelpers, Log: log}, force)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "Nothing is left of the node in %s.\n", o.dataDir)
			}
			return err
		},
	}
	o.installPlaces(cmd.Flags())
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also what was a manager, with its copy of the cluster's data")
	return cmd
}
