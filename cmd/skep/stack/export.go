package stack

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"gopkg.in/yaml.v3"

	"skep/cluster"
)

// File writes what was loaded as a compose file: with all that was included, merged and filled in,
// of the profiles that were asked for.
func (s *Stack) File() ([]byte, error) {
	return write(s.file)
}

// PinImages has the file name images by the digests that services have now.
func (s *Stack) PinImages() {
	for key, service := range mapping(s.file["services"]) {
		for _, spec := range s.Services {
			if spec.Name == convert.NewNamespace(s.Name).Scope(key) {
				mapping(service)["image"] = spec.TaskTemplate.ContainerSpec.Image
			}
		}
	}
}

// write writes a file that says what v does when it is loaded: a $ would be a variable's.
func write(v map[string]any) ([]byte, error) {
	return yaml.Marshal(escaped(v))
}

func escaped(v any) any {
	return cloneWith(v, func(text string) string { return strings.ReplaceAll(text, "$", "$$") })
}

// Export writes a compose file of what a cluster has of a stack, which deploys to that again. The
// data of secrets can't be told: they are external in it. digests has images by their digests.
func Export(name string, live Live, digests bool) ([]byte, error) {
	e := &export{name: name, live: live, namespace: convert.NewNamespace(name), file: map[string]any{"name": name}}
	for _, service := range live.Services {
		e.service(service.Spec, digests)
	}
	return write(e.file)
}

type export struct {
	name      string
	live      Live
	namespace convert.Namespace
	file      map[string]any
}

// set puts a value into a mapping, unless there is none to say.
func set[T any](m map[string]any, key string, value T, is bool) {
	if is {
		m[key] = value
	}
}

func (e *export) service(spec swarm.ServiceSpec, digests bool) {
	container, task := spec.TaskTemplate.ContainerSpec, spec.TaskTemplate
	if container == nil {
		return
	}
	s := within(e.file, "services", e.namespace.Descope(spec.Name))
	s["image"] = container.Image
	if label := spec.Labels[convert.LabelImage]; label != "" && !digests {
		s["image"] = label
	}
	set(s, "entrypoint", anyList(container.Command), container.Command != nil)
	set(s, "command", anyList(container.Args), container.Args != nil)
	set(s, "environment", anyList(container.Env), len(container.Env) > 0)
	set(s, "hostname", container.Hostname, container.Hostname != "")
	set(s, "working_dir", container.Dir, container.Dir != "")
	set(s, "user", container.User, container.User != "")
	set(s, "group_add", anyList(container.Groups), len(container.Groups) > 0)
	set(s, "stop_signal", container.StopSignal, container.StopSignal != "")
	set(s, "tty", true, container.TTY)
	set(s, "stdin_open", true, container.OpenStdin)
	set(s, "read_only", true, container.ReadOnly)
	set(s, "isolation", string(container.Isolation), container.Isolation != "")
	set(s, "oom_score_adj", container.OomScoreAdj, container.OomScoreAdj != 0)
	set(s, "cap_add", anyList(container.CapabilityAdd), len(container.CapabilityAdd) > 0)
	set(s, "cap_drop", anyList(container.CapabilityDrop), len(container.CapabilityDrop) > 0)
	set(s, "sysctls", anyMap(container.Sysctls), len(container.Sysctls) > 0)
	set(s, "labels", anyMap(without(container.Labels, convert.LabelNamespace)), len(container.Labels) > 1)
	if container.Init != nil {
		s["init"] = *container.Init
	}
	if container.StopGracePeriod != nil {
		s["stop_grace_period"] = container.StopGracePeriod.String()
	}
	var hosts []any
	for _, line := range container.Hosts {
		ip, host, _ := strings.Cut(line, " ")
		hosts = append(hosts, host+":"+ip)
	}
	set(s, "extra_hosts", hosts, len(hosts) > 0)
	if dns := container.DNSConfig; dns != nil {
		set(s, "dns", anyList(dns.Nameservers), len(dns.Nameservers) > 0)
		set(s, "dns_search", anyList(dns.Search), len(dns.Search) > 0)
		set(s, "dns_opt", anyList(dns.Options), len(dns.Options) > 0)
	}
	for _, u := range container.Ulimits {
		if u.Soft == u.Hard && u.Soft != 0 {
			within(s, "ulimits")[u.Name] = u.Soft
		} else {
			within(s, "ulimits")[u.Name] = map[string]any{"soft": u.Soft, "hard": u.Hard}
		}
	}
	healthcheck(s, container.Healthcheck)
	if driver := task.LogDriver; driver != nil {
		logging := within(s, "logging")
		set(logging, "driver", driver.Name, driver.Name != "")
		set(logging, "options", anyMap(driver.Options), len(driver.Options) > 0)
	}
	var mounts []any
	for _, m := range container.Mounts {
		mounts = append(mounts, e.volume(m))
	}
	set(s, "volumes", mounts, len(mounts) > 0)
	for _, ref := range container.Secrets {
		if ref.File != nil {
			s["secrets"] = append(list(s["secrets"]), e.data("secret", ref.SecretName, swarm.ConfigReferenceFileTarget(*ref.File)))
		}
	}
	for _, ref := range container.Configs {
		if ref.File != nil {
			s["configs"] = append(list(s["configs"]), e.data("config", ref.ConfigName, *ref.File))
		}
	}
	for _, n := range task.Networks {
		e.attach(s, n)
	}
	if endpoint := spec.EndpointSpec; endpoint != nil {
		for _, p := range endpoint.Ports {
			port := map[string]any{"target": int(p.TargetPort), "protocol": string(p.Protocol), "mode": string(p.PublishMode)}
			set(port, "published", strconv.Itoa(int(p.PublishedPort)), p.PublishedPort != 0)
			s["ports"] = append(list(s["ports"]), port)
		}
	}
	if deploy := e.deploy(spec); len(deploy) > 0 {
		s["deploy"] = deploy
	}
}

