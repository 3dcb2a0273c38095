package main

//lint:file-ignore SA1019 as in root.go.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/config"
	"github.com/docker/cli/cli/command/secret"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"

	"skep/cluster"
	"skep/cmd/skep/stack"
)

// newSecretCommand and newConfigCommand are docker's groups, with a way to give services other
// content.
func newSecretCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := secret.NewSecretCommand(dockerCLI)
	cmd.AddCommand(newRotateCommand(dockerCLI, "secret"))
	return cmd
}

func newConfigCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := config.NewConfigCommand(dockerCLI)
	cmd.AddCommand(newRotateCommand(dockerCLI, "config"))
	return cmd
}

func newRotateCommand(dockerCLI command.Cli, kind string) *cobra.Command {
	flags := &waitFlags{}
	var oneByOne bool
	cmd := &cobra.Command{
		Use:   fmt.Sprintf("rotate [OPTIONS] %s FILE|-", map[string]string{"secret": "SECRET", "config": "CONFIG"}[kind]),
		Short: fmt.Sprintf("Give all services that have a %s other content for it", kind),
		Long: fmt.Sprintf(`Give all services that have a %[1]s other content for it, from a file or standard input.

What is there stays: the content becomes a %[1]s of its own, such as key-2 after key, and each
service is updated to it, in the order and with the parallelism of its updates. So a
rollback of a service goes back to what it had. All begin at once; the command waits until
they run, and says why they don't. Content that was there before is found again.`, kind),
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readContent(dockerCLI.In(), args[1])
			if err != nil {
				return err
			}
			r := &rotation{cli: dockerCLI, kind: kind, flags: flags}
			return r.run(cmd.Context(), args[0], data, oneByOne)
		},
	}
	flags.install(cmd.Flags())
	cmd.Flags().BoolVar(&oneByOne, "service-by-service", false, "Update a service only when the one before runs")
	return cmd
}

func readContent(stdin io.Reader, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(path)
}

// rotation gives services other content for a secret or config.
type rotation struct {
	cli   command.Cli
	kind  string
	flags *waitFlags
}

func (r *rotation) run(ctx context.Context, ref string, data []byte, oneByOne bool) error {
	spec, err := r.inspect(ctx, ref)
	if err != nil {
		return err
	}
	entry := stack.Entry(r.kind, spec, data)
	c := r.cli.Client()
	var found []cluster.StackData
	if err := ask(ctx, c, http.MethodPost, r.kind+"s/match", entry.Asked(), &found); err != nil {
		return err
	}
	id, change := stack.Choose(&entry, found)
	if change.Action == cluster.PlanCreate {
		d := &deployment{Stack: &stack.Stack{Data: []stack.Data{entry}}, cli: r.cli}
		if id, err = d.create(ctx, change); err != nil {
			return fmt.Errorf("create %s %s: %w", r.kind, entry.Spec.Name, err)
		}
	}
	fmt.Fprintln(r.cli.Out(), entry.Spec.Name)
	services, err := c.ServiceList(ctx, swarm.ServiceListOptions{})
	if err != nil {
		return err
	}
	updated := map[string]bool{}
	for _, service := range services {
		if !stack.Repoint(&service.Spec, r.kind, found, stack.Chosen{ID: id, Name: entry.Spec.Name}) {
			continue
		}
		if _, err := c.ServiceUpdate(ctx, service.ID, service.Version, service.Spec, swarm.ServiceUpdateOptions{}); err != nil {
			return fmt.Errorf("update service %s: %w", service.Spec.Name, err)
		}
		fmt.Fprintln(r.cli.Out(), "update    service", service.Spec.Name)
		if oneByOne && !r.flags.detach {
			if err := r.wait(ctx, map[string]bool{service.Spec.Name: true}); err != nil {
				return err
			}
		}
		updated[service.Spec.Name] = true
	}
	if len(updated) == 0 {
		fmt.Fprintf(r.cli.Err(), "No service had other content of it.\n")
	}
	if oneByOne || r.flags.detach || len(updated) == 0 {
		return nil
	}
	return r.wait(ctx, updated)
}

func (r *rotation) wait(ctx context.Context, updated map[string]bool) error {
	out := io.Writer(r.cli.Out())
	if r.flags.quiet {
		out = io.Discard
	}
	return waitForServices(ctx, r.cli.Client(), out, r.cli.Err(), updated, r.flags.timeout)
}

// inspect is what there is, without a secret's data.
func (r *rotation) inspect(ctx context.Context, ref string) (swarm.ConfigSpec, error) {
	if r.kind == "config" {
		found, _, err := r.cli.Client().ConfigInspectWithRaw(ctx, ref)
		return found.Spec, err
	}
	found, _, err := r.cli.Client().SecretInspectWithRaw(ctx, ref)
	if err == nil && found.Spec.Driver != nil {
		err = errors.New("its content comes from a driver")
	}
	return swarm.ConfigSpec{Annotations: found.Spec.Annotations, Templating: found.Spec.Templating}, err
}
