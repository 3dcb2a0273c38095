package main

//lint:file-ignore SA1019 as in root.go.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	dockerstack "github.com/docker/cli/cli/command/stack"
	"github.com/docker/cli/cli/command/stack/swarm"
	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	swarmtypes "github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"skep/cluster"
	"skep/cmd/skep/stack"
)

// newStackCommand is docker's group of that name, with our own way of deploying: `docker stack
// deploy` stays what it is, and knows what this one made.
func newStackCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := dockerstack.NewStackCommand(dockerCLI)
	for _, sub := range cmd.Commands() {
		switch sub.Name() {
		case "deploy":
			cmd.RemoveCommand(sub)
			cmd.AddCommand(newStackDeployCommand(dockerCLI, sub.ValidArgsFunction), newStackExportCommand(dockerCLI, sub.ValidArgsFunction))
		case "config":
			cmd.RemoveCommand(sub)
			cmd.AddCommand(newStackConfigCommand(dockerCLI))
		case "rm":
			addWaitTo(sub, dockerCLI)
		}
	}
	cmd.AddCommand(newStackDiffCommand(dockerCLI), newStackHistoryCommand(dockerCLI), newStackRollbackCommand(dockerCLI))
	return cmd
}

// sourceFlags are the flags that say what to deploy.
type sourceFlags struct {
	files, profiles, envFiles []string
	strict                    bool
	// nameless takes files that don't name the stack.
	nameless bool
}

func (f *sourceFlags) install(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&f.files, "compose-file", "c", nil, `Path to a Compose file, or "-" to read from stdin; each over the ones before`)
	flags.StringSliceVar(&f.profiles, "profile", nil, "Take the services of this profile, too")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "Take variables of this file instead of .env beside the first Compose file")
	flags.BoolVar(&f.strict, "strict", false, "Refuse what has no meaning in a cluster instead of ignoring it")
}

// load loads what the flags name; args has the stack's name, or nothing.
func (f *sourceFlags) load(ctx context.Context, dockerCLI command.Cli, args []string) (*stack.Stack, error) {
	from := stack.Source{Files: f.files, Stdin: dockerCLI.In(), Profiles: f.profiles, EnvFiles: f.envFiles, Environ: os.Environ(), Nameless: f.nameless}
	if len(args) > 0 {
		from.Name = args[0]
		if err := stack.CheckName(from.Name); err != nil {
			return nil, err
		}
	}
	s, err := stack.Load(ctx, from)
	if err != nil {
		return nil, err
	}
	for _, warning := range s.Warnings {
		fmt.Fprintln(dockerCLI.Err(), "warning:", warning)
	}
	if f.strict && len(s.Warnings) > 0 {
		return nil, fmt.Errorf("--strict: the file has %s", plural(len(s.Warnings), "warning"))
	}
	return s, nil
}

// deployFlags are the flags of deploy and diff.
type deployFlags struct {
	sourceFlags
	resolve         string
	sendAuth, prune bool
	asJSON          bool
}

func (f *deployFlags) install(flags *pflag.FlagSet) {
	f.sourceFlags.install(flags)
	flags.StringVar(&f.resolve, "resolve-image", swarm.ResolveImageAlways, `Ask the registry for images' digests and platforms ("always", "changed", "never")`)
	flags.BoolVar(&f.sendAuth, "with-registry-auth", false, "Send registry authentication details to nodes")
	flags.BoolVar(&f.prune, "prune", false, "Remove services that the file doesn't have")
	flags.BoolVar(&f.asJSON, "json", false, "Print JSON")
}

// deployment is a stack, what there is of it, and what becomes of that.
type deployment struct {
	*stack.Stack
	cli   command.Cli
	flags *deployFlags
	live  stack.Live
	// changes are networks', then secrets' and configs', then services'.
	changes []stack.Change
	// registries is what they said of images.
	registries map[string]distribution
}

// distribution is what a registry says of an image.
type distribution struct {
	registry.DistributionInspect
	err error
}