func healthcheck(s map[string]any, h *container.HealthConfig) {
	if h == nil {
		return
	}
	check := within(s, "healthcheck")
	if len(h.Test) == 1 && h.Test[0] == "NONE" {
		check["disable"] = true
		return
	}
	set(check, "test", anyList(h.Test), len(h.Test) > 0)
	set(check, "retries", h.Retries, h.Retries != 0)
	for key, d := range map[string]time.Duration{"interval": h.Interval, "timeout": h.Timeout, "start_period": h.StartPeriod, "start_interval": h.StartInterval} {
		set(check, key, d.String(), d != 0)
	}
}

// volume is a mount, and the volume that it is of.
func (e *export) volume(m mount.Mount) map[string]any {
	v := map[string]any{"type": string(m.Type), "target": m.Target}
	set(v, "read_only", true, m.ReadOnly)
	set(v, "consistency", string(m.Consistency), m.Consistency != "")
	set(v, "source", m.Source, m.Source != "")
	if m.BindOptions != nil {
		v["bind"] = map[string]any{"propagation": string(m.BindOptions.Propagation)}
	}
	if m.TmpfsOptions != nil {
		v["tmpfs"] = map[string]any{"size": m.TmpfsOptions.SizeBytes}
	}
	if m.ImageOptions != nil {
		v["image"] = map[string]any{"subpath": m.ImageOptions.Subpath}
	}
	o := m.VolumeOptions
	if m.Type != mount.TypeVolume || o == nil || m.Source == "" {
		return v
	}
	more := map[string]any{}
	set(more, "nocopy", true, o.NoCopy)
	set(more, "subpath", o.Subpath, o.Subpath != "")
	set(v, "volume", more, len(more) > 0)
	key := e.namespace.Descope(m.Source)
	v["source"] = key
	volume := within(e.file, "volumes", key)
	if o.Labels[convert.LabelNamespace] != e.name {
		volume["external"], volume["name"] = true, m.Source
		return v
	}
	set(volume, "name", m.Source, key == m.Source)
	set(volume, "labels", anyMap(without(o.Labels, convert.LabelNamespace)), len(o.Labels) > 1)
	if o.DriverConfig != nil {
		set(volume, "driver", o.DriverConfig.Name, o.DriverConfig.Name != "")
		set(volume, "driver_opts", anyMap(o.DriverConfig.Options), o.DriverConfig.Options != nil)
	}
	return v
}

