package docker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	bridges "skep/agent/network"
	"skep/cluster"
)

// endpoint is a place that a container has in an engine's network.
type endpoint struct {
	// network is the network's name on the engine, and networkID its ID there.
	network, networkID string
	settings           *network.EndpointSettings
}

// endpoints are the places that the assignment gives the container, in its order. The engine's
// networks are made if somebody has removed them.
func (d *Driver) endpoints(ctx context.Context, a agent.Assignment) ([]endpoint, error) {
	if len(a.Networks) == 0 {
		return nil, nil
	}
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	list, err := d.listNetworks(ctx)
	if err != nil {
		return nil, err
	}
	if !d.speaks(versionGateway) {
		if err := checkWayOut(a.Networks); err != nil {
			return nil, err
		}
	}
	var endpoints []endpoint
	for _, at := range a.Networks {
		found, err := d.ensure(ctx, a.Task.NodeID, at.Network, list)
		if err != nil {
			return nil, err
		}
		asked := askedOf(a, at.Network)
		settings := &network.EndpointSettings{DriverOpts: asked.DriverOpts}
		if at.Network.Spans() {
			d.address(settings, at)
		} else {
			settings.Aliases = asked.Aliases // The engine answers them.
		}
		endpoints = append(endpoints, endpoint{network: found.Name, networkID: found.ID, settings: settings})
	}
	return endpoints, nil
}

// address has the container have its own addresses in a network that spans nodes.
func (d *Driver) address(settings *network.EndpointSettings, at agent.Attachment) {
	settings.IPAMConfig = &network.EndpointIPAMConfig{}
	for _, addr := range at.Network.Addrs(at.Host) {
		if addr.Is6() {
			settings.IPAMConfig.IPv6Address = addr.String()
			continue
		}
		settings.IPAMConfig.IPv4Address = addr.String()
		if d.speaks(versionAll) {
			settings.MacAddress = bridges.EndpointMAC(addr).String()
		}
	}
	if at.Network.Spec.Ingress && d.speaks(versionGateway) {
		settings.GwPriority = gatewayPriority
	}
}

// checkWayOut refuses what an engine that chooses the way out by itself gets wrong: it takes a
// network of both families before any of one.
func checkWayOut(networks []agent.Attachment) error {
	families := func(at agent.Attachment) int { return len(at.Network.Subnets) }
	for _, at := range networks {
		if !at.Network.Spec.Ingress {
			continue
		}
		for _, other := range networks {
			if families(other) > families(at) {
				return cluster.Errorf(cluster.ErrUnsupported, "network %s has IPv6, and the ingress network hasn't: this engine would send what published ports answer to the wrong network: "+
					"make the ingress network anew with --ipv6, or have an engine with API version %s", other.Network.Spec.Name, versionGateway)
			}
		}
	}
	return nil
}

// askedOf is what the user asked of this network for the service.
func askedOf(a agent.Assignment, n *cluster.Network) swarm.NetworkAttachmentConfig {
	for _, config := range a.Revision.Spec.Networks {
		if config.Target == n.ID || config.Target == n.Spec.Name {
			return config
		}
	}
	return swarm.NetworkAttachmentConfig{}
}

// place has the container be created in its networks, and returns those that it is to be connected to
// afterwards, as old engines want it.
func (d *Driver) place(s *settings, endpoints []endpoint) (rest []endpoint) {
	if len(endpoints) == 0 {
		return nil
	}
	if mode := string(s.host.NetworkMode); mode != "" { // The engine's own bridge, beside them.
		endpoints = slices.Insert(slices.Clone(endpoints), 0, endpoint{network: mode, settings: &network.EndpointSettings{}})
	}
	if !d.speaks(versionAll) {
		endpoints, rest = endpoints[:1], endpoints[1:]
	}
	s.host.NetworkMode = container.NetworkMode(endpoints[0].network)
	s.network.EndpointsConfig = map[string]*network.EndpointSettings{}
	for _, e := range endpoints {
		s.network.EndpointsConfig[e.network] = e.settings
	}
	return rest
}

