package main

import (
	"encoding/json"
	"io"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/agent/network/linux"
	"skep/cluster"
	"skep/cmd/skep/up"
)

// machineEngine is where a machine's engine is.
const machineEngine = "unix:///var/run/docker.sock"

// localEngine is a client of an engine, whatever the environment says.
func localEngine(host string) (*client.Client, error) {
	return client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
}

// mostTargets bounds what a machine is told to try.
const mostTargets = 16 << 20

// encryption says why encrypted networks are slow on this machine, or aren't there.
func encryption() string {
	slow, err := linux.CheckEncryption()
	switch {
	case err != nil:
		return "no encrypted networks: " + err.Error()
	case slow:
		return "encrypted networks are slow: " + slowEncryption
	}
	return ""
}

// newMachineCommand is what `skep up` runs on machines: it isn't for people.
func newMachineCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "machine", Short: "What \"skep up\" runs on machines", Hidden: true, Args: cli.NoArgs}
	facts := &cobra.Command{
		Use: "facts", Short: "Print what there is on this machine", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			look := up.Look{
				Version: version, Unit: serviceUnit, NoNetworks: linux.Check, Encryption: encryption, Now: time.Now,
				InTheWay: func(s cluster.Status) []string { return hindrances(s, cluster.NewBuild(version), time.Now()) },
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(look.Facts(cmd.Context()))
		},
	}
	listen := &cobra.Command{
		Use: "listen PORT/PROTOCOL...", Short: "Answer at ports until standard input ends", Args: cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return up.Listen(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	dial := &cobra.Command{
		Use: "dial", Short: "Try ports of other machines", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var asking up.Asking
			if err := json.NewDecoder(io.LimitReader(cmd.InOrStdin(), mostTargets)).Decode(&asking); err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(up.Dial(cmd.Context(), asking))
		},
	}
	image := &cobra.Command{
		Use: "image IMAGE", Short: "Print what this machine's engine has of an image", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := localEngine(machineEngine)
			if err != nil {
				return err
			}
			defer engine.Close()
			held, err := up.Holds(cmd.Context(), engine, args[0])
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(held)
		},
	}
	load := &cobra.Command{
		Use: "load", Short: "Load images from standard input into this machine's engine", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := localEngine(machineEngine)
			if err != nil {
				return err
			}
			defer engine.Close()
			return up.Load(cmd.Context(), engine, cmd.InOrStdin())
		},
	}
	cmd.AddCommand(facts, listen, dial, image, load)
	return cmd
}
