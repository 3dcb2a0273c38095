package simulate

import (
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

// The engine's choice of ports, as Linux has it.
const (
	firstPort = 32768
	lastPort  = 60999
)

// publishLocked publishes a container's ports beside those of all that run.
func (d *Driver) publishLocked(c *container) (string, error) {
	if len(c.ports) == 0 {
		return "", nil
	}
	type key struct {
		port     uint32
		protocol swarm.PortConfigProtocol
	}
	taken := make(map[key]bool)
	for _, other := range d.containers {
		if other.Phase == agent.Running {
			for _, p := range cluster.ParsePorts(other.Ports) {
				taken[key{p.PublishedPort, p.Protocol}] = true
			}
		}
	}
	ports := slices.Clone(c.ports)
	for i := range ports {
		p := &ports[i]
		if p.PublishedPort == 0 {
			p.PublishedPort = firstPort
			for taken[key{p.PublishedPort, p.Protocol}] && p.PublishedPort < lastPort {
				p.PublishedPort++
			}
		}
		at := key{p.PublishedPort, p.Protocol}
		if taken[at] {
			return "", cluster.Errorf(cluster.ErrExists, "starting container failed: Bind for 0.0.0.0:%d failed: port is already allocated", p.PublishedPort)
		}
		taken[at] = true
	}
	return cluster.FormatPorts(ports), nil
}

// boundPorts are those that the engine publishes: none on the host's network, where a
// task binds them itself.
func boundPorts(r *cluster.Revision) []swarm.PortConfig {
	if cluster.NetworkMode(&r.Spec) == "host" {
		return nil
	}
	return cluster.HostPorts(r.Endpoint)
}
