package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sync/errgroup"
)

// machinesLabel is on all that the engine keeps for machines, so that what is there is known
// without a note of it, whatever became of the lab that made it.
const machinesLabel = "skep.lab.machines"

const (
	// machinesName is of the image and the network, and the beginning of a machine's container.
	machinesName = "skep-machine"
	// machinesPrefix is the network of the machines; m1 has .11.
	machinesPrefix = "10.77.77."
	// mostMachines is what one host has memory for: 200 MB each with an engine and tasks.
	mostMachines = 32
	// machineMemory keeps one machine from taking the host's.
	machineMemory = 2 << 30
	// bootLimit is how long a machine may take to come up: seconds, where the host is idle.
	bootLimit = 3 * time.Minute
)

// machine has a root file system, systemd, an engine and an address of its own. It is a
// container of the host's engine, which knows how to keep and remove such things.
type machine struct {
	name, addr, id string
	host           *client.Client
}

func runMachines(ctx context.Context, l lab, args []string) error {
	fs := flag.NewFlagSet("lab machines", flag.ContinueOnError)
	cache, keys := fs.String("cache", "", "directory of the root file system that was made before (default skep-lab in the user's cache)"), fs.String("authorized-keys", "", "file of the keys that root may log in with by ssh")
	all := fs.Bool("all", false, "with down: remove the root file system in the cache, too")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: lab machines up N | down [OPTIONS]\n\nMachines of their own root file system, with systemd, sshd and an engine, as containers of this one's engine.")
		fs.PrintDefaults()
	}
	rest, err := parseMixed(fs, args)
	if err != nil {
		return err
	}
	if *cache == "" {
		if *cache, err = machinesCache(); err != nil {
			return err
		}
	}
	switch {
	case len(rest) == 2 && rest[0] == "up":
		n, err := strconv.Atoi(rest[1])
		if err != nil || n < 1 || n > mostMachines {
			return fmt.Errorf("machines up %s: want a number from 1 to %d", rest[1], mostMachines)
		}
		var authorized []byte
		if *keys != "" {
			if authorized, err = os.ReadFile(*keys); err != nil {
				return err
			}
		}
		begin := time.Now()
		machines, err := machinesUp(ctx, l.engine, n, *cache, authorized, os.Stdout)
		if err != nil {
			return err
		}
		for _, m := range machines {
			fmt.Printf("%s  %s  docker exec -it %s bash\n", m.name, m.addr, m.container())
		}
		fmt.Printf("up in %s; gone with \"lab machines down\"\n", seconds(time.Since(begin)))
		return nil
	case len(rest) == 1 && rest[0] == "down":
		if err := machinesDown(ctx, l.engine); err != nil || !*all {
			return err
		}
		return os.RemoveAll(rootFile(*cache))
	}
	fs.Usage()
	return flag.ErrHelp
}

// machinesCache is where root file systems are kept if nobody says where.
func machinesCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for the root file system (use -cache): %w", err)
	}
	return filepath.Join(dir, "skep-lab"), nil
}

// host is what matters of the one that machines are to be on.
type host struct {
	root   bool
	engine string
	info   system.Info
	mounts string // as /proc/self/mounts has them
}

// unfit says why a host can't have machines, or nothing.
func (h host) unfit() error {
	option := func(name string) bool {
		return slices.ContainsFunc(h.info.SecurityOptions, func(o string) bool { return o == "name="+name || strings.HasPrefix(o, "name="+name+",") })
	}
	switch {
	case !h.root:
		return errors.New("machines need root: for their root file system, and to reach into them")
	case !strings.HasPrefix(h.engine, "unix://"):
		return fmt.Errorf("machines are on this host, and so must their engine be, but it is at %s: name one by unix://", h.engine)
	case option("rootless") || option("userns"):
		return errors.New("the engine maps users: machines need one that doesn't, for an engine within them")
	case h.info.OSType != "linux":
		return fmt.Errorf("the engine runs %s containers", h.info.OSType)
	case h.info.CgroupVersion != "2" && !strings.Contains(h.mounts, "name=systemd"):
		return errors.New("the host has cgroups of version 1 and none for systemd: mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd")
	}
	return nil
}

