package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// MaxPorts is how many ports a service may publish. Each is compared with those of all
// tasks of a node, and said with each task's status.
const MaxPorts = 1024

// HostPorts are the ports of an endpoint that are published on the very node that
// a task is on; those without a protocol are TCP's.
func HostPorts(endpoint *swarm.EndpointSpec) []swarm.PortConfig {
	if endpoint == nil {
		return nil
	}
	var ports []swarm.PortConfig
	for _, p := range endpoint.Ports {
		if p.PublishMode != swarm.PortConfigPublishModeHost {
			continue
		}
		if p.Protocol == "" {
			p.Protocol = swarm.PortConfigProtocolTCP
		}
		ports = append(ports, p)
	}
	return ports
}

// FormatPorts writes ports for TaskStatus, as PUBLISHED:TARGET/PROTOCOL with commas
// between them; each once, in a fixed order.
func FormatPorts(ports []swarm.PortConfig) string {
	var texts []string
	for _, p := range ports {
		texts = append(texts, fmt.Sprintf("%d:%d/%s", p.PublishedPort, p.TargetPort, p.Protocol))
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), ",")
}

// ParsePorts is the inverse of FormatPorts. It leaves out what it can't read.
func ParsePorts(text string) []swarm.PortConfig {
	var ports []swarm.PortConfig
	for _, one := range strings.Split(text, ",") {
		published, rest, _ := strings.Cut(one, ":")
		target, protocol, _ := strings.Cut(rest, "/")
		from, err := strconv.ParseUint(published, 10, 16)
		to, err2 := strconv.ParseUint(target, 10, 16)
		if err != nil || err2 != nil {
			continue
		}
		ports = append(ports, swarm.PortConfig{
			Protocol: swarm.PortConfigProtocol(protocol), TargetPort: uint32(to), PublishedPort: uint32(from),
			PublishMode: swarm.PortConfigPublishModeHost,
		})
	}
	return ports
}
