package main

import (
	"fmt"
	"os"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/stack/swarm"
	"github.com/spf13/cobra"

	"skep/cmd/skep/stack"
)

func newStackExportCommand(dockerCLI command.Cli, complete cobra.CompletionFunc) *cobra.Command {
	var digests bool
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] STACK",
		Short: "Write a Compose file of what is deployed",
		Long: `Write a Compose file of what is deployed, to standard output: deployed again it changes
nothing. What secrets have can't be told, so they are external in it; so is what others
than the stack have made. It warns of what a Compose file can't say.`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return stack.CheckName(args[0])
			}
			live, err := fetchLive(cmd.Context(), dockerCLI.Client(), args[0])
			if err != nil {
				return err
			}
			if len(live.Services) == 0 {
				return fmt.Errorf("there is no stack %s, or it has no services: `skep stack ls` lists those that are", args[0])
			}
			file, err := stack.Export(args[0], live, digests)
			if err != nil {
				return err
			}
			if _, err := dockerCLI.Out().Write(file); err != nil {
				return err
			}
			unsaid, err := notExported(cmd, dockerCLI, file, args[0], digests)
			if err != nil {
				return fmt.Errorf("read what was exported: %w", err)
			}
			for _, text := range unsaid {
				fmt.Fprintln(dockerCLI.Err(), "warning: a Compose file can't say this:", text)
			}
			return nil
		},
		ValidArgsFunction: complete,
	}
	cmd.Flags().BoolVar(&digests, "resolve-image-digests", false, "Write images with the digests that run")
	return cmd
}

// notExported says what deploying an exported file would change.
func notExported(cmd *cobra.Command, dockerCLI command.Cli, file []byte, name string, digests bool) (unsaid []string, err error) {
	temporary, err := os.CreateTemp("", "skep-export-*.yml")
	if err != nil {
		return nil, err
	}
	defer os.Remove(temporary.Name())
	if _, err := temporary.Write(file); err != nil {
		return nil, err
	}
	if err := temporary.Close(); err != nil {
		return nil, err
	}
	s, err := stack.Load(cmd.Context(), stack.Source{Files: []string{temporary.Name()}, Name: name})
	if err != nil {
		return nil, err
	}
	d, err := planDeployment(cmd.Context(), dockerCLI, &deployFlags{resolve: swarm.ResolveImageNever}, s)
	if err != nil {
		return nil, err
	}
	for _, change := range d.changes {
		for _, difference := range change.Differences {
			if digests && (difference.Field == "image" || difference.Field == "label com.docker.stack.image") {
				continue
			}
			unsaid = append(unsaid, fmt.Sprintf("%s %s: %s is %q", change.Kind, change.Name, difference.Field, difference.From))
		}
	}
	return unsaid, nil
}

// newStackConfigCommand is docker's command, for the files that our deploy takes.
func newStackConfigCommand(dockerCLI command.Cli) *cobra.Command {
	flags := &sourceFlags{}
	var raw, digests bool
	cmd := &cobra.Command{
		Use:   "config [OPTIONS]",
		Short: "Outputs the final config file, after doing merges and interpolations",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if raw {
				file, err := stack.Merge(cmd.Context(), stack.Source{Files: flags.files, Stdin: dockerCLI.In(), EnvFiles: flags.envFiles, Environ: os.Environ()})
				if err != nil {
					return err
				}
				_, err = dockerCLI.Out().Write(file)
				return err
			}
			flags.nameless = true
			s, err := flags.load(cmd.Context(), dockerCLI, nil)
			if err != nil {
				return err
			}
			if digests {
				d := &deployment{Stack: s, cli: dockerCLI, flags: &deployFlags{resolve: swarm.ResolveImageAlways}}
				for i := range s.Services {
					if err := d.settle(cmd.Context(), &s.Services[i]); err != nil {
						return err
					}
				}
				s.PinImages()
			}
			file, err := s.File()
			if err != nil {
				return err
			}
			_, err = dockerCLI.Out().Write(file)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.install(cmd.Flags())
	cmd.Flags().BoolVar(&raw, "skip-interpolation", false, "Skip interpolation and output only merged config")
	cmd.Flags().BoolVar(&digests, "resolve-image-digests", false, "Ask registries for the images' digests, and write those")
	return cmd
}