// planDeployment asks the cluster what a stack would change. It changes nothing.
func planDeployment(ctx context.Context, dockerCLI command.Cli, flags *deployFlags, s *stack.Stack) (*deployment, error) {
	switch flags.resolve {
	case swarm.ResolveImageAlways, swarm.ResolveImageChanged, swarm.ResolveImageNever:
	default:
		return nil, fmt.Errorf(`--resolve-image: %q is none of always, changed and never`, flags.resolve)
	}
	live, err := fetchLive(ctx, dockerCLI.Client(), s.Name)
	if err != nil {
		return nil, err
	}
	d := &deployment{Stack: s, cli: dockerCLI, flags: flags, live: live, changes: s.NetworkChanges(live)}
	chosen := map[string]stack.Chosen{}
	for i := range s.Data {
		entry := &s.Data[i]
		name := entry.Kind + " " + entry.Spec.Name
		var found []cluster.StackData
		if err := ask(ctx, dockerCLI.Client(), http.MethodPost, entry.Kind+"s/match", entry.Asked(), &found); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		id, change := stack.Choose(entry, found)
		chosen[name] = stack.Chosen{ID: id, Name: entry.Spec.Name}
		d.changes = append(d.changes, change)
	}
	if err := s.Refer(live, chosen); err != nil {
		return nil, err
	}
	for i := range s.Services {
		if s.Recalled() > 0 {
			d.keep(&s.Services[i])
		} else if err := d.settle(ctx, &s.Services[i]); err != nil {
			return nil, err
		}
	}
	planned, err := d.plan(ctx, d.changes)
	if err != nil {
		return nil, err
	}
	d.changes = append(d.changes, s.ServiceChanges(live, planned, flags.prune)...)
	return d, nil
}

// plan asks the cluster what would become of the services, after changes of what they refer to.
func (d *deployment) plan(ctx context.Context, changes []stack.Change) (planned []cluster.PlannedService, err error) {
	if err = ask(ctx, d.cli.Client(), http.MethodPost, "services/plan", d.Request(d.live, changes, d.flags.prune), &planned); err != nil {
		err = fmt.Errorf("plan stack %s: %w", d.Name, err)
	}
	return planned, err
}

// fetchLive is what the cluster has of a stack.
func fetchLive(ctx context.Context, c client.APIClient, name string) (live stack.Live, err error) {
	of := filters.NewArgs(filters.Arg("label", convert.LabelNamespace+"="+name))
	if live.Services, err = c.ServiceList(ctx, swarmtypes.ServiceListOptions{Filters: of}); err != nil {
		return live, err
	}
	if live.Networks, err = c.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("scope", "swarm"))}); err != nil {
		return live, err
	}
	if live.Secrets, err = c.SecretList(ctx, swarmtypes.SecretListOptions{}); err != nil {
		return live, err
	}
	live.Configs, err = c.ConfigList(ctx, swarmtypes.ConfigListOptions{})
	return live, err
}

// keep has a service keep what isn't the file's to say, and returns what it is now, if it is there.
func (d *deployment) keep(spec *swarmtypes.ServiceSpec) *swarmtypes.ServiceSpec {
	for i := range d.live.Services {
		if old := &d.live.Services[i].Spec; old.Name == spec.Name && old.Labels[convert.LabelNamespace] == d.Name {
			stack.Keep(spec, old)
			return old
		}
	}
	return nil
}

// settle decides on which image a service runs.
func (d *deployment) settle(ctx context.Context, spec *swarmtypes.ServiceSpec) error {
	image := spec.TaskTemplate.ContainerSpec.Image
	stack.Tag(spec)
	old := d.keep(spec)
	if d.flags.resolve != swarm.ResolveImageAlways && old != nil && stack.KeepImage(spec, old) || d.flags.resolve == swarm.ResolveImageNever {
		return nil
	}
	found, asked := d.registries[image]
	if !asked {
		auth, err := d.auth(image)
		if err != nil {
			return err
		}
		found.DistributionInspect, found.err = d.cli.Client().DistributionInspect(ctx, spec.TaskTemplate.ContainerSpec.Image, auth)
		if d.registries == nil {
			d.registries = map[string]distribution{}
		}
		d.registries[image] = found
	}
	switch err := found.err; {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		stack.Pin(spec, found.DistributionInspect)
	case stack.Pinned(image):
	case old != nil && stack.KeepImage(spec, old):
		fmt.Fprintf(d.cli.Err(), "warning: image %s: no registry tells its digest, so %s keeps the one it has: %v\n", image, spec.Name, err)
	default:
		fmt.Fprintf(d.cli.Err(), "warning: image %s: no registry tells its digest, so each node takes what it has or gets under that name: %v\n", image, err)
	}
	return nil
}