// data is a reference to a secret or config, which it puts into the file.
func (e *export) data(kind, name string, target swarm.ConfigReferenceFileTarget) map[string]any {
	key := name
	entry := map[string]any{"external": true, "name": name}
	for _, c := range e.live.Configs {
		if kind != "config" || c.Spec.Name != name || c.Spec.Labels[convert.LabelNamespace] != e.name || !utf8.Valid(c.Spec.Data) {
			continue
		}
		entry = map[string]any{"content": string(c.Spec.Data)}
		set(entry, "template_driver", templatingOf(c.Spec), c.Spec.Templating != nil)
		labels := without(c.Spec.Labels, convert.LabelNamespace, cluster.LabelStackData)
		set(entry, "labels", anyMap(labels), len(labels) > 0)
		if of := c.Spec.Labels[cluster.LabelStackData]; of != "" {
			key = of
		} else if key = e.namespace.Descope(name); key == name {
			entry["name"] = name
		}
	}
	within(e.file, kind+"s")[key] = entry
	return map[string]any{"source": key, "target": target.Name, "uid": target.UID, "gid": target.GID, "mode": int(target.Mode)}
}

func templatingOf(spec swarm.ConfigSpec) string {
	if spec.Templating == nil {
		return ""
	}
	return spec.Templating.Name
}

// attach is a service's place in a network, which it puts into the file.
func (e *export) attach(s map[string]any, n swarm.NetworkAttachmentConfig) {
	var is network.Summary
	for _, known := range e.live.Networks {
		if known.ID == n.Target || known.Name == n.Target {
			is = known
		}
	}
	name := cmp.Or(is.Name, n.Target)
	if p, ok := cluster.PredefinedNetwork(n.Target); ok {
		name = p.Name
	}
	key := e.namespace.Descope(name)
	entry := within(e.file, "networks", key)
	if is.Labels[convert.LabelNamespace] != e.name {
		entry["external"], entry["name"] = true, name
	} else {
		set(entry, "name", name, key == name)
		set(entry, "driver", is.Driver, is.Driver != "overlay")
		set(entry, "driver_opts", anyMap(is.Options), len(is.Options) > 0)
		set(entry, "internal", true, is.Internal)
		set(entry, "attachable", true, is.Attachable)
		set(entry, "enable_ipv6", true, is.EnableIPv6)
		set(entry, "labels", anyMap(without(is.Labels, convert.LabelNamespace)), len(is.Labels) > 1)
	}
	place := map[string]any{}
	aliases := slices.Clone(n.Aliases)
	// The last one is the service's own name, which it has anyway.
	if last := len(aliases) - 1; last >= 0 && mapping(e.file["services"])[aliases[last]] != nil {
		aliases = aliases[:last]
	}
	set(place, "aliases", anyList(aliases), len(aliases) > 0)
	set(place, "driver_opts", anyMap(n.DriverOpts), len(n.DriverOpts) > 0)
	within(s, "networks")[key] = place
}

