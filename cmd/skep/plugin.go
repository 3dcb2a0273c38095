package main

import (
	"path/filepath"
	"slices"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli-plugins/metadata"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pluginProgram is the name under which docker finds the binary among its plugins, as a link, so
// that `docker skep cluster status` is `skep cluster status`.
const pluginProgram = metadata.NamePrefix + "skep"

// newMetadataCommand answers docker's question what the plugin is.
func newMetadataCommand(dockerCLI command.Cli) *cobra.Command {
	return &cobra.Command{
		Use:    metadata.MetadataSubcommandName,
		Hidden: true,
		Args:   cli.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return printJSON(dockerCLI.Out(), metadata.Metadata{
				SchemaVersion:    "0.1.0",
				Vendor:           "skep",
				Version:          version,
				ShortDescription: "Look after a cluster of skep, by this machine's node",
			})
		},
	}
}

// withoutPluginName takes docker's name of the plugin out of the arguments: docker passes on all
// that it was given, its own options before the name and the plugin's behind it. --host is skep's
// too, wherever it stands; docker's contexts are refused.
func (r *root) withoutPluginName(program string, args []string) []string {
	if filepath.Base(program) != pluginProgram {
		return args
	}
	options := pflag.NewFlagSet(program, pflag.ContinueOnError)
	options.SetInterspersed(false)
	options.Usage = func() {}
	options.AddFlagSet(r.Flags())
	if err := options.ParseAll(args, func(*pflag.Flag, string) error { return nil }); err != nil {
		return args // Whoever obeys them says what is wrong.
	}
	at := len(args) - options.NArg()
	if slices.Contains([]string{"help", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, options.Arg(0)) {
		at++ // These of docker's stand before the name.
	}
	if at < len(args) && args[at] == "skep" {
		return slices.Delete(slices.Clone(args), at, at+1)
	}
	return args
}
