package api

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	maxNameLength = 63 // of a DNS label
	minMemory     = 4 << 20
	minNanoCPUs   = 1e6
	minDuration   = time.Millisecond
	maxPort       = 1<<16 - 1
	// maxReplicas keeps one mistyped number from filling the managers' memory.
	maxReplicas = 1_000_000
)

// checkServiceSpec refuses a spec that makes no sense (400), or that asks for what
// skep doesn't do yet (501). The texts of the former are Swarm's.
func checkServiceSpec(spec *swarm.ServiceSpec) error {
	switch {
	case spec.Name == "":
		return fail(cluster.ErrInvalid, "meta: name must be provided")
	case !cluster.IsServiceName(spec.Name):
		return fail(cluster.ErrInvalid, "name must be valid as a DNS name component")
	case len(spec.Name) > maxNameLength:
		return fail(cluster.ErrInvalid, "name must be %d characters or fewer", maxNameLength)
	}
	for _, check := range []func(*swarm.ServiceSpec) error{checkLabels, checkMode, checkUpdates, checkEndpoint} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return checkTask(&spec.TaskTemplate)
}

func checkMode(spec *swarm.ServiceSpec) error {
	switch {
	case modes(spec.Mode) > 1:
		return fail(cluster.ErrInvalid, "must specify only one service mode")
	case spec.Mode.ReplicatedJob != nil, spec.Mode.GlobalJob != nil:
		return checkJob(spec)
	case spec.Mode.Global != nil:
		return checkOnePerNode(spec)
	case spec.Mode.Replicated == nil || spec.Mode.Replicated.Replicas == nil:
		return fail(cluster.ErrInvalid, "Unrecognized service mode")
	case int64(*spec.Mode.Replicated.Replicas) < 0:
		return fail(cluster.ErrInvalid, "Number of replicas must be non-negative")
	case *spec.Mode.Replicated.Replicas > maxReplicas:
		return fail(cluster.ErrInvalid, "Number of replicas must not be over %d", maxReplicas)
	}
	return nil
}

func checkJob(spec *swarm.ServiceSpec) error {
	switch {
	case spec.UpdateConfig != nil:
		return fail(cluster.ErrInvalid, "Jobs may not have an update config")
	case spec.RollbackConfig != nil:
		return fail(cluster.ErrInvalid, "Jobs may not have a rollback config")
	}
	job := spec.Mode.ReplicatedJob
	if job == nil {
		return checkOnePerNode(spec)
	}
	switch {
	case job.MaxConcurrent == nil || job.TotalCompletions == nil:
		return fail(cluster.ErrInvalid, "Unrecognized service mode")
	case int64(*job.MaxConcurrent) < 0:
		return fail(cluster.ErrInvalid, "Maximum concurrent jobs must not be negative")
	case int64(*job.TotalCompletions) < 0:
		return fail(cluster.ErrInvalid, "Total completed jobs must not be negative")
	case *job.TotalCompletions > maxReplicas:
		return fail(cluster.ErrInvalid, "Total completed jobs must not be over %d", maxReplicas)
	case *job.MaxConcurrent == 0 && *job.TotalCompletions > 0:
		return fail(cluster.ErrInvalid, "Maximum concurrent jobs must be at least 1, or none would ever run")
	}
	return nil
}

func checkOnePerNode(spec *swarm.ServiceSpec) error {
	if p := spec.TaskTemplate.Placement; p != nil && p.MaxReplicas > 0 {
		return fail(cluster.ErrInvalid, "replicas-max-per-node can only be used with replicated or replicated-job mode")
	}
	return nil
}

func checkUpdates(spec *swarm.ServiceSpec) error {
	if err := checkUpdate("update", spec.UpdateConfig, true); err != nil {
		return err
	}
	return checkUpdate("rollback", spec.RollbackConfig, false)
}

