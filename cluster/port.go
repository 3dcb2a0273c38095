package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// MaxPorts is how many ports a service may publish. Each is compared with those of all
// tasks of a node, and said with each task's status.
const MaxPorts = 1024

// The ports that nodes listen on themselves, as users of Swarm know them: managers unless
// --listen-addr says another one, and all nodes over TCP and UDP.
const (
	ControlPort = 2377
	GossipPort  = 7946
)

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

// PublishedPorts are the ports of a service that are published on all nodes, under the
// numbers that they have.
func PublishedPorts(s *Service) []PublishedPort {
	var ports []PublishedPort
	ips, _ := LabelHostIP.Of(s.Spec.Labels)
	for _, p := range s.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeIngress && p.PublishedPort != 0 {
			ports = append(ports, PublishedPort{
				Protocol: string(p.Protocol), Published: uint16(p.PublishedPort), Target: uint16(p.TargetPort), HostIP: ips.Of(p),
			})
		}
	}
	return ports
}

// HostIPs are the addresses of nodes that ports are published on, by port and protocol as
// in 80/tcp; under no name for all other ports.
type HostIPs map[string]netip.Addr

// Of is the only address that a port is published on; invalid means all.
func (ips HostIPs) Of(p swarm.PortConfig) netip.Addr {
	if ip, ok := ips[PortName(p.PublishedPort, p.Protocol)]; ok {
		return ip
	}
	return ips[""]
}

// PortName writes a port, of TCP where no protocol is said.
func PortName(number uint32, protocol swarm.PortConfigProtocol) string {
	return fmt.Sprintf("%d/%s", number, cmp.Or(protocol, swarm.PortConfigProtocolTCP))
}

// readHostIPs reads addresses, each with a port and = before it, or without for all ports.
func readHostIPs(text string) (HostIPs, error) {
	const want = wants("an address of nodes such as 10.0.0.5, or for each port its own: 8080=10.0.0.5,53/udp=10.0.0.6")
	ips := HostIPs{}
	for _, one := range strings.Split(text, ",") {
		port, address, some := strings.Cut(strings.TrimSpace(one), "=")
		if !some {
			port, address = "", port
		}
		ip, err := netip.ParseAddr(address)
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return nil, want
		}
		if some {
			number, protocol, named := strings.Cut(port, "/")
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil || n == 0 || named && !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
				return nil, want
			}
			port = PortName(uint32(n), swarm.PortConfigProtocol(protocol))
		}
		if _, twice := ips[port]; twice {
			return nil, want
		}
		ips[port] = ip.Unmap()
	}
	return ips, nil
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
