package docker

import (
	"path"
	"slices"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Check says what of a task's spec this driver can't do, with an error that wraps
// cluster.ErrUnsupported or cluster.ErrInvalid; nil means it can do all of it.
// Nothing that a user asked for is ever left out in silence.
func Check(spec swarm.TaskSpec, endpoint *swarm.EndpointSpec) error {
	if spec.Runtime != "" && spec.Runtime != swarm.RuntimeContainer || spec.PluginSpec != nil || spec.NetworkAttachmentSpec != nil {
		return cluster.Errorf(cluster.ErrUnsupported, "only services of containers are supported")
	}
	c := spec.ContainerSpec
	if c == nil || c.Image == "" {
		return cluster.Errorf(cluster.ErrInvalid, "no image was given")
	}
	if c.Privileges != nil && c.Privileges.CredentialSpec != nil {
		return cluster.Errorf(cluster.ErrUnsupported, "credential specs are not supported: they are for Windows only")
	}
	if p := c.Privileges; p != nil {
		if p.Seccomp != nil && p.Seccomp.Mode == swarm.SeccompModeCustom && len(p.Seccomp.Profile) == 0 {
			return cluster.Errorf(cluster.ErrInvalid, "the seccomp profile is empty")
		}
	}
	if err := checkNetworks(spec.Networks, endpoint); err != nil {
		return err
	}
	for _, m := range c.Mounts {
		if err := checkMount(m); err != nil {
			return err
		}
	}
	return nil
}

// checkNetworks refuses what an engine does: the node's own stack, or none, beside other networks.
func checkNetworks(networks []swarm.NetworkAttachmentConfig, endpoint *swarm.EndpointSpec) error {
	for _, config := range networks {
		n, predefined := cluster.PredefinedNetwork(config.Target)
		if predefined && (len(config.Aliases) > 0 || len(config.DriverOpts) > 0) {
			return cluster.Errorf(cluster.ErrUnsupported, "network %s: aliases and driver options are for networks of the cluster", n.Name)
		}
		if predefined && n.Name != "bridge" && (len(networks) > 1 || publishes(endpoint)) {
			return cluster.Errorf(cluster.ErrUnsupported, "network %s: a task on it can be on no other network, and publish no port on all nodes", n.Name)
		}
	}
	return nil
}

// publishes tells whether ports are published on all nodes, for which the ingress network is needed.
func publishes(endpoint *swarm.EndpointSpec) bool {
	return endpoint != nil && slices.ContainsFunc(endpoint.Ports, func(p swarm.PortConfig) bool { return p.PublishMode != swarm.PortConfigPublishModeHost })
}

// checkMount looks for what the engine would take for something else.
func checkMount(m mount.Mount) error {
	if !path.IsAbs(m.Target) {
		return cluster.Errorf(cluster.ErrInvalid, "invalid mount target, must be an absolute path: %s", m.Target)
	}
	if cluster.Climbs(m.Target) {
		return cluster.Errorf(cluster.ErrInvalid, "invalid mount target, must not have .. in it: %s", m.Target)
	}
	switch m.Type {
	case mount.TypeBind:
		if !path.IsAbs(m.Source) {
			return cluster.Errorf(cluster.ErrInvalid, "invalid bind mount source, must be an absolute path: %s", m.Source)
		}
	case mount.TypeVolume:
		if path.IsAbs(m.Source) {
			return cluster.Errorf(cluster.ErrInvalid, "invalid volume mount source, must not be an absolute path: %s", m.Source)
		}
	case mount.TypeTmpfs:
		if m.Source != "" {
			return cluster.Errorf(cluster.ErrInvalid, "invalid tmpfs source, source must be empty")
		}
	case mount.TypeImage:
		if m.Source == "" {
			return cluster.Errorf(cluster.ErrInvalid, "invalid image mount source, must be an image")
		}
	default:
		return cluster.Errorf(cluster.ErrUnsupported, "mounts of type %s are not supported: use bind, volume, tmpfs or image", m.Type)
	}
	return nil
}
