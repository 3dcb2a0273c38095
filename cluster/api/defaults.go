package api

import (
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// normalize fills in what clients count on finding in what they sent: a number
// of replicas, the runtime, the endpoint's mode, words for what was left empty.
func normalize(spec *swarm.ServiceSpec) {
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	if modes(spec.Mode) == 0 {
		spec.Mode.Replicated = &swarm.ReplicatedService{}
	}
	if replicated := spec.Mode.Replicated; replicated != nil && replicated.Replicas == nil {
		one := uint64(1)
		spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &one}
	}
	if job := spec.Mode.ReplicatedJob; job != nil && (job.MaxConcurrent == nil || job.TotalCompletions == nil) {
		full := *job
		if full.MaxConcurrent == nil {
			full.MaxConcurrent = ptr(uint64(1))
		}
		if full.TotalCompletions == nil {
			full.TotalCompletions = full.MaxConcurrent
		}
		spec.Mode.ReplicatedJob = &full
	}
	normalizeNetworks(spec)
	if spec.TaskTemplate.Runtime == "" {
		spec.TaskTemplate.Runtime = swarm.RuntimeContainer
	}
	if spec.EndpointSpec != nil && spec.EndpointSpec.Mode == "" {
		spec.EndpointSpec.Mode = swarm.ResolutionModeVIP
	}
	if spec.EndpointSpec != nil {
		for i := range spec.EndpointSpec.Ports {
			port := &spec.EndpointSpec.Ports[i]
			if port.Protocol == "" {
				port.Protocol = swarm.PortConfigProtocolTCP
			}
			if port.PublishMode == "" {
				port.PublishMode = swarm.PortConfigPublishModeIngress
			}
		}
	}
	if policy := spec.TaskTemplate.RestartPolicy; policy != nil && policy.Condition == "" {
		policy.Condition = swarm.RestartPolicyConditionAny
	}
	for _, config := range []*swarm.UpdateConfig{spec.UpdateConfig, spec.RollbackConfig} {
		if config == nil {
			continue
		}
		if config.FailureAction == "" {
			config.FailureAction = swarm.UpdateFailureActionPause
		}
		if config.Order == "" {
			config.Order = swarm.UpdateOrderStopFirst
		}
	}
}

// normalizeNetworks has networks where they belong, as Swarm does.
func normalizeNetworks(spec *swarm.ServiceSpec) {
	//lint:ignore SA1019 deprecated, but old clients send it
	old := &spec.Networks
	if len(spec.TaskTemplate.Networks) == 0 {
		spec.TaskTemplate.Networks = *old
	}
	*old = nil
}

// modes counts the modes that are set.
func modes(mode swarm.ServiceMode) int {
	count := 0
	for _, set := range []bool{mode.Replicated != nil, mode.Global != nil, mode.ReplicatedJob != nil, mode.GlobalJob != nil} {
		if set {
			count++
		}
	}
	return count
}

// withDefaults returns the spec with all that was left out filled in, for clients
// that ask to see it. It is never stored.
func withDefaults(spec swarm.ServiceSpec) swarm.ServiceSpec {
	task := &spec.TaskTemplate
	if task.ContainerSpec != nil {
		container := *task.ContainerSpec
		if container.StopGracePeriod == nil {
			container.StopGracePeriod = ptr(10 * time.Second)
		}
		if container.DNSConfig == nil {
			container.DNSConfig = &swarm.DNSConfig{}
		}
		task.ContainerSpec = &container
	}
	if task.Resources == nil {
		task.Resources = &swarm.ResourceRequirements{}
	}
	policy := swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny}
	if task.RestartPolicy != nil {
		policy = *task.RestartPolicy
	}
	if policy.Delay == nil {
		policy.Delay = ptr(5 * time.Second)
	}
	if policy.MaxAttempts == nil {
		policy.MaxAttempts = ptr(uint64(0))
	}
	task.RestartPolicy = &policy
	if task.Placement == nil {
		task.Placement = &swarm.Placement{}
	}
	if spec.Mode.ReplicatedJob == nil && spec.Mode.GlobalJob == nil { // which have none, and may not be sent back with one
		spec.UpdateConfig = withUpdateDefaults(spec.UpdateConfig)
		spec.RollbackConfig = withUpdateDefaults(spec.RollbackConfig)
	}
	return spec
}

func withUpdateDefaults(config *swarm.UpdateConfig) *swarm.UpdateConfig {
	if config == nil {
		return &swarm.UpdateConfig{
			Parallelism: 1, FailureAction: swarm.UpdateFailureActionPause,
			Monitor: 5 * time.Second, Order: swarm.UpdateOrderStopFirst,
		}
	}
	full := *config
	if full.Monitor == 0 {
		full.Monitor = 5 * time.Second
	}
	return &full
}

func ptr[T any](v T) *T { return &v }

// adjustForVersion clears what the client's API version didn't have yet, as moby
// does: a client of that age can't have meant it. Modes are left as they are: a
// job must never be taken for a replicated service.
func adjustForVersion(r *request, spec *swarm.ServiceSpec) {
	task, container := &spec.TaskTemplate, spec.TaskTemplate.ContainerSpec
	if container == nil {
		container = &swarm.ContainerSpec{}
	}
	if r.before("1.40") {
		container.Sysctls = nil
		if container.Privileges != nil && container.Privileges.CredentialSpec != nil {
			container.Privileges.CredentialSpec.Config = ""
		}
		if task.Placement != nil {
			task.Placement.MaxReplicas = 0
		}
	}
	if r.before("1.41") {
		container.CapabilityAdd, container.CapabilityDrop, container.Ulimits = nil, nil, nil
		if task.Resources != nil && task.Resources.Limits != nil {
			task.Resources.Limits.Pids = 0
		}
	}
	if r.before("1.44") {
		if container.Privileges != nil {
			container.Privileges.Seccomp, container.Privileges.AppArmor, container.Privileges.NoNewPrivileges = nil, nil, false
		}
		if container.Healthcheck != nil {
			container.Healthcheck.StartInterval = 0
		}
	}
	if r.before("1.46") {
		container.OomScoreAdj = 0
		for i := range container.Mounts {
			if container.Mounts[i].TmpfsOptions != nil {
				container.Mounts[i].TmpfsOptions.Options = nil
			}
		}
	}
}
