package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"skep/cmd/skep/up"
)

func newImageCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Bring images to the nodes without a registry",
		Args:  cli.NoArgs,
		RunE:  command.ShowHelp(dockerCLI.Err()),
	}
	cmd.AddCommand(newImagePushCommand(dockerCLI))
	return cmd
}

func newImagePushCommand(dockerCLI command.Cli) *cobra.Command {
	var o upOptions
	var engine string
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] IMAGE [HOST...]",
		Short: "Bring an image from this machine's engine to those of the nodes, by ssh, without a registry",
		Long: `Bring an image from this machine's engine to those of the nodes, by ssh, without a
registry: to all machines of the list that "skep up" keeps, or those that are named.

All get it at the same time, and only the layers that they lack. What has the image already
gets nothing.`,
		Args: cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.push(cmd.Context(), dockerCLI, engine, args[0], args[1:])
		},
	}
	o.installMachines(cmd.Flags())
	cmd.Flags().StringVar(&engine, "engine", machineEngine, "The engine that has the image")
	return cmd
}

func (o *upOptions) push(ctx context.Context, dockerCLI command.Cli, engine, ref string, hosts []string) error {
	l, _, _, err := o.machines(nil)
	if err != nil {
		return err
	}
	for _, host := range hosts {
		if !slices.Contains(l.Hosts(), host) {
			return fmt.Errorf("machine %s isn't in %s", host, o.file)
		}
	}
	if len(hosts) == 0 {
		hosts = l.Hosts()
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("image %q: want its name, by which services know it: %w", ref, err)
	}
	if _, digested := named.(reference.Digested); digested {
		return fmt.Errorf("image %s: a digest is a registry's: give its name and tag", ref)
	}
	ref = reference.FamiliarString(reference.TagNameOnly(named))
	saved, remove, err := save(ctx, engine, ref)
	if err != nil {
		return err
	}
	defer remove()
	s, err := o.open(dockerCLI.Err())
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.Connect(ctx, hosts); err != nil {
		return err
	}
	if err := s.Push(ctx, hosts, saved); err != nil {
		return err
	}
	_, err = fmt.Fprintf(dockerCLI.Out(), "%s is on %s.\n", ref, plural(len(hosts), "machine"))
	return err
}

// save has the engine write the image into a file, which remove removes.
func save(ctx context.Context, host, ref string) (_ *up.Saved, remove func(), err error) {
	engine, err := localEngine(host)
	if err != nil {
		return nil, nil, fmt.Errorf("--engine %s: %w", host, err)
	}
	defer engine.Close()
	is, err := engine.ImageInspect(ctx, ref)
	if err != nil {
		return nil, nil, fmt.Errorf("look for the image at %s: %w", host, err)
	}
	file, err := os.CreateTemp("", "skep-image-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { _ = errors.Join(file.Close(), os.Remove(file.Name())) }
	s := &up.Saved{Ref: ref, ID: is.ID, Layers: is.RootFS.Layers, File: file}
	text, err := engine.ImageSave(ctx, []string{ref})
	if err == nil {
		s.Size, err = io.Copy(file, text)
		err = errors.Join(err, text.Close())
	}
	if err == nil {
		err = s.Read()
	}
	if err != nil {
		remove()
		return nil, nil, fmt.Errorf("save image %s: %w", ref, err)
	}
	return s, remove, nil
}
