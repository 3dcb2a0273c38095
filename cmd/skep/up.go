package main

//lint:file-ignore SA1019 as in root.go.

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	dockercontext "github.com/docker/cli/cli/command/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/streams"
	"github.com/docker/docker/api/types/swarm"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"skep/cluster"
	"skep/cmd/skep/up"
)

// upOptions are the flags of the commands that work on machines.
type upOptions struct {
	file, log string
	binaries  []string

	workers, labels, remove []string
	context                 string
	dryRun, force, yes      bool
	asJSON                  bool
}

// installMachines has the flags that say which machines, and what goes there.
func (o *upOptions) installMachines(fs *pflag.FlagSet) {
	fs.StringVarP(&o.file, "file", "f", "cluster.yml", "List of the machines")
	fs.StringVar(&o.log, "log", "", "File that takes what is run on machines, and what they say (default the list's, with .log)")
}

func (o *upOptions) installBinaries(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.binaries, "binary", nil, "The skep that machines shall run, instead of this one; once for each of their architectures")
}

func (o *upOptions) installNew(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.workers, "workers", nil, "More machines, that shall be workers (HOST,...)")
	fs.StringArrayVar(&o.labels, "label", nil, "Label of the nodes of the machines that are named (NAME=VALUE; NAME- for one that they shall not have); may be repeated")
}

const upLong = `
HOST is what ssh takes: a host of its configuration, user@host or ssh://user@host:port. The
system's own ssh is used as it is set up, with its agent, jump hosts and known hosts; users
other than root need sudo. The list of machines is kept in a file, cluster.yml in this
directory, to be shown and edited:

  machines:
    - host: root@192.168.1.11
    - host: root@192.168.1.14
      role: worker             # manager, unless it says this
      addr: 10.0.0.14          # by which the others reach it, if that isn't ssh's way
      labels: {zone: a}        # "zone: null" removes it; others are left alone
      availability: drain      # active, pause or drain
`

func newUpCommand(dockerCLI command.Cli) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up [OPTIONS] [HOST...]",
		Short: "Make machines a cluster, by ssh, or have one as its list says",
		Long: `Make machines a cluster, by ssh, or have one as its list says.

It checks all machines first, and says everything that would fail later and what to do
about it. Then it puts this binary and its unit on each, makes the cluster, and has the
others join. Run again, it does what is left: nothing, or whatever was added to the list.
Nodes that run another binary get this one, one at a time: managers that follow, the
leader, workers, after what "skep upgrade check" says. A machine that is taken off the list
stays a node until it is named with --remove.
` + upLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), dockerCLI, args, false)
		},
	}
	o.installMachines(cmd.Flags())
	o.installBinaries(cmd.Flags())
	o.installNew(cmd.Flags())
	cmd.Flags().StringArrayVar(&o.remove, "remove", nil, "Machine that is off the list: drain it, take it out of the cluster, and remove skep from it; may be repeated")
	cmd.Flags().StringVar(&o.context, "context", "skep", "Docker context for the cluster on this machine; empty for none")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "Say what would be done, and do nothing")
	cmd.Flags().BoolVar(&o.force, "force", false, "Upgrade nodes whatever \"skep upgrade check\" says")
	return cmd
}

func newCheckCommand(dockerCLI command.Cli) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "check [OPTIONS] [HOST...]",
		Short: "Say what keeps machines from being a cluster, by ssh",
		Long: `Say what keeps machines from being a cluster, by ssh: whether ssh reaches them, what they
run on, the engine, what networks need of the kernel, clocks, names and machine IDs, disk,
and the ports between each two of them, which are tried. Nothing stays on the machines.

Exits with 0 when all is well, 2 when something isn't, 1 when it couldn't be found out.
` + upLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), dockerCLI, args, true)
		},
	}
	o.installMachines(cmd.Flags())
	o.installBinaries(cmd.Flags())
	o.installNew(cmd.Flags())
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "Print JSON")
	return cmd
}

