package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-connections/nat"

	"skep/agent"
	"skep/cluster"
)

// settings are what a container is created with.
type settings struct {
	config  *container.Config
	host    *container.HostConfig
	network *network.NetworkingConfig
}

// settings translates a task into a container. It fails on anything that it
// can't translate.
func (d *Driver) settings(a agent.Assignment) (*settings, error) {
	spec := a.Revision.Spec
	if err := Check(spec, a.Revision.Endpoint); err != nil {
		return nil, err
	}
	c, err := expand(a)
	if err != nil {
		return nil, err
	}
	if err := d.checkVersion(c); err != nil {
		return nil, err
	}
	s := &settings{config: config(a, c), host: host(spec, c), network: &network.NetworkingConfig{}}
	if err := attached(a); err != nil {
		return nil, err
	}
	for _, at := range a.Networks {
		// Names are answered at the gateway, also those that the service's own servers know.
		if at.Network.Spans() {
			s.host.DNS = []string{at.Network.Subnets[0].Gateway.String()}
			if len(s.host.DNSOptions) == 0 {
				// Else the engine takes the machine's, and where ndots is among them it asks nobody
				// for names of one label. This is what holds without it.
				s.host.DNSOptions = []string{"attempts:2"}
			}
			break
		}
	}
	if mode := cluster.NetworkMode(&spec); mode != "" {
		s.host.NetworkMode = container.NetworkMode(mode)
	}
	if !s.host.NetworkMode.IsHost() { // else the task binds them itself
		s.config.ExposedPorts, s.host.PortBindings = ports(a.Revision)
	}
	if s.host.ExtraHosts, err = hosts(c.Hosts); err != nil {
		return nil, err
	}
	// Managers have seen to it that the cluster allows them.
	if err := cluster.ApplyHostOptions(a.Revision.ServiceLabels, s.host); err != nil {
		return nil, err
	}
	return s, nil
}

// attached refuses a task without a place in one of the networks that it is to be on.
func attached(a agent.Assignment) error {
	for _, config := range a.Revision.Spec.Networks {
		if _, predefined := cluster.PredefinedNetwork(config.Target); !predefined && !slices.ContainsFunc(a.Networks, func(at agent.Attachment) bool {
			return config.Target == at.Network.ID || config.Target == at.Network.Spec.Name
		}) {
			return cluster.Errorf(cluster.ErrInvalid, "network %s: the task has no address in it", config.Target)
		}
	}
	for _, at := range a.Networks {
		if at.Network.Spans() && (at.Host == 0 || len(at.Network.Subnets) == 0) {
			return cluster.Errorf(cluster.ErrInvalid, "network %s: the task has no address in it", at.Network.Spec.Name)
		}
	}
	return nil
}

// checkVersion refuses what this engine is too old for and would leave out.
func (d *Driver) checkVersion(c *swarm.ContainerSpec) error {
	need := func(version, feature string) error {
		if err := d.client.NewVersionError(context.Background(), version, feature); err != nil {
			err = explain(err)
			return err
		}
		return nil
	}
	if c.Healthcheck != nil && c.Healthcheck.StartInterval != 0 {
		if err := need("1.44", "health-check start interval"); err != nil {
			return err
		}
	}
	for _, m := range c.Mounts {
		if m.Type == mount.TypeImage {
			if err := need("1.48", "mount of an image"); err != nil {
				return err
			}
		}
		if m.BindOptions != nil && m.BindOptions.ReadOnlyForceRecursive {
			if err := need("1.44", "bind-recursive=readonly"); err != nil {
				return err
			}
		}
		if m.BindOptions != nil && m.BindOptions.CreateMountpoint {
			if err := need("1.42", "bind-create-src"); err != nil {
				return err
			}
		}
		if m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
			if err := need("1.45", "volume-subpath"); err != nil {
				return err
			}
		}
		if m.TmpfsOptions != nil && len(m.TmpfsOptions.Options) > 0 {
			if err := need("1.46", "tmpfs-options"); err != nil {
				return err
			}
		}
	}
	return nil
}

// config is the part that has to do with the image. c is spec with its templates
// expanded.
func config(a agent.Assignment, c *swarm.ContainerSpec) *container.Config {
	config := &container.Config{
		Labels:      labels(a, c),
		StopSignal:  c.StopSignal,
		Tty:         c.TTY,
		OpenStdin:   c.OpenStdin,
		User:        c.User,
		Env:         slices.Concat(c.Env, a.Task.GenericEnv()),
		Hostname:    c.Hostname,
		WorkingDir:  c.Dir,
		Image:       familiar(c.Image),
		Healthcheck: c.Healthcheck,
	}
	if len(c.Command) > 0 { // replaces the image's entrypoint and its arguments
		config.Entrypoint = c.Command
	}
	if len(c.Args) > 0 {
		config.Cmd = c.Args
	}
	return config
}