// auth is what the registry of an image wants, if that is to be sent.
func (d *deployment) auth(image string) (string, error) {
	if !d.flags.sendAuth {
		return "", nil
	}
	return command.RetrieveAuthTokenFromImage(d.cli.ConfigFile(), image)
}

// refused is an error if the cluster would refuse any of it.
func (d *deployment) refused() error {
	for _, c := range d.changes {
		if c.Refused != "" {
			return fmt.Errorf("%s %s: %s", c.Kind, c.Name, c.Refused)
		}
	}
	return nil
}

// show prints the changes.
func (d *deployment) show(w io.Writer) error {
	if d.flags.asJSON {
		return printJSON(w, d.changes)
	}
	if err := stack.Show(w, d.changes); err != nil {
		return err
	}
	if !d.changed() {
		fmt.Fprintf(w, "Stack %s is as the file says.\n", d.Name)
	}
	return nil
}

func (d *deployment) changed() bool {
	for _, c := range d.changes {
		if c.Changed() || c.Refused != "" {
			return true
		}
	}
	return false
}

func newStackDiffCommand(dockerCLI command.Cli) *cobra.Command {
	flags := &deployFlags{}
	cmd := &cobra.Command{
		Use:   "diff [OPTIONS] [STACK]",
		Short: "Show what deploying a Compose file would change",
		Long: `Show what deploying a Compose file would change, by the checks and defaults of the cluster
itself, which writes nothing.

Exits with 0 when nothing would change, 2 when something would, 1 when no answer came.`,
		Args: cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := flags.load(cmd.Context(), dockerCLI, args)
			if err != nil {
				return err
			}
			return showPlan(cmd.Context(), dockerCLI, flags, s)
		},
	}
	flags.install(cmd.Flags())
	return cmd
}

// showPlan prints what deploying a stack would change.
func showPlan(ctx context.Context, dockerCLI command.Cli, flags *deployFlags, s *stack.Stack) error {
	d, err := planDeployment(ctx, dockerCLI, flags, s)
	if err != nil {
		return err
	}
	if err := d.show(dockerCLI.Out()); err != nil {
		return err
	}
	if d.changed() {
		return cli.StatusError{StatusCode: exitProblems}
	}
	return nil
}

// rollFlags say what to deploy how, and why.
type rollFlags struct {
	deployFlags
	waiting waitFlags
	dryRun  bool
	message string
}

// install installs what all have that deploy.
func (f *rollFlags) install(flags *pflag.FlagSet) {
	f.waiting.install(flags)
	flags.BoolVar(&f.dryRun, "dry-run", false, "Show what would be done, and do nothing")
}

// deploy deploys a stack, or shows what that would do.
func (f *rollFlags) deploy(ctx context.Context, dockerCLI command.Cli, s *stack.Stack) error {
	if f.dryRun {
		return showPlan(ctx, dockerCLI, &f.deployFlags, s)
	}
	d, err := planDeployment(ctx, dockerCLI, &f.deployFlags, s)
	if err != nil {
		return err
	}
	return d.roll(ctx, f.message, &f.waiting)
}