// Connect has the container on the networks of the assignment.
func (d *Driver) Connect(ctx context.Context, a agent.Assignment) error {
	endpoints, err := d.endpoints(ctx, a)
	if err != nil {
		return err
	}
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return err
	}
	defer end()
	id, err := d.find(ctx, a.Task.ID)
	if err != nil {
		return err
	}
	return d.connect(ctx, id, endpoints)
}

// connect has a container in these places, and in no others of the cluster's networks.
func (d *Driver) connect(ctx context.Context, id string, endpoints []endpoint) error {
	found, err := d.client.ContainerInspect(ctx, id)
	if err != nil {
		return explain(err)
	}
	list, err := d.listNetworks(ctx)
	if err != nil {
		return err
	}
	on := map[string]bool{}
	if found.NetworkSettings != nil {
		for name, settings := range found.NetworkSettings.Networks {
			// Of one that it was never started in a container has the name only.
			i := slices.IndexFunc(list, func(s network.Summary) bool {
				return s.ID == settings.NetworkID || settings.NetworkID == "" && (s.Name == name || s.ID == name)
			})
			if i < 0 {
				continue
			}
			if slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.networkID == list[i].ID }) {
				on[list[i].ID] = true
				continue
			}
			if err := d.client.NetworkDisconnect(ctx, list[i].ID, id, false); err != nil && !cerrdefs.IsNotFound(err) {
				return fmt.Errorf("disconnect container from network %s: %w", name, explain(err))
			}
		}
	}
	attached := false
	for _, e := range endpoints {
		if on[e.networkID] {
			continue
		}
		if err := d.attach(ctx, id, e); err != nil {
			return err
		}
		attached = true
	}
	if attached {
		if found, err = d.client.ContainerInspect(ctx, id); err != nil {
			return explain(err)
		}
	}
	return d.mendMACs(found, func(networkID string) bool {
		return slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.networkID == networkID && e.settings.MacAddress != "" })
	})
}

// mendMACs has the interfaces of a running container in networks that span nodes have the MACs by which other nodes
// know it. Engines take them when they create a container, but not from who connects one that runs, or starts it
// again: one from 28 on makes some up then.
func (d *Driver) mendMACs(found container.InspectResponse, spans func(networkID string) bool) error {
	if found.State == nil || !found.State.Running || found.NetworkSettings == nil {
		return nil
	}
	for name, settings := range found.NetworkSettings.Networks {
		addr, mac, other := otherMAC(settings)
		if !other || !spans(settings.NetworkID) {
			continue
		}
		if d.cfg.SetMAC == nil {
			return cluster.Errorf(cluster.ErrUnsupported, "connect container to network %s: the engine gave it MAC %s, and other nodes know it by %s", name, settings.MacAddress, mac)
		}
		if err := d.cfg.SetMAC(found.State.Pid, addr, mac); err != nil {
			return fmt.Errorf("connect container to network %s: %w", name, err)
		}
	}
	return nil
}

// mendMAC is mendMACs for one network of a container.
func (d *Driver) mendMAC(ctx context.Context, id, networkID string) error {
	found, err := d.client.ContainerInspect(ctx, id)
	if err != nil {
		return explain(err)
	}
	return d.mendMACs(found, func(other string) bool { return other == networkID })
}

// otherMAC tells whether the engine gave an endpoint another MAC than other nodes know it by, and which that is.
func otherMAC(settings *network.EndpointSettings) (addr netip.Addr, mac bridges.MAC, other bool) {
	if settings == nil {
		return addr, mac, false
	}
	addr, err := netip.ParseAddr(settings.IPAddress)
	if err != nil || !addr.Is4() || settings.MacAddress == "" {
		return addr, mac, false
	}
	mac = bridges.EndpointMAC(addr)
	return addr, mac, !strings.EqualFold(settings.MacAddress, mac.String())
}

// attach connects a container to one more network.
func (d *Driver) attach(ctx context.Context, id string, e endpoint) error {
	if err := d.client.NetworkConnect(ctx, e.networkID, id, e.settings); err != nil {
		if strings.Contains(err.Error(), "already exists in network") {
			return nil // It was under way when the engine's answer got lost.
		}
		err = explain(err)
		return cluster.Errorf(err, "connect container to network %s: %v", e.network, err)
	}
	return nil
}