func (e *export) deploy(spec swarm.ServiceSpec) map[string]any {
	d := map[string]any{}
	switch mode := spec.Mode; {
	case mode.Replicated != nil:
		if mode.Replicated.Replicas != nil {
			d["replicas"] = int(*mode.Replicated.Replicas)
		}
	case mode.Global != nil:
		d["mode"] = "global"
	case mode.GlobalJob != nil:
		d["mode"] = "global-job"
	case mode.ReplicatedJob != nil:
		d["mode"] = "replicated-job"
		if mode.ReplicatedJob.TotalCompletions != nil {
			d["replicas"] = int(*mode.ReplicatedJob.TotalCompletions)
		}
	}
	labels := without(spec.Labels, convert.LabelNamespace, convert.LabelImage)
	set(d, "labels", anyMap(labels), len(labels) > 0)
	if e := spec.EndpointSpec; e != nil {
		set(d, "endpoint_mode", string(e.Mode), e.Mode != "" && e.Mode != swarm.ResolutionModeVIP)
	}
	updates(d, "update_config", spec.UpdateConfig)
	updates(d, "rollback_config", spec.RollbackConfig)
	task := spec.TaskTemplate
	if p := task.RestartPolicy; p != nil {
		policy := within(d, "restart_policy")
		set(policy, "condition", string(p.Condition), p.Condition != "")
		if p.MaxAttempts != nil {
			policy["max_attempts"] = int(*p.MaxAttempts)
		}
		for key, value := range map[string]*time.Duration{"delay": p.Delay, "window": p.Window} {
			if value != nil {
				policy[key] = value.String()
			}
		}
	}
	if p := task.Placement; p != nil {
		placement := map[string]any{}
		set(placement, "constraints", anyList(p.Constraints), len(p.Constraints) > 0)
		set(placement, "max_replicas_per_node", int(p.MaxReplicas), p.MaxReplicas != 0)
		var spread []any
		for _, preference := range p.Preferences {
			if preference.Spread != nil {
				spread = append(spread, map[string]any{"spread": preference.Spread.SpreadDescriptor})
			}
		}
		set(placement, "preferences", spread, len(spread) > 0)
		set(d, "placement", placement, len(placement) > 0)
	}
	if r := task.Resources; r != nil {
		if l := r.Limits; l != nil {
			limits := within(d, "resources", "limits")
			amounts(limits, l.NanoCPUs, l.MemoryBytes)
			set(limits, "pids", int(l.Pids), l.Pids != 0)
		}
		if l := r.Reservations; l != nil {
			reservations := within(d, "resources", "reservations")
			amounts(reservations, l.NanoCPUs, l.MemoryBytes)
			for _, g := range l.GenericResources {
				if g.DiscreteResourceSpec != nil {
					reservations["generic_resources"] = append(list(reservations["generic_resources"]), map[string]any{
						"discrete_resource_spec": map[string]any{"kind": g.DiscreteResourceSpec.Kind, "value": int(g.DiscreteResourceSpec.Value)},
					})
				}
			}
		}
	}
	return d
}

func amounts(m map[string]any, cpus, memory int64) {
	set(m, "cpus", strconv.FormatFloat(float64(cpus)/1e9, 'f', -1, 64), cpus != 0)
	set(m, "memory", strconv.FormatInt(memory, 10), memory != 0)
}

func updates(d map[string]any, key string, u *swarm.UpdateConfig) {
	if u == nil {
		return
	}
	c := within(d, key)
	c["parallelism"] = int(u.Parallelism)
	set(c, "delay", u.Delay.String(), u.Delay != 0)
	set(c, "monitor", u.Monitor.String(), u.Monitor != 0)
	set(c, "failure_action", u.FailureAction, u.FailureAction != "")
	set(c, "max_failure_ratio", u.MaxFailureRatio, u.MaxFailureRatio != 0)
	set(c, "order", u.Order, u.Order != "")
}

func without(labels map[string]string, names ...string) map[string]string {
	left := maps.Clone(labels)
	for _, name := range names {
		delete(left, name)
	}
	return left
}

func anyList(values []string) []any {
	all := make([]any, len(values))
	for i, value := range values {
		all[i] = value
	}
	return all
}

func anyMap(values map[string]string) map[string]any {
	all := make(map[string]any, len(values))
	for key, value := range values {
		all[key] = value
	}
	return all
}
