package main

//lint:file-ignore SA1019 docker/cli v28.5 marks its command constructors deprecated because
// v29 hides them; this project stays with v28.5.2 (cmd/DESIGN.md says why).

import (
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/network"
	"github.com/docker/cli/cli/command/system"
	"github.com/docker/cli/cli/flags"
	cliversion "github.com/docker/cli/cli/version"
	"github.com/spf13/cobra"
)

// root is the top of the command tree, with the options that stand before a command.
type root struct {
	*cobra.Command
	cli  *command.DockerCli
	opts *flags.ClientOptions
}

// newRoot assembles the command tree: docker's groups that speak to a swarm, and ours.
func newRoot(dockerCLI *command.DockerCli) *root {
	cmd := &cobra.Command{
		Use:                   "skep [OPTIONS] COMMAND [ARG...]",
		Short:                 "A cluster of Docker Engines: Docker Swarm's API, its own managers",
		Version:               version,
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.ShowHelp(dockerCLI.Err())(cmd, args)
			}
			return unknownCommand(args[0])
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return supported(cmd, dockerCLI)
		},
	}
	cmd.SetIn(dockerCLI.In())
	cmd.SetOut(dockerCLI.Out())
	cmd.SetErr(dockerCLI.Err())
	opts, _ := cli.SetupRootCommand(cmd)
	cmd.Annotations = nil // Docker's help footer.
	cmd.SetVersionTemplate("skep version {{.Version}}\n")
	cmd.Flags().BoolP("version", "v", false, "Print version information and quit")
	installTarget(cmd.Flags(), opts)

	cmd.AddCommand(
		newDaemonCommand(),
		newDNSCommand(),
		newWireCommand(),
		newClusterCommand(dockerCLI),
		newConsoleCommand(dockerCLI),
		newUpgradeCommand(dockerCLI),
		newUpCommand(dockerCLI),
		newCheckCommand(dockerCLI),
		newDownCommand(dockerCLI),
		newImageCommand(dockerCLI),
		newUnitCommand(),
		newMachineCommand(),
		newTokenCommand(dockerCLI),

		newServiceCommand(dockerCLI),
		newJobCommand(dockerCLI),
		newNodeCommand(dockerCLI),
		newStackCommand(dockerCLI),
		newSwarmCommand(dockerCLI),
		newSecretCommand(dockerCLI),
		newConfigCommand(dockerCLI),
		network.NewNetworkCommand(dockerCLI),
		system.NewInfoCommand(dockerCLI),
		newVersionCommand(dockerCLI),
		newSupportCommand(dockerCLI),
		system.NewEventsCommand(dockerCLI),
		system.NewInspectCommand(dockerCLI),

		newManCommand(version, cliversion.BuildTime),
		newMetadataCommand(dockerCLI),
	)
	visit(cmd, func(c *cobra.Command) {
		c.DisableFlagsInUseLine = true
		checkSupportBeforeArgs(c, dockerCLI)
	})
	return &root{Command: cmd, cli: dockerCLI, opts: opts}
}

// parse reads the options that stand before the command, fixes the target, and
// returns the tree with the arguments that are left for it.
func (r *root) parse(args []string) (*cobra.Command, []string, error) {
	top := cli.NewTopLevelCommand(r.Command, r.cli, r.opts, r.Flags())
	top.SetArgs(args)
	cmd, rest, err := top.HandleGlobalFlags()
	if err != nil {
		return nil, nil, err
	}
	if err := setTarget(r.opts); err != nil {
		return nil, nil, err
	}
	if err := top.Initialize(); err != nil {
		return nil, nil, err
	}
	return cmd, rest, nil
}

func unknownCommand(name string) error {
	return cli.StatusError{StatusCode: 125, Status: fmt.Sprintf("skep: unknown command: skep %s\n\nRun 'skep --help' for more information", name)}
}

// visit calls fn for every command of the tree, leaves first.
func visit(cmd *cobra.Command, fn func(*cobra.Command)) {
	for _, sub := range cmd.Commands() {
		visit(sub, fn)
	}
	fn(cmd)
}
