package api

import (
	"context"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Networks are the local engine's: the cluster has none of its own yet, but for those
// that each engine has, by which services refer to them (cluster.PredefinedNetworks). As
// with Swarm they can be inspected but aren't listed: the engine's of the same names
// are. An engine that is in a swarm of its own must not have its networks taken for
// ours, so the swarm scope is answered here.

func (s *Server) listNetworks(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r)
	if err != nil {
		return response{}, err
	}
	if scopes := args.Get("scope"); slices.Contains(scopes, "swarm") {
		if len(scopes) > 1 {
			return response{}, fail(cluster.ErrInvalid, "invalid filter 'scope': ask for the networks of one scope at a time, swarm or local")
		}
		return response{body: []network.Summary{}}, nil
	}
	return response{engine: true}, nil
}

func (s *Server) inspectNetwork(ctx context.Context, r *request) (response, error) {
	ref, swarmScope := r.vars("id"), r.query.Get("scope") == "swarm"
	for _, n := range cluster.PredefinedNetworks() {
		if ref == n.ID || swarmScope && ref == n.Name || len(ref) >= shortID && strings.HasPrefix(n.ID, ref) {
			return response{body: renderNetwork(n)}, nil
		}
	}
	if swarmScope {
		return response{}, noNetwork(ref)
	}
	return response{engine: true}, nil
}

// shortID is how long an ID is in the tables of Docker's command.
const shortID = 12

func noNetwork(ref string) error {
	return fail(cluster.ErrNotFound, "network %s not found: services can be on host, bridge and none; skep has no networks that span nodes yet", ref)
}

func renderNetwork(n cluster.Network) network.Inspect {
	return network.Inspect{
		Name: n.Name, ID: n.ID, Scope: "swarm", Driver: n.Driver, IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Labels: map[string]string{cluster.LabelPredefined: "true"},
	}
}

// renderAttachments shows the networks that a task's spec names. There are no addresses:
// they are the engine's matter.
func renderAttachments(task *swarm.TaskSpec) []swarm.NetworkAttachment {
	var shown []swarm.NetworkAttachment
	for _, attachment := range task.Networks {
		n, ok := cluster.PredefinedNetwork(attachment.Target)
		if !ok {
			continue
		}
		shown = append(shown, swarm.NetworkAttachment{Network: swarm.Network{
			ID: n.ID,
			Spec: swarm.NetworkSpec{
				Annotations:         swarm.Annotations{Name: n.Name, Labels: map[string]string{cluster.LabelPredefined: "true"}},
				DriverConfiguration: &swarm.Driver{Name: n.Driver}, Scope: "swarm",
			},
			DriverState: swarm.Driver{Name: n.Driver},
		}})
	}
	return shown
}

// checkNetworks refuses networks that there aren't, and what the engine would refuse or
// leave out on those that there are.
func checkNetworks(spec *swarm.ServiceSpec) error {
	networks := spec.TaskTemplate.Networks
	for _, attachment := range networks {
		n, ok := cluster.PredefinedNetwork(attachment.Target)
		switch {
		case !ok:
			return noNetwork(attachment.Target)
		case len(networks) > 1:
			return fail(cluster.ErrInvalid, "container cannot be connected to multiple networks with one of the networks in %s mode", n.Name)
		case len(attachment.Aliases) > 0:
			return fail(cluster.ErrInvalid, "network-scoped alias is supported only for containers in user defined networks, not on %s", n.Name)
		case len(attachment.DriverOpts) > 0:
			return fail(cluster.ErrInvalid, "network %s has no driver options: leave driver-opt out", n.Name)
		}
	}
	for _, port := range cluster.HostPorts(spec.EndpointSpec) {
		switch mode := cluster.NetworkMode(&spec.TaskTemplate); {
		case mode == "none":
			return fail(cluster.ErrInvalid, "port %d can't be published: the service's network is none", port.TargetPort)
		case mode == "host" && port.PublishedPort != port.TargetPort:
			return fail(cluster.ErrInvalid, "port %d can't be published as another one on the network host, where tasks bind the node's ports themselves: publish it as %d, which keeps others off it, or leave it out",
				port.TargetPort, port.TargetPort)
		}
	}
	return nil
}

// networkAsked is what of a network to be made says whether it would be the cluster's.
type networkAsked struct {
	Driver, Scope string
	Ingress       bool
}

func (s *Server) createNetwork(ctx context.Context, r *request) (response, error) {
	var wanted networkAsked
	if err := r.decode(&wanted); err != nil {
		return response{}, err
	}
	if wanted.Driver == "overlay" || strings.EqualFold(wanted.Scope, "swarm") || wanted.Ingress {
		return response{}, errSpanning
	}
	return response{engine: true}, nil
}