func checkUpdate(name string, config *swarm.UpdateConfig, rollback bool) error {
	if config == nil {
		return nil
	}
	switch {
	case config.Delay < 0:
		return fail(cluster.ErrInvalid, "TaskSpec: %s-delay cannot be negative", name)
	case config.Monitor < 0:
		return fail(cluster.ErrInvalid, "TaskSpec: %s-monitor cannot be negative", name)
	case !(config.MaxFailureRatio >= 0 && config.MaxFailureRatio <= 1):
		return fail(cluster.ErrInvalid, "TaskSpec: %s-maxfailureratio cannot be less than 0 or bigger than 1", name)
	case config.Order != swarm.UpdateOrderStopFirst && config.Order != swarm.UpdateOrderStartFirst:
		return fail(cluster.ErrInvalid, "unrecognized %s order %s", name, config.Order)
	}
	switch config.FailureAction {
	case swarm.UpdateFailureActionPause, swarm.UpdateFailureActionContinue:
		return nil
	case swarm.UpdateFailureActionRollback:
		if rollback {
			return nil
		}
	}
	return fail(cluster.ErrInvalid, "unrecognized %s failure action %s", name, config.FailureAction)
}

func checkEndpoint(spec *swarm.ServiceSpec) error {
	endpoint := spec.EndpointSpec
	if endpoint == nil {
		return nil
	}
	if endpoint.Mode != swarm.ResolutionModeVIP && endpoint.Mode != swarm.ResolutionModeDNSRR {
		return fail(cluster.ErrInvalid, "invalid Endpoint mode: %q", string(endpoint.Mode))
	}
	type published struct {
		port     uint32
		protocol swarm.PortConfigProtocol
	}
	seen := map[published]bool{}
	for i, port := range endpoint.Ports {
		field := fmt.Sprintf("EndpointSpec.Ports[%d]", i)
		switch port.Protocol {
		case swarm.PortConfigProtocolTCP, swarm.PortConfigProtocolUDP, swarm.PortConfigProtocolSCTP:
		default:
			return fail(cluster.ErrInvalid, "%s.Protocol: invalid protocol %q: there are tcp, udp and sctp", field, string(port.Protocol))
		}
		switch port.PublishMode {
		case swarm.PortConfigPublishModeHost:
		case swarm.PortConfigPublishModeIngress:
			if endpoint.Mode == swarm.ResolutionModeDNSRR {
				return fail(cluster.ErrInvalid, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
			}
		default:
			return fail(cluster.ErrInvalid, "%s.PublishMode: invalid publish mode %q", field, string(port.PublishMode))
		}
		switch key := (published{port.PublishedPort, port.Protocol}); {
		case port.TargetPort == 0 || port.TargetPort > maxPort:
			return fail(cluster.ErrInvalid, "%s.TargetPort: invalid port %d: must be from 1 to %d", field, port.TargetPort, maxPort)
		case port.PublishedPort > maxPort:
			return fail(cluster.ErrInvalid, "%s.PublishedPort: invalid port %d: must be from 1 to %d, or 0 to have one chosen", field, port.PublishedPort, maxPort)
		case port.PublishedPort != 0 && seen[key]:
			return fail(cluster.ErrInvalid, "EndpointSpec: duplicate published ports provided")
		default:
			seen[key] = true
		}
	}
	return nil
}

func checkTask(task *swarm.TaskSpec) error {
	switch {
	case task.Runtime != swarm.RuntimeContainer:
		return unsupported("TaskTemplate.Runtime "+string(task.Runtime), "services run containers")
	case task.PluginSpec != nil, task.NetworkAttachmentSpec != nil:
		return unsupported("TaskTemplate.PluginSpec and NetworkAttachmentSpec", "services run containers")
	case task.ContainerSpec == nil:
		return fail(cluster.ErrInvalid, "TaskSpec: missing runtime")
	}
	if err := checkResources(task.Resources); err != nil {
		return err
	}
	if policy := task.RestartPolicy; policy != nil {
		switch {
		case policy.Delay != nil && *policy.Delay < 0:
			return fail(cluster.ErrInvalid, "TaskSpec: restart-delay cannot be negative")
		case policy.Window != nil && *policy.Window < 0:
			return fail(cluster.ErrInvalid, "TaskSpec: restart-window cannot be negative")
		}
		switch policy.Condition {
		case swarm.RestartPolicyConditionAny, swarm.RestartPolicyConditionNone, swarm.RestartPolicyConditionOnFailure:
		default:
			return fail(cluster.ErrInvalid, "invalid RestartPolicyCondition: %q", string(policy.Condition))
		}
	}
	if placement := task.Placement; placement != nil {
		if err := cluster.CheckConstraints(placement.Constraints); err != nil {
			return err
		}
		if err := cluster.CheckPreferences(placement.Preferences); err != nil {
			return err
		}
	}
	return checkContainer(task.ContainerSpec)
}

func checkResources(resources *swarm.ResourceRequirements) error {
	if resources == nil {
		return nil
	}
	check := func(cpu, memory int64) error {
		if cpu != 0 && cpu < minNanoCPUs {
			return fail(cluster.ErrInvalid, "invalid cpu value %g: Must be at least %g", float64(cpu)/1e9, minNanoCPUs/1e9)
		}
		if memory != 0 && memory < minMemory {
			return fail(cluster.ErrInvalid, "invalid memory value %d: Must be at least 4MiB", memory)
		}
		return nil
	}
	if limits := resources.Limits; limits != nil {
		if err := check(limits.NanoCPUs, limits.MemoryBytes); err != nil {
			return err
		}
		if limits.Pids < 0 {
			return fail(cluster.ErrInvalid, "invalid pids limit %d: Must not be negative", limits.Pids)
		}
	}
	if reserved := resources.Reservations; reserved != nil {
		if err := checkGeneric(reserved.GenericResources); err != nil {
			return err
		}
		return check(reserved.NanoCPUs, reserved.MemoryBytes)
	}
	return nil
}

var genericKind = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// checkGeneric refuses what isn't a number of some kind; the kind becomes part of
// the name of a variable in the container.
func checkGeneric(resources []swarm.GenericResource) error {
	seen := map[string]bool{}
	for i, g := range resources {
		field := fmt.Sprintf("Reservations.GenericResources[%d]", i)
		d := g.DiscreteResourceSpec
		switch {
		case g.NamedResourceSpec != nil || d == nil:
			return fail(cluster.ErrInvalid, "%s: a service asks for a number of a kind, such as gpu=2; which ones it gets is for the scheduler to choose", field)
		case !genericKind.MatchString(d.Kind):
			return fail(cluster.ErrInvalid, "%s: invalid kind %q: letters, digits, _, . and - will do", field, d.Kind)
		case d.Value <= 0:
			return fail(cluster.ErrInvalid, "%s: invalid number of %s: %d, must be at least 1", field, d.Kind, d.Value)
		case seen[strings.ToUpper(d.Kind)]:
			return fail(cluster.ErrInvalid, "%s: %s is asked for twice", field, d.Kind)
		}
		seen[strings.ToUpper(d.Kind)] = true
	}
	return nil
}

func checkContainer(spec *swarm.ContainerSpec) error {
	if spec.Image == "" {
		return fail(cluster.ErrInvalid, "ContainerSpec: image reference must be provided")
	}
	if _, err := reference.ParseNormalizedNamed(spec.Image); err != nil {
		return fail(cluster.ErrInvalid, "ContainerSpec: %q is not a valid repository/tag", spec.Image)
	}
	switch {
	case !spec.Isolation.IsDefault():
		return unsupported("ContainerSpec.Isolation", "leave --isolation out: it is for Windows")
	case spec.StopGracePeriod != nil && *spec.StopGracePeriod < 0:
		return fail(cluster.ErrInvalid, "ContainerSpec: StopGracePeriod cannot be negative")
	case spec.Dir != "" && !path.IsAbs(spec.Dir):
		return fail(cluster.ErrInvalid, "ContainerSpec: the working directory %q must be an absolute path", spec.Dir)
	case spec.OomScoreAdj < -1000 || spec.OomScoreAdj > 1000:
		return fail(cluster.ErrInvalid, "ContainerSpec: OomScoreAdj must be from -1000 to 1000, not %d", spec.OomScoreAdj)
	}
	for _, check := range []func(*swarm.ContainerSpec) error{checkPrivileges, checkHosts, checkUlimits, checkReferences} {
		if err := check(spec); err != nil {
			return err
		}
	}
	for _, env := range spec.Env {
		switch name, _, _ := strings.Cut(env, "="); { // its value may be secret
		case name == "":
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid environment variable: a name must be given")
		case strings.ContainsFunc(name, commands):
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid environment variable %.100q: a name has no control characters", name)
		}
	}
	if err := checkMounts(spec.Mounts); err != nil {
		return err
	}
	if err := checkTemplates(spec); err != nil {
		return err
	}
	return checkHealth(spec.Healthcheck)
}

// checkTemplates refuses templates that no node could read.
func checkTemplates(spec *swarm.ContainerSpec) error {
	actions := 0
	check := func(what, text string) error {
		if actions += strings.Count(text, "{{"); actions > cluster.MaxActions {
			return fail(cluster.ErrInvalid, "ContainerSpec: its templates have more than %d actions together", cluster.MaxActions)
		}
		if fault := cluster.CheckTemplate(text); fault != nil {
			return fail(cluster.ErrInvalid, "ContainerSpec: the template in the %.100s is not valid: %v", what, fault)
		}
		return nil
	}
	checkAll := func(what string, texts map[string]string) error {
		for name, text := range texts {
			if err := check(what+" "+name, text); err != nil {
				return err
			}
		}
		return nil
	}
	if err := check("hostname", spec.Hostname); err != nil {
		return err
	}
	for _, env := range spec.Env {
		name, value, _ := strings.Cut(env, "=")
		if err := check("environment variable "+name, value); err != nil {
			return err
		}
	}
	for _, m := range spec.Mounts {
		err := cmp.Or(check("mount source", m.Source), check("mount target", m.Target))
		if v := m.VolumeOptions; v != nil && err == nil {
			err = checkAll("volume label", v.Labels)
			if v.DriverConfig != nil && err == nil {
				err = checkAll("volume driver option", v.DriverConfig.Options)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkPrivileges(spec *swarm.ContainerSpec) error {
	p := spec.Privileges
	if p == nil {
		return nil
	}
	if p.CredentialSpec != nil {
		return unsupported("ContainerSpec.Privileges.CredentialSpec", "leave --credential-spec out: it is for Windows")
	}
	if s := p.SELinuxContext; s != nil && s.Disable && (s.User != "" || s.Role != "" || s.Type != "" || s.Level != "") {
		return fail(cluster.ErrInvalid, "ContainerSpec: SELinuxContext is disabled and can't have a user, role, type or level")
	}
	if p.Seccomp != nil {
		switch p.Seccomp.Mode {
		case swarm.SeccompModeCustom:
			if len(p.Seccomp.Profile) == 0 {
				return fail(cluster.ErrInvalid, "ContainerSpec: the custom seccomp profile is empty")
			}
		case "", swarm.SeccompModeDefault, swarm.SeccompModeUnconfined:
			if len(p.Seccomp.Profile) > 0 {
				return fail(cluster.ErrInvalid, "ContainerSpec: a seccomp profile needs the mode custom, not %q", string(p.Seccomp.Mode))
			}
		default:
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid seccomp mode %q", string(p.Seccomp.Mode))
		}
	}
	if p.AppArmor != nil {
		switch p.AppArmor.Mode {
		case "", swarm.AppArmorModeDefault, swarm.AppArmorModeDisabled:
		default:
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid AppArmor mode %q", string(p.AppArmor.Mode))
		}
	}
	return nil
}

// checkHosts looks at what goes into the containers' hosts file and resolv.conf.
func checkHosts(spec *swarm.ContainerSpec) error {
	for _, line := range spec.Hosts {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "host-gateway" && net.ParseIP(fields[0]) == nil {
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid host entry %q: must be an IP address and a name", line)
		}
	}
	if spec.DNSConfig == nil {
		return nil
	}
	for _, address := range spec.DNSConfig.Nameservers {
		if net.ParseIP(address) == nil {
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid name server %q: must be an IP address", address)
		}
	}
	return nil
}

func checkUlimits(spec *swarm.ContainerSpec) error {
	for _, u := range spec.Ulimits {
		switch {
		case u == nil || u.Name == "":
			return fail(cluster.ErrInvalid, "ContainerSpec: an ulimit must have a name")
		case u.Hard >= 0 && (u.Soft < 0 || u.Soft > u.Hard): // -1 is no limit
			return fail(cluster.ErrInvalid, "ContainerSpec: ulimit %s: the soft limit must not be over the hard limit (%d > %d)", u.Name, u.Soft, u.Hard)
		}
	}
	return nil
}

// checkMounts accepts a volume whose target is no path from the root, since that is what a compose
// file says by the name of a volume alone, and Swarm deploys it: nodes reject the tasks with the reason.
func checkMounts(mounts []mount.Mount) error {
	seen := map[string]bool{}
	for _, m := range mounts {
		switch m.Type {
		case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
		case mount.TypeNamedPipe, mount.TypeCluster:
			return unsupported("mounts of type "+string(m.Type), "use type bind, volume, tmpfs or image")
		default:
			return fail(cluster.ErrInvalid, "ContainerSpec: invalid mount type %q", string(m.Type))
		}
		switch {
		case m.Target == "" || !path.IsAbs(m.Target) && m.Type != mount.TypeVolume:
			return fail(cluster.ErrInvalid, "invalid mount target, must be an absolute path: %s", m.Target)
		case cluster.Climbs(m.Target):
			return fail(cluster.ErrInvalid, "invalid mount target, must not have .. in it: %s", m.Target)
		case m.Type == mount.TypeBind && !path.IsAbs(m.Source):
			return fail(cluster.ErrInvalid, "invalid bind mount source, must be an absolute path: %s", m.Source)
		case m.Type == mount.TypeVolume && path.IsAbs(m.Source):
			return fail(cluster.ErrInvalid, "invalid volume mount source, must not be an absolute path: %s", m.Source)
		case m.Type == mount.TypeTmpfs && m.Source != "":
			return fail(cluster.ErrInvalid, "invalid tmpfs source, source must be empty")
		case m.Type == mount.TypeImage && m.Source == "":
			return fail(cluster.ErrInvalid, "invalid image mount source, must be an image")
		case seen[path.Clean(m.Target)]:
			return fail(cluster.ErrInvalid, "ContainerSpec: duplicate mount point: %s", m.Target)
		}
		seen[path.Clean(m.Target)] = true
		if err := checkMountOptions(m); err != nil {
			return err
		}
	}
	return nil
}

// checkMountOptions refuses options that don't go with the type of the mount, which
// an engine would ignore, and values that mean nothing.
func checkMountOptions(m mount.Mount) error {
	for _, o := range []struct {
		of   mount.Type
		name string
		set  bool
	}{
		{mount.TypeBind, "BindOptions", m.BindOptions != nil},
		{mount.TypeVolume, "VolumeOptions", m.VolumeOptions != nil},
		{mount.TypeTmpfs, "TmpfsOptions", m.TmpfsOptions != nil},
		{mount.TypeImage, "ImageOptions", m.ImageOptions != nil},
		{mount.TypeCluster, "ClusterOptions", m.ClusterOptions != nil},
	} {
		if o.set && o.of != m.Type {
			return fail(cluster.ErrInvalid, "ContainerSpec: mount %s: %s can't be used with a mount of type %s", m.Target, o.name, m.Type)
		}
	}
	switch m.Consistency {
	case "", mount.ConsistencyDefault, mount.ConsistencyFull, mount.ConsistencyCached, mount.ConsistencyDelegated:
	default:
		return fail(cluster.ErrInvalid, "ContainerSpec: mount %s: invalid consistency %q", m.Target, string(m.Consistency))
	}
	if b := m.BindOptions; b != nil {
		switch {
		case b.Propagation != "" && !slices.Contains(mount.Propagations, b.Propagation):
			return fail(cluster.ErrInvalid, "ContainerSpec: mount %s: invalid propagation mode %q", m.Target, string(b.Propagation))
		case (b.ReadOnlyNonRecursive || b.ReadOnlyForceRecursive) && !m.ReadOnly:
			return fail(cluster.ErrInvalid, "ContainerSpec: mount %s: ReadOnlyNonRecursive and ReadOnlyForceRecursive need ReadOnly", m.Target)
		}
	}
	if t := m.TmpfsOptions; t != nil && t.SizeBytes < 0 {
		return fail(cluster.ErrInvalid, "ContainerSpec: mount %s: the size of a tmpfs can't be negative", m.Target)
	}
	return nil
}

func checkHealth(check *container.HealthConfig) error {
	if check == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", check.Interval}, {"Timeout", check.Timeout}, {"StartPeriod", check.StartPeriod}, {"StartInterval", check.StartInterval}} {
		if d.value != 0 && d.value < minDuration {
			return fail(cluster.ErrInvalid, "ContainerSpec: %s in HealthConfig cannot be less than %s", d.name, minDuration)
		}
	}
	if len(check.Test) > 0 {
		switch kind := check.Test[0]; kind { // an engine takes other words for no check at all
		case "", "NONE":
		case "CMD", "CMD-SHELL":
			if len(check.Test) == 1 {
				return fail(cluster.ErrInvalid, "ContainerSpec: Test in HealthConfig has no command")
			}
		default:
			return fail(cluster.ErrInvalid, "ContainerSpec: Test in HealthConfig must begin with NONE, CMD or CMD-SHELL, not %q", kind)
		}
	}
	if check.Retries < 0 {
		return fail(cluster.ErrInvalid, "ContainerSpec: Retries in HealthConfig cannot be negative")
	}
	return nil
}