func newStackDeployCommand(dockerCLI command.Cli, complete cobra.CompletionFunc) *cobra.Command {
	flags := &rollFlags{}
	var pruneData bool
	cmd := &cobra.Command{
		Use:     "deploy [OPTIONS] [STACK]",
		Aliases: []string{"up"},
		Short:   "Deploy a new stack or update an existing stack",
		Long: `Deploy a new stack or update an existing stack, and wait until it runs.

The file is one of the Compose Specification; without an argument its name: is the stack's.
What it doesn't change is left alone. A secret or config of other content than before gets
a name of its own, so services are updated to it, and can go back. --dry-run shows what
would be done, like "skep stack diff".`,
		Args: cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cluster.CheckMessage(flags.message); err != nil {
				return err
			}
			s, err := flags.load(cmd.Context(), dockerCLI, args)
			if err != nil {
				return err
			}
			if err := flags.deploy(cmd.Context(), dockerCLI, s); err != nil || !pruneData || flags.dryRun {
				return err
			}
			return pruneStackData(cmd.Context(), dockerCLI, s)
		},
		ValidArgsFunction: complete,
	}
	flags.deployFlags.install(cmd.Flags())
	flags.install(cmd.Flags())
	cmd.Flags().StringVar(&flags.message, "message", "", `Why this is done, for "skep stack history"`)
	cmd.Flags().BoolVar(&pruneData, "prune-data", false, "Remove secrets and configs of the stack that no service has, nor a kept revision of one")
	return cmd
}

// roll shows what was planned, does it, remembers it and waits for it.
func (d *deployment) roll(ctx context.Context, message string, waiting *waitFlags) error {
	if err := d.show(d.cli.Out()); err != nil {
		return err
	}
	if err := d.refused(); err != nil {
		return err
	}
	if err := d.deploy(ctx); err != nil {
		return err
	}
	if d.changed() {
		if err := d.remember(ctx, message); err != nil {
			fmt.Fprintln(d.cli.Err(), "warning: this deployment can't be gone back to:", err)
		}
	}
	if waiting.detach {
		return nil
	}
	if err := d.wait(ctx, waiting); err != nil {
		return err
	}
	return d.stays(ctx)
}

// stays is an error when services aren't as they were deployed: others can deploy the same stack.
func (d *deployment) stays(ctx context.Context) (err error) {
	if d.live, err = fetchLive(ctx, d.cli.Client(), d.Name); err != nil {
		return err
	}
	for i := range d.Services {
		d.keep(&d.Services[i])
	}
	planned, err := d.plan(ctx, nil)
	if err != nil {
		return err
	}
	var changed []string
	for _, p := range planned {
		if p.Action != cluster.PlanUnchanged {
			changed = append(changed, p.Name)
		}
	}
	if len(changed) > 0 {
		return fmt.Errorf("these services run, but were changed meanwhile by somebody else: %s", strings.Join(changed, ", "))
	}
	return nil
}

// deploy does what was planned. What fails in the middle is told, and the same command goes on.
func (d *deployment) deploy(ctx context.Context) error {
	c := d.cli.Client()
	for _, change := range d.changes {
		if change.Kind != "service" || change.Action != stack.Remove {
			continue
		}
		if err := c.ServiceRemove(ctx, change.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove service %s: %w", change.Name, err)
		}
	}
	made := map[string]string{}
	for _, change := range d.changes {
		if change.Action != cluster.PlanCreate || change.Kind == "service" {
			continue
		}
		id, err := d.create(ctx, change)
		if err != nil {
			return fmt.Errorf("create %s %s: %w", change.Kind, change.Name, err)
		}
		made[change.Kind+" "+change.Name] = id
	}
	for i := range d.Services {
		spec := &d.Services[i]
		for _, ref := range spec.TaskTemplate.ContainerSpec.Secrets {
			if id := made["secret "+ref.SecretName]; id != "" {
				ref.SecretID = id
			}
		}
		for _, ref := range spec.TaskTemplate.ContainerSpec.Configs {
			if id := made["config "+ref.ConfigName]; id != "" {
				ref.ConfigID = id
			}
		}
		if err := d.apply(ctx, spec); err != nil {
			return err
		}
	}
	return nil
}

// create makes a network, secret or config.
func (d *deployment) create(ctx context.Context, change stack.Change) (id string, err error) {
	c := d.cli.Client()
	for _, n := range d.Networks {
		if change.Kind == "network" && n.Name == change.Name {
			made, err := c.NetworkCreate(ctx, n.Name, n.CreateOptions)
			return made.ID, err
		}
	}
	for _, entry := range d.Data {
		switch {
		case entry.Kind != change.Kind || entry.Spec.Name != change.Name:
		case entry.Kind == "secret":
			made, err := c.SecretCreate(ctx, swarmtypes.SecretSpec{Annotations: entry.Spec.Annotations, Data: entry.Spec.Data, Templating: entry.Spec.Templating, Driver: entry.Driver})
			return made.ID, err
		default:
			made, err := c.ConfigCreate(ctx, entry.Spec)
			return made.ID, err
		}
	}
	return "", fmt.Errorf("it isn't in the file")
}