// machinesUp makes n machines and waits until each has come up. What it made is removed
// when it fails.
func machinesUp(ctx context.Context, engineHost string, n int, cache string, authorized []byte, log io.Writer) (_ []*machine, err error) {
	engine, err := connect(engineHost)
	if err != nil {
		return nil, err
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("machines are containers of the engine: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	if err := (host{os.Geteuid() == 0, engineHost, info, string(mounts)}).unfit(); err != nil {
		return nil, err
	}
	switch list, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: ofMachines()}); {
	case err != nil:
		return nil, err
	case len(list) > 0:
		return nil, fmt.Errorf("there are %d machines already: lab machines down", len(list))
	}
	root := rootFile(cache)
	if err := makeRoot(ctx, root, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, machinesDown(context.WithoutCancel(ctx), engineHost))
		}
	}()
	if err := importRoot(ctx, engine, root, log); err != nil {
		return nil, err
	}
	if _, err := engine.NetworkCreate(ctx, machinesName, network.CreateOptions{
		Driver: "bridge", Labels: map[string]string{machinesLabel: ""},
		IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: machinesPrefix + "0/24"}}},
	}); err != nil {
		return nil, fmt.Errorf("make the machines' network: %w", err)
	}
	files, err := set(authorized)
	if err != nil {
		return nil, err
	}
	var machines []*machine
	for i := range n {
		machines = append(machines, &machine{name: fmt.Sprintf("m%d", i+1), addr: fmt.Sprintf("%s%d", machinesPrefix, 11+i), host: engine})
	}
	work, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		work.Go(func() error {
			if err := m.create(ctx, bytes.NewReader(files.Bytes())); err != nil {
				return fmt.Errorf("make %s: %w", m.name, err)
			}
			return m.up(ctx)
		})
	}
	return machines, work.Wait()
}

func ofMachines() filters.Args { return filters.NewArgs(filters.Arg("label", machinesLabel)) }

// importRoot makes the machines' image of the root file system.
func importRoot(ctx context.Context, engine *client.Client, root string, log io.Writer) error {
	fmt.Fprintf(log, "import %s\n", root)
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	said, err := engine.ImageImport(ctx, image.ImportSource{Source: f, SourceName: "-"}, machinesName, image.ImportOptions{
		Changes: []string{"LABEL " + machinesLabel + "=", `CMD ["/machine-boot"]`, "ENV container=docker"},
	})
	if err != nil {
		return fmt.Errorf("import the root file system: %w", err)
	}
	defer said.Close()
	return saidError(said, "import the root file system")
}

func (m *machine) container() string { return machinesName + "-" + m.name }

// create makes the machine and lets it boot.
func (m *machine) create(ctx context.Context, files io.Reader) error {
	label := map[string]string{machinesLabel: m.name}
	// What the host's engine puts containers on may not do for another engine, and syncs slower than a disk.
	disk := m.container()
	if _, err := m.host.VolumeCreate(ctx, volume.CreateOptions{Name: disk, Labels: label}); err != nil {
		return err
	}
	drop, err := withheld()
	if err != nil {
		return err
	}
	made, err := m.host.ContainerCreate(ctx, &container.Config{
		Image: machinesName, Hostname: m.name, Labels: label, StopSignal: "SIGRTMIN+3",
	}, &container.HostConfig{
		CapAdd: []string{"ALL"}, CapDrop: drop, CgroupnsMode: container.CgroupnsModePrivate,
		SecurityOpt: []string{"seccomp=unconfined", "apparmor=unconfined"}, MaskedPaths: []string{}, ReadonlyPaths: []string{},
		Tmpfs:  map[string]string{"/run": "exec", "/run/lock": "", "/tmp": ""},
		Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: disk, Target: "/var/lib"}},
		// A machine that is rebooted ends its container with a status that says so.
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyOnFailure},
		Resources:     container.Resources{Memory: machineMemory, DeviceCgroupRules: []string{"a *:* rwm"}, Devices: tun()},
	}, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		machinesName: {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: m.addr}},
	}}, nil, m.container())
	if err != nil {
		return err
	}
	m.id = made.ID
	if err := m.host.CopyToContainer(ctx, m.id, "/", files, container.CopyToContainerOptions{}); err != nil {
		return err
	}
	return m.host.ContainerStart(ctx, m.id, container.StartOptions{})
}

// tun is the device that carries encrypted networks where the kernel has no WireGuard, if the host has it: on a machine
// that is none of a container udev would make it.
func tun() []container.DeviceMapping {
	const path = "/dev/net/tun"
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	return []container.DeviceMapping{{PathOnHost: path, PathInContainer: path, CgroupPermissions: "rwm"}}
}

// withheld are the capabilities that this process lacks: no engine can give them on.
func withheld() ([]string, error) {
	const bit = 24
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(status), "CapBnd:")
	word, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	have, err := strconv.ParseUint(word, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("read what the host may do: %w", err)
	}
	if have&(1<<bit) == 0 {
		return []string{"SYS_RESOURCE"}, nil
	}
	return nil, nil
}

