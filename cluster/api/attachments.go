package api

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// What services and tasks have of networks.

// maxAlias is how long a name may be in DNS.
const maxAlias = 253

// attach has a spec refer to its networks by their IDs, as Swarm does, and refuses those that
// there aren't, and what the engine would refuse or leave out on those that there are.
func attach(view store.View, spec *swarm.ServiceSpec) error {
	networks := slices.Clone(spec.TaskTemplate.Networks)
	seen := map[string]bool{}
	for i, attachment := range networks {
		id, name, err := attachable(view, attachment.Target)
		if err != nil {
			return err
		}
		if seen[id] {
			return fail(cluster.ErrInvalid, "network %s is given twice: a service is on each network once", name)
		}
		seen[id], networks[i].Target = true, id
		if len(attachment.DriverOpts) > 0 {
			return fail(cluster.ErrInvalid, "network %s has no driver options for services: leave driver-opt out", name)
		}
		for _, alias := range attachment.Aliases {
			if !isHostName(alias) {
				return fail(cluster.ErrInvalid, "network %s: the alias %.100q must be a name such as db or db.example.com", name, alias)
			}
		}
		if _, predefined := cluster.PredefinedNetwork(id); !predefined {
			continue
		}
		switch {
		case len(networks) > 1:
			return fail(cluster.ErrInvalid, "container cannot be connected to multiple networks with one of the networks in %s mode", name)
		case len(attachment.Aliases) > 0:
			return fail(cluster.ErrInvalid, "network-scoped alias is supported only for containers in user defined networks, not on %s", name)
		}
	}
	spec.TaskTemplate.Networks = networks
	if publishesOnAllNodes(spec.EndpointSpec) && view.IngressNetwork() == nil {
		return fail(cluster.ErrPrecondition, "service needs ingress network, but no ingress network is present: make one with `docker network create -d overlay --ingress ingress`, or publish with mode=host")
	}
	return checkPorts(spec)
}

// attachable finds a network that services can be on.
func attachable(view store.View, ref string) (id, name string, err error) {
	if n, ok := cluster.PredefinedNetwork(ref); ok {
		return n.ID, n.Name, nil
	}
	n, err := findNetwork(view, ref)
	switch {
	case err != nil:
		return "", "", err
	case n.Spec.Ingress:
		return "", "", fail(cluster.ErrInvalid, "Service cannot be explicitly attached to the ingress network %q", n.Spec.Name)
	}
	return n.ID, n.Spec.Name, nil
}

// checkPorts refuses ports that can't be published on the service's networks.
func checkPorts(spec *swarm.ServiceSpec) error {
	if spec.EndpointSpec == nil {
		return nil
	}
	mode := cluster.NetworkMode(&spec.TaskTemplate)
	for _, port := range spec.EndpointSpec.Ports {
		switch {
		case mode == "none":
			return fail(cluster.ErrInvalid, "port %d can't be published: the service's network is none", port.TargetPort)
		case mode == "host" && port.PublishMode != swarm.PortConfigPublishModeHost:
			return fail(cluster.ErrInvalid, "port %d can't be published on all nodes: the service's tasks are on the network host and have no address of their own: publish it with mode=host, or use another network", port.TargetPort)
		case mode == "host" && port.PublishedPort != port.TargetPort:
			return fail(cluster.ErrInvalid, "port %d can't be published as another one on the network host, where tasks bind the node's ports themselves: publish it as %d, which keeps others off it, or leave it out",
				port.TargetPort, port.TargetPort)
		}
	}
	return nil
}

// isHostName tells whether containers can ask for a name.
func isHostName(name string) bool {
	return len(name) <= maxAlias && !slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
		return len(label) > maxNameLength || !cluster.IsServiceName(label)
	})
}

// renderEndpoint shows how a service is reached.
func renderEndpoint(view store.View, service *cluster.Service) swarm.Endpoint {
	var shown swarm.Endpoint
	if service.Spec.EndpointSpec != nil {
		shown.Spec, shown.Ports = *service.Spec.EndpointSpec, service.Ports
	}
	for _, ip := range service.VirtualIPs {
		n := view.NetworkOfVNI(ip.VNI)
		if n == nil {
			continue
		}
		for _, addr := range addresses(n, ip.Host) {
			shown.VirtualIPs = append(shown.VirtualIPs, swarm.EndpointVirtualIP{NetworkID: n.ID, Addr: addr})
		}
	}
	return shown
}

// addresses are those of a place in a network, each with the length of its subnet, as Docker
// writes them.
func addresses(n *cluster.Network, host cluster.Host) []string {
	var list []string
	for _, s := range n.Subnets {
		list = append(list, netip.PrefixFrom(s.Addr(host), s.Prefix.Bits()).String())
	}
	return list
}

// renderAttachments shows the networks that a task is on: the one of ports that all nodes
// publish, and those that its spec names. On the engines' own addresses are the engine's matter.
func renderAttachments(view store.View, task *cluster.Task, spec *swarm.TaskSpec, show func(*cluster.Network) swarm.Network) []swarm.NetworkAttachment {
	var shown []swarm.NetworkAttachment
	for _, a := range task.Addresses {
		if n := view.NetworkOfVNI(a.VNI); n != nil && n.Spec.Ingress {
			shown = append(shown, swarm.NetworkAttachment{Network: show(n), Addresses: addresses(n, a.Host)})
		}
	}
	for _, attachment := range spec.Networks {
		if n, ok := cluster.PredefinedNetwork(attachment.Target); ok {
			shown = append(shown, swarm.NetworkAttachment{Network: swarm.Network{
				ID: n.ID,
				Spec: swarm.NetworkSpec{
					Annotations:         swarm.Annotations{Name: n.Name, Labels: map[string]string{cluster.LabelPredefined: "true"}},
					DriverConfiguration: &swarm.Driver{Name: n.Driver}, Scope: "swarm",
				},
				DriverState: swarm.Driver{Name: n.Driver},
			}})
			continue
		}
		n := view.Network(attachment.Target)
		if n == nil {
			continue // It was removed, and the task stops.
		}
		on := swarm.NetworkAttachment{Network: show(n)}
		if host := cluster.AddressIn(task.Addresses, n.VNI); host != 0 {
			on.Addresses = addresses(n, host)
		}
		shown = append(shown, on)
	}
	return shown
}