func newDownCommand(dockerCLI command.Cli) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "down [OPTIONS]",
		Short: "Take a cluster off its machines again, by ssh",
		Long: `Take the cluster off the machines of the list again, by ssh: services with their
containers, networks and secrets, the cluster's database, the daemon, its unit and its
binary. The machines keep their engines, with images and volumes. The list stays, too.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.down(cmd.Context(), dockerCLI) },
	}
	o.installMachines(cmd.Flags())
	o.installBinaries(cmd.Flags())
	cmd.Flags().StringVar(&o.context, "context", "skep", "Docker context that was made for the cluster, to remove it; empty for none")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "Don't ask")
	return cmd
}

// machines is the list with what the command line names; text is the file's.
func (o *upOptions) machines(args []string) (l up.List, text []byte, added bool, err error) {
	text, err = os.ReadFile(o.file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(args)+len(o.workers) == 0:
		return l, nil, false, fmt.Errorf("there is no %s: name the machines, as in \"skep up root@192.168.1.11 root@192.168.1.12 root@192.168.1.13\", or the list with --file", o.file)
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return l, nil, false, fmt.Errorf("read the list of machines: %w", err)
	default:
		if l, err = up.Parse(text); err != nil {
			return l, nil, false, fmt.Errorf("%s: %w", o.file, err)
		}
	}
	labels, err := up.ParseLabels(o.labels)
	if err != nil {
		return l, nil, false, err
	}
	var named []up.Machine
	for _, host := range args {
		named = append(named, up.Machine{Host: host, Role: swarm.NodeRoleManager, Labels: labels})
	}
	for _, host := range o.workers {
		named = append(named, up.Machine{Host: host, Role: swarm.NodeRoleWorker, Labels: labels})
	}
	if len(labels) > 0 && len(named) == 0 {
		return l, nil, false, errors.New("--label is for machines that are named beside it; those of the list have theirs there")
	}
	l, added, err = l.With(named)
	for _, host := range o.remove {
		if slices.Contains(l.Hosts(), host) {
			return l, nil, false, fmt.Errorf("--remove %s: it is in %s: take it off the list first", host, o.file)
		}
		if bad := up.CheckHost(host); bad != nil {
			return l, nil, false, bad
		}
	}
	return l, text, added, err
}

// readBinaries reads what machines shall run: this binary, unless others are named.
func (o *upOptions) readBinaries() (binaries map[string]up.Binary, name string, err error) {
	paths := o.binaries
	if len(paths) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, "", fmt.Errorf("find this binary (use --binary): %w", err)
		}
		paths = []string{self}
	}
	binaries, name = map[string]up.Binary{}, version
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, "", err
		}
		arch, err := architecture(text)
		if err != nil {
			return nil, "", fmt.Errorf("read %s: %w", path, err)
		}
		if _, twice := binaries[arch]; twice {
			return nil, "", fmt.Errorf("--binary %s: there is one for %s already", path, arch)
		}
		sum := sha256.Sum256(text)
		binaries[arch] = up.Binary{Digest: hex.EncodeToString(sum[:]), Compressed: sync.OnceValues(func() ([]byte, error) { return up.Compress(text) })}
		if said, err := exec.Command(path, "--version").Output(); len(o.binaries) > 0 && err == nil {
			name = strings.TrimSpace(strings.TrimPrefix(string(said), "skep version "))
		}
	}
	return binaries, name, nil
}

// architecture is whose machine code a file is, as Go calls it.
func architecture(text []byte) (string, error) {
	f, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		return "", fmt.Errorf("it is no program for Linux: %w", err)
	}
	names := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x", elf.EM_386: "386"}
	name := names[f.Machine]
	if name == "" {
		return "", fmt.Errorf("it is for %v", f.Machine)
	}
	return name, nil
}

// session is one command's work on machines.
type session struct {
	*up.Up
	ssh   *up.SSH
	begin time.Time
	log   *os.File
	close func()
}

// open prepares work on machines; its close must be called. progress may be nil.
func (o *upOptions) open(progress io.Writer) (*session, error) {
	path := cmp.Or(o.log, strings.TrimSuffix(o.file, filepath.Ext(o.file))+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log (use --log): %w", err)
	}
	ssh, err := up.OpenSSH(os.TempDir())
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	s := &session{ssh: ssh, begin: time.Now(), log: log}
	var mu sync.Mutex // one line after the other
	note := func(host, text string) {
		for line := range strings.Lines(text) {
			fmt.Fprintf(log, "%s %s: %s\n", time.Now().Format("2006-01-02T15:04:05.000Z07:00"), cmp.Or(host, "all"), strings.TrimRight(line, "\r\n"))
		}
	}
	ssh.Ask, ssh.Log = askPassword, func(host, text string) {
		mu.Lock()
		defer mu.Unlock()
		note(host, text)
	}
	s.Up = &up.Up{Runner: s.ssh, Now: time.Now, Nonce: rand.Text, Say: func(host, words string) {
		mu.Lock()
		defer mu.Unlock()
		note(host, words)
		fmt.Fprintf(progress, "%6.1fs  %s\n", time.Since(s.begin).Seconds(), strings.TrimPrefix(host+": "+words, ": "))
	}}
	s.close = func() { _ = errors.Join(s.ssh.Close(), log.Close()) }
	return s, nil
}

// askPassword reads one from the terminal.
func askPassword(prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	fmt.Fprint(tty, prompt)
	defer fmt.Fprintln(tty)
	text, err := term.ReadPassword(int(tty.Fd()))
	return string(text), err
}

// openWithBinaries is open for work that takes a skep to the machines.
func (o *upOptions) openWithBinaries(progress io.Writer) (*session, error) {
	s, err := o.open(progress)
	if err != nil {
		return nil, err
	}
	if s.Binaries, s.Options.Version, err = o.readBinaries(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// look connects and looks at all machines, and tries the ports between those of the list.
func (s *session) look(ctx context.Context, l up.List, more []string) (up.World, error) {
	hosts := slices.Concat(l.Hosts(), more)
	if err := s.Connect(ctx, hosts); err != nil {
		return nil, err
	}
	s.Say("", "look at the machines")
	world, err := s.Look(ctx, hosts)
	if err != nil {
		return nil, err
	}
	return world, s.TryPorts(ctx, l, world)
}

// run is `skep up`, and `skep check`, which stops before anything is done.
func (o *upOptions) run(ctx context.Context, dockerCLI command.Cli, args []string, onlyCheck bool) (err error) {
	l, text, added, err := o.machines(args)
	if err != nil {
		return err
	}
	s, err := o.openWithBinaries(dockerCLI.Err())
	if err != nil {
		return err
	}
	defer s.close()
	s.Options.Remove, s.Options.Force, s.Options.Digests = o.remove, o.force, map[string]string{}
	for arch, b := range s.Binaries {
		s.Options.Digests[arch] = b.Digest
	}
	defer func() { err = errors.Join(err, s.Unstage(ctx)) }()
	world, err := s.look(ctx, l, o.remove)
	if err != nil {
		return err
	}
	todo := up.Plan(l, world, s.Options)
	out := dockerCLI.Out()
	switch {
	case o.asJSON:
		if err := printJSON(out, struct {
			Machines up.World
			Problems []up.Problem
		}{world, append([]up.Problem{}, todo.Problems...)}); err != nil {
			return err
		}
		if len(todo.Problems) > 0 {
			return cli.StatusError{StatusCode: exitProblems}
		}
		return nil
	case len(todo.Problems) > 0:
		return problems(out, todo.Problems, "Nothing was changed.")
	case onlyCheck:
		for _, n := range todo.Notes {
			fmt.Fprintln(out, n)
		}
		fmt.Fprintf(out, "Nothing is in the way: %s.\n", plural(len(l.Machines), "machine"))
		return nil
	case o.dryRun:
		return o.showPlan(out, todo)
	}
	if added {
		if err := writeList(o.file, text, l); err != nil {
			return err
		}
		s.Say("", "the list of machines is in "+o.file)
	}
	world, done, err := s.Carry(ctx, slices.Concat(l.Hosts(), o.remove), world, func(w up.World) up.Todo { return up.Plan(l, w, s.Options) })
	if refused := (up.ProblemsError)(nil); errors.As(err, &refused) {
		return problems(out, refused, "Correct that, and run this again: it goes on from here.")
	} else if err != nil {
		return fmt.Errorf("%w\nRun this again: it goes on from here. %s has what was run", err, s.log.Name())
	}
	made, err := o.makeContext(dockerCLI, l, s.Root)
	if err != nil {
		fmt.Fprintf(dockerCLI.Err(), "no docker context: %v\n", err)
	}
	fmt.Fprintln(out)
	if err := s.Show(ctx, world, l.Hosts(), out); err != nil {
		return err
	}
	for _, n := range up.Plan(l, world, s.Options).Notes {
		fmt.Fprintln(out, n)
	}
	fmt.Fprintln(out)
	if made != "" {
		fmt.Fprintf(out, "%s\n", made)
	}
	if done == 0 {
		fmt.Fprintf(out, "Nothing was to be done: %s, all as %s says, looked at in %s.\n", plural(len(l.Machines), "machine"), o.file, time.Since(s.begin).Round(100*time.Millisecond))
		return nil
	}
	fmt.Fprintf(out, "%s as %s says after %s.\n", plural(len(l.Machines), "machine"), o.file, time.Since(s.begin).Round(100*time.Millisecond))
	return nil
}

// problems shows them; they are the command's status, too.
func problems(w io.Writer, list []up.Problem, then string) error {
	for _, p := range list {
		fmt.Fprintln(w, p)
	}
	fmt.Fprintf(w, "\n%s. %s\n", plural(len(list), "problem"), then)
	return cli.StatusError{StatusCode: exitProblems}
}

func (o *upOptions) showPlan(w io.Writer, todo up.Todo) error {
	for _, n := range todo.Notes {
		fmt.Fprintln(w, n)
	}
	if len(todo.Steps) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is to be done.")
		return err
	}
	fmt.Fprintln(w, "What would be done, as far as it can be seen from here:")
	for _, step := range todo.Steps {
		fmt.Fprintln(w, "  "+step.String())
	}
	return nil
}

// writeList adds machines to the file.
func writeList(path string, text []byte, l up.List) error {
	text, err := up.Edit(text, l)
	if err == nil {
		err = cluster.ReplaceFile(path, text)
	}
	if err != nil {
		return fmt.Errorf("write the list of machines: %w", err)
	}
	return nil
}

// contextHost is how docker's client reaches a manager's socket by ssh: it runs docker there.
func contextHost(host string) string {
	host = strings.TrimPrefix(host, "ssh://")
	return "ssh://" + strings.TrimSuffix(host, "/") + strings.TrimPrefix(defaultHost, "unix://")
}

// makeContext makes a docker context that speaks to the first manager, and says how to use it. One that
// somebody else has made stays.
func (o *upOptions) makeContext(dockerCLI command.Cli, l up.List, root func(host string) bool) (said string, err error) {
	if o.context == "" {
		return "", nil
	}
	i := slices.IndexFunc(l.Machines, func(m up.Machine) bool { return m.Role == swarm.NodeRoleManager })
	host := contextHost(l.Machines[i].Host)
	use := fmt.Sprintf("docker --context %s node ls; SKEP_HOST=%s skep node ls", o.context, host)
	if old, err := dockerCLI.ContextStore().GetMetadata(o.context); err == nil {
		at, err := docker.EndpointFromContext(old)
		if err != nil {
			return "", err
		}
		for _, m := range l.Machines {
			if m.Role == swarm.NodeRoleManager && at.Host == contextHost(m.Host) {
				return "", nil
			}
		}
		return "", fmt.Errorf("there is one named %s already, for %s: use --context NAME", o.context, at.Host)
	}
	if !root(l.Machines[i].Host) {
		use += "\nThe user that ssh logs in as there must be allowed to use the node's socket: SKEP_OPTS=\"--group docker\" in /etc/default/skep there, and \"systemctl restart skep\""
	}
	err = dockercontext.RunCreate(silent{dockerCLI}, &dockercontext.CreateOptions{
		Name: o.context, Description: "made by skep up", Docker: map[string]string{"host": host},
	})
	return use, err
}

// silent is docker's command line without what its commands print.
type silent struct{ command.Cli }

func (silent) Out() *streams.Out { return streams.NewOut(io.Discard) }
func (silent) Err() *streams.Out { return streams.NewOut(io.Discard) }

// dropContext removes the context that makeContext has made for the cluster, and no other.
func (o *upOptions) dropContext(dockerCLI command.Cli, l up.List) error {
	old, err := dockerCLI.ContextStore().GetMetadata(o.context)
	if o.context == "" || err != nil {
		return nil
	}
	at, err := docker.EndpointFromContext(old)
	if err != nil || !slices.ContainsFunc(l.Machines, func(m up.Machine) bool { return at.Host == contextHost(m.Host) }) {
		return nil //nolint // It isn't ours.
	}
	if config := dockerCLI.ConfigFile(); config.CurrentContext == o.context {
		config.CurrentContext = ""
		if err := config.Save(); err != nil {
			return err
		}
	}
	return dockerCLI.ContextStore().Remove(o.context)
}

// down takes the cluster off its machines.
func (o *upOptions) down(ctx context.Context, dockerCLI command.Cli) (err error) {
	l, _, _, err := o.machines(nil)
	if err != nil {
		return err
	}
	s, err := o.openWithBinaries(dockerCLI.Err())
	if err != nil {
		return err
	}
	defer s.close()
	defer func() { err = errors.Join(err, s.Unstage(ctx)) }()
	hosts := l.Hosts()
	if err := s.Connect(ctx, hosts); err != nil {
		return err
	}
	world, err := s.Look(ctx, hosts)
	if err != nil {
		return err
	}
	todo, out := up.PlanDown(l, world), dockerCLI.Out()
	switch {
	case len(todo.Problems) > 0:
		return problems(out, todo.Problems, "Nothing was changed.")
	case len(todo.Steps) == 0:
		fmt.Fprintln(out, "Nothing is left on the machines.")
		return o.dropContext(dockerCLI, l)
	}
	for _, step := range todo.Steps {
		fmt.Fprintln(out, step)
	}
	if !o.yes {
		yes, err := command.PromptForConfirmation(ctx, dockerCLI.In(), out, "All services, networks and secrets of the cluster go, and its database. Go on?")
		if err != nil || !yes {
			return errors.Join(err, errors.New("nothing was changed"))
		}
	}
	_, _, err = s.Carry(ctx, hosts, world, func(w up.World) up.Todo { return up.PlanDown(l, w) })
	if refused := (up.ProblemsError)(nil); errors.As(err, &refused) {
		return problems(out, refused, "Correct that, and run this again: it goes on from here.")
	} else if err != nil {
		return fmt.Errorf("%w\nRun this again: it goes on from here. %s has what was run", err, s.log.Name())
	}
	if err := o.dropContext(dockerCLI, l); err != nil {
		return err
	}
	fmt.Fprintf(out, "Nothing is left of the cluster on %s, but their engines' images and volumes, after %s. %s stays, and %s.\n",
		plural(len(l.Machines), "machine"), time.Since(s.begin).Round(100*time.Millisecond), o.file, s.log.Name())
	return nil
}