// labels are the user's, below Swarm's and ours.
func labels(a agent.Assignment, c *swarm.ContainerSpec) map[string]string {
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[LabelTask] = ""
	labels[LabelTaskID] = a.Task.ID
	labels[LabelTaskName] = a.ContainerName()
	labels[LabelNodeID] = a.Task.NodeID
	labels[LabelServiceID] = a.Task.ServiceID
	labels[LabelServiceName] = a.Revision.ServiceName
	labels[LabelNode] = a.Task.NodeID
	return labels
}

// host is the part that has to do with the machine.
func host(spec swarm.TaskSpec, c *swarm.ContainerSpec) *container.HostConfig {
	h := &container.HostConfig{
		GroupAdd:       c.Groups,
		Mounts:         c.Mounts,
		ReadonlyRootfs: c.ReadOnly,
		Isolation:      c.Isolation,
		Init:           c.Init,
		Sysctls:        c.Sysctls,
		CapAdd:         c.CapabilityAdd,
		CapDrop:        c.CapabilityDrop,
		OomScoreAdj:    int(c.OomScoreAdj),
		SecurityOpt:    security(c.Privileges),
	}
	if c.Isolation == "default" {
		h.Isolation = ""
	}
	h.Ulimits = c.Ulimits
	if c.DNSConfig != nil {
		h.DNS, h.DNSSearch, h.DNSOptions = c.DNSConfig.Nameservers, c.DNSConfig.Search, c.DNSConfig.Options
	}
	if spec.LogDriver != nil {
		h.LogConfig = container.LogConfig{Type: spec.LogDriver.Name, Config: spec.LogDriver.Options}
	}
	if spec.Resources != nil && spec.Resources.Limits != nil {
		limits := spec.Resources.Limits
		h.NanoCPUs, h.Memory = limits.NanoCPUs, limits.MemoryBytes
		if limits.Pids > 0 {
			h.PidsLimit = &limits.Pids
		}
	}
	return h
}

// security translates privileges into the engine's options.
func security(p *swarm.Privileges) []string {
	if p == nil {
		return nil
	}
	var options []string
	if s := p.SELinuxContext; s != nil {
		if s.Disable {
			options = append(options, "label=disable")
		}
		for _, part := range []struct{ key, value string }{{"user", s.User}, {"role", s.Role}, {"type", s.Type}, {"level", s.Level}} {
			if part.value != "" {
				options = append(options, "label="+part.key+":"+part.value)
			}
		}
	}
	if p.Seccomp != nil {
		switch p.Seccomp.Mode {
		case swarm.SeccompModeUnconfined:
			options = append(options, "seccomp=unconfined")
		case swarm.SeccompModeCustom:
			options = append(options, "seccomp="+string(p.Seccomp.Profile))
		}
	}
	if p.AppArmor != nil && p.AppArmor.Mode == swarm.AppArmorModeDisabled {
		options = append(options, "apparmor=unconfined")
	}
	if p.NoNewPrivileges {
		options = append(options, "no-new-privileges=true")
	}
	return options
}

// ports translates ports that are published on the host, on all its addresses or the one that
// a label says. The engine chooses where no number is given.
func ports(r *cluster.Revision) (nat.PortSet, nat.PortMap) {
	configs := cluster.HostPorts(r.Endpoint)
	ips, _ := cluster.LabelHostIP.Of(r.ServiceLabels)
	if len(configs) == 0 {
		return nil, nil
	}
	exposed, bindings := make(nat.PortSet), make(nat.PortMap)
	for _, p := range configs {
		port := nat.Port(fmt.Sprintf("%d/%s", p.TargetPort, p.Protocol))
		binding := nat.PortBinding{}
		if p.PublishedPort != 0 {
			binding.HostPort = strconv.Itoa(int(p.PublishedPort))
		}
		if ip := ips.Of(p); ip.IsValid() {
			binding.HostIP = ip.String()
		}
		exposed[port] = struct{}{}
		bindings[port] = append(bindings[port], binding)
	}
	return exposed, bindings
}

// published translates back what the engine made of them.
func published(bindings nat.PortMap) string {
	var ports []swarm.PortConfig
	for port, list := range bindings {
		for _, binding := range list {
			number, err := strconv.ParseUint(binding.HostPort, 10, 16)
			if err != nil {
				continue
			}
			ports = append(ports, swarm.PortConfig{
				Protocol: swarm.PortConfigProtocol(port.Proto()), TargetPort: uint32(port.Int()), PublishedPort: uint32(number),
			})
		}
	}
	return cluster.FormatPorts(ports)
}

// hosts turns lines of a hosts file, "IP name [alias...]", into the engine's
// "name:IP".
func hosts(lines []string) ([]string, error) {
	var list []string
	for _, line := range lines {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, cluster.Errorf(cluster.ErrInvalid, "invalid host entry, must be an IP address and a name: %q", line)
		}
		for _, name := range fields[1:] {
			list = append(list, name+":"+fields[0])
		}
	}
	return list, nil
}