// up waits until systemd has started everything and the engine answers.
func (m *machine) up(ctx context.Context) error {
	return until(ctx, bootLimit, m.name+" to come up", func(ctx context.Context) error {
		if out, err := m.run(ctx, "systemctl", "is-system-running"); err != nil {
			failed, _ := m.run(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
			return fmt.Errorf("it is %s: %s", strings.TrimSpace(out), cmp.Or(strings.TrimSpace(failed), err.Error()))
		}
		_, err := m.run(ctx, "docker", "version")
		return err
	})
}

// run runs a command in the machine and returns all that it printed. Its error has that, too.
func (m *machine) run(ctx context.Context, command ...string) (string, error) {
	return m.feed(ctx, nil, command...)
}

// feed is run with an input.
func (m *machine) feed(ctx context.Context, input io.Reader, command ...string) (string, error) {
	fail := func(err error) error { return fmt.Errorf("%s on %s: %w", strings.Join(command, " "), m.name, err) }
	made, err := m.host.ContainerExecCreate(ctx, m.id, container.ExecOptions{Cmd: command, AttachStdin: input != nil, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return "", fail(err)
	}
	stream, err := m.host.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return "", fail(err)
	}
	defer stream.Close()
	// A machine that goes down may leave the stream open.
	defer context.AfterFunc(ctx, stream.Close)()
	if input != nil {
		go func() {
			_, _ = io.Copy(stream.Conn, input)
			_ = stream.CloseWrite()
		}()
	}
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, stream.Reader); err != nil {
		return out.String(), fail(errors.Join(ctx.Err(), err))
	}
	ended, err := m.host.ContainerExecInspect(ctx, made.ID)
	if err == nil && ended.ExitCode != 0 {
		err = fmt.Errorf("exit status %d: %s", ended.ExitCode, strings.TrimSpace(out.String()))
	}
	if err != nil {
		return out.String(), fail(err)
	}
	return out.String(), nil
}

// put writes a file in the machine.
func (m *machine) put(ctx context.Context, path string, mode int64, content []byte) error {
	_, err := m.feed(ctx, bytes.NewReader(content), "sh", "-c", `cat >"$1" && chmod "$2" "$1"`, "put", path, strconv.FormatInt(mode, 8))
	return err
}

// socket is where a socket in the machine is on the host, until it is rebooted: the way goes
// through its first process, which the kernel shows to root.
func (m *machine) socket(ctx context.Context, path string) (string, error) {
	is, err := m.host.ContainerInspect(ctx, m.id)
	if err != nil {
		return "", err
	}
	if is.State.Pid == 0 {
		return "", fmt.Errorf("%s is %s", m.name, is.State.Status)
	}
	return fmt.Sprintf("/proc/%d/root%s", is.State.Pid, path), nil
}

// serves is a client of what serves Docker's API at a socket in the machine, also after it was
// rebooted.
func (m *machine) serves(path string) (*client.Client, error) {
	return client.NewClientWithOpts(client.WithHost("tcp://"+m.addr+":1"), client.WithAPIVersionNegotiation(),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			socket, err := m.socket(ctx, path)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}))
}

// cut takes the power off, restore gives it back.
func (m *machine) cut(ctx context.Context) error { return m.host.ContainerKill(ctx, m.id, "SIGKILL") }

func (m *machine) restore(ctx context.Context) error {
	return m.host.ContainerStart(ctx, m.id, container.StartOptions{})
}

// machinesDown removes all machines, whoever made them.
func machinesDown(ctx context.Context, engineHost string) error {
	engine, err := connect(engineHost)
	if err != nil {
		return err
	}
	defer engine.Close()
	containers, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: ofMachines()})
	if err != nil {
		return fmt.Errorf("remove machines: %w", err)
	}
	var work errgroup.Group
	for _, c := range containers {
		work.Go(func() error {
			return engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		})
	}
	errs := []error{work.Wait()}
	volumes, err := engine.VolumeList(ctx, volume.ListOptions{Filters: ofMachines()})
	errs = append(errs, err)
	for _, v := range volumes.Volumes {
		errs = append(errs, engine.VolumeRemove(ctx, v.Name, true))
	}
	networks, err := engine.NetworkList(ctx, network.ListOptions{Filters: ofMachines()})
	errs = append(errs, err)
	for _, n := range networks {
		errs = append(errs, engine.NetworkRemove(ctx, n.ID))
	}
	if _, err := engine.ImageRemove(ctx, machinesName, image.RemoveOptions{Force: true, PruneChildren: true}); !cerrdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