// apply creates or updates a service, if that was planned.
func (d *deployment) apply(ctx context.Context, spec *swarmtypes.ServiceSpec) error {
	action := d.actionOf(spec.Name)
	auth, err := d.auth(spec.Labels[convert.LabelImage])
	if err != nil {
		return err
	}
	var warnings []string
	switch action {
	case cluster.PlanCreate:
		done, err := d.cli.Client().ServiceCreate(ctx, *spec, swarmtypes.ServiceCreateOptions{EncodedRegistryAuth: auth})
		if err != nil {
			return fmt.Errorf("create service %s: %w", spec.Name, err)
		}
		warnings = done.Warnings
	case cluster.PlanUpdate:
		for _, old := range d.live.Services {
			if old.Spec.Name != spec.Name {
				continue
			}
			done, err := d.cli.Client().ServiceUpdate(ctx, old.ID, old.Version, *spec, swarmtypes.ServiceUpdateOptions{EncodedRegistryAuth: auth})
			if err != nil {
				return fmt.Errorf("update service %s: %w", spec.Name, err)
			}
			warnings = done.Warnings
		}
	}
	for _, warning := range warnings {
		fmt.Fprintln(d.cli.Err(), "warning:", strings.TrimSpace(warning))
	}
	return nil
}

func (d *deployment) actionOf(service string) string {
	for _, change := range d.changes {
		if change.Kind == "service" && change.Name == service {
			return change.Action
		}
	}
	return ""
}

// pruneStackData removes secrets and configs of the stack that nothing refers to any more, nor what a
// service could go back to.
func pruneStackData(ctx context.Context, dockerCLI command.Cli, s *stack.Stack) error {
	c := dockerCLI.Client()
	used := map[string]bool{}
	for _, entry := range s.Data {
		used[entry.Spec.Name] = true
	}
	note := func(task swarmtypes.TaskSpec) {
		if task.ContainerSpec == nil {
			return
		}
		for _, ref := range task.ContainerSpec.Secrets {
			used[ref.SecretID] = true
		}
		for _, ref := range task.ContainerSpec.Configs {
			used[ref.ConfigID] = true
		}
	}
	all, err := c.ServiceList(ctx, swarmtypes.ServiceListOptions{})
	if err != nil {
		return err
	}
	for _, service := range all {
		revisions, err := fetchRevisions(ctx, c, service.ID)
		if err != nil {
			return fmt.Errorf("list the revisions of service %s: %w", service.Spec.Name, err)
		}
		note(service.Spec.TaskTemplate)
		if service.PreviousSpec != nil {
			note(service.PreviousSpec.TaskTemplate)
		}
		for _, r := range revisions {
			note(r.TaskTemplate)
		}
	}
	live, err := fetchLive(ctx, c, s.Name)
	if err != nil {
		return err
	}
	for _, record := range stack.Records(s.Name, live) {
		used[record.ID()] = true
		for _, spec := range record.Services {
			note(spec.TaskTemplate)
		}
	}
	remove := func(kind, id string, spec swarmtypes.Annotations, remove func(context.Context, string) error) error {
		if spec.Labels[convert.LabelNamespace] != s.Name || used[id] || used[spec.Name] {
			return nil
		}
		if err := remove(ctx, id); err != nil {
			return fmt.Errorf("remove %s %s: %w", kind, spec.Name, err)
		}
		fmt.Fprintln(dockerCLI.Out(), "remove   ", kind, spec.Name)
		return nil
	}
	for _, secret := range live.Secrets {
		if err := remove("secret", secret.ID, secret.Spec.Annotations, c.SecretRemove); err != nil {
			return err
		}
	}
	for _, config := range live.Configs {
		if err := remove("config", config.ID, config.Spec.Annotations, c.ConfigRemove); err != nil {
			return err
		}
	}
	return nil
}
