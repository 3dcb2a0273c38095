package docker

import (
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
)

// expand returns the container spec with the templates in the environment, the
// hostname and the mounts filled in, as Swarm does.
func expand(a agent.Assignment) (*swarm.ContainerSpec, error) {
	x := agent.NewTemplate(a)
	c := *a.Revision.Spec.ContainerSpec
	c.Hostname = x.Expand("hostname", c.Hostname)
	c.Env = x.Env()
	mounts := c.Mounts
	c.Mounts = nil
	for _, m := range mounts {
		m, err := expandMount(m, x)
		if err == nil {
			err = checkMount(m)
		}
		if err != nil {
			return nil, err
		}
		c.Mounts = append(c.Mounts, m)
	}
	return &c, x.Err()
}

// expandMount returns m with its templates expanded.
func expandMount(m mount.Mount, x *agent.Template) (mount.Mount, error) {
	m.Source = x.Expand("mount source", m.Source)
	m.Target = x.Expand("mount target", m.Target)
	if m.VolumeOptions != nil {
		options := *m.VolumeOptions
		options.Labels = expandMap(x, "volume label", options.Labels)
		if options.DriverConfig != nil {
			driver := *options.DriverConfig
			driver.Options = expandMap(x, "volume driver option", driver.Options)
			options.DriverConfig = &driver
		}
		m.VolumeOptions = &options
	}
	return m, x.Err()
}

// expandMap fills in the values of a map.
func expandMap(x *agent.Template, what string, from map[string]string) map[string]string {
	if from == nil {
		return nil
	}
	to := make(map[string]string, len(from))
	for key, value := range from {
		to[key] = x.Expand(what+" "+key, value)
	}
	return to
}
