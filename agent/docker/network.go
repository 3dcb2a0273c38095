package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"

	bridges "skep/agent/network"
	"skep/cluster"
)

// The labels of an engine's network that is one of the cluster's.
const (
	// LabelNetwork has the cluster network's ID, LabelNetworkNode the ID of the node that
	// made it, and LabelNetworkCluster the cluster's: nodes that share an engine share its networks.
	LabelNetwork        = "skep.network"
	LabelNetworkNode    = "skep.node"
	LabelNetworkCluster = "skep.cluster"
)

// Options of the engine's driver bridge.
const (
	optionBridge = "com.docker.network.bridge.name"
	optionMTU    = "com.docker.network.driver.mtu"
)

// Versions of the engine's API from which it does something.
const (
	// versionAll takes all of a container's networks at its creation, and its MACs, which it
	// would choose at random.
	versionAll = "1.44"
	// versionGateway is told which network has the container's way out. Before it is the one
	// whose name comes first in the order of bytes.
	versionGateway = "1.48"
)

const (
	// ingressName is the ingress network's name on an engine: no other one's comes before.
	ingressName = "0-ingress"
	// gatewayPriority is the ingress network's, from which replies must leave. Others have 0.
	gatewayPriority = 1
)

// madeLooks is how often it is looked for a network that another node on the engine may be making, and
// madeLook the pause between two looks.
const (
	madeLooks = 20
	madeLook  = 100 * time.Millisecond
)

// linkMTU is the MTU of a link of this machine, and whether there is one of the name.
func linkMTU(name string) (int, bool) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return 0, false
	}
	return link.MTU, true
}

// engineName is what a network is called on an engine, unless that name is taken.
func engineName(n *cluster.Network) string {
	switch name := n.Spec.Name; {
	case n.Spec.Ingress:
		return ingressName
	case name < ingressName:
		return "1-" + name
	default:
		return name
	}
}

func bridgeName(n *cluster.Network) string {
	return (&bridges.Network{VNI: n.VNI}).Bridge()
}

// creation is what an engine's network is made of. The engine gives no address of it by itself:
// its range has the gateway only. Internal networks are none to the engine, whose rules would keep
// virtual IPs and names from them too: skep's own keep them from the rest.
func creation(nodeID string, n *cluster.Network, mtu int) network.CreateOptions {
	options := network.CreateOptions{Labels: map[string]string{LabelNetwork: n.ID, LabelNetworkNode: nodeID}}
	if !n.Spans() {
		return local(options, n)
	}
	options.Driver, options.IPAM = "bridge", &network.IPAM{Driver: "default"}
	options.Options = map[string]string{optionBridge: bridgeName(n)}
	if mtu > 0 {
		options.Options[optionMTU] = strconv.Itoa(mtu)
	}
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is6() {
			options.EnableIPv6 = new(true)
		}
		options.IPAM.Config = append(options.IPAM.Config, network.IPAMConfig{
			Subnet: s.Prefix.String(), Gateway: s.Gateway.String(), IPRange: netip.PrefixFrom(s.Gateway, s.Gateway.BitLen()).String(),
		})
	}
	return options
}

// local is a network that each engine makes by itself, as the user said.
func local(options network.CreateOptions, n *cluster.Network) network.CreateOptions {
	spec := n.Spec
	for key, value := range spec.Labels {
		if _, ours := options.Labels[key]; !ours {
			options.Labels[key] = value
		}
	}
	options.Internal, options.Attachable = spec.Internal, spec.Attachable
	if spec.IPv6Enabled {
		options.EnableIPv6 = new(true)
	}
	if spec.ConfigFrom != nil && spec.ConfigFrom.Network != "" {
		options.ConfigFrom = &network.ConfigReference{Network: spec.ConfigFrom.Network}
	}
	if d := spec.DriverConfiguration; d != nil {
		options.Driver, options.Options = d.Name, maps.Clone(d.Options)
	}
	if ipam := spec.IPAMOptions; ipam != nil {
		options.IPAM = &network.IPAM{Driver: ipam.Driver.Name, Options: maps.Clone(ipam.Driver.Options)}
		for _, c := range ipam.Configs {
			options.IPAM.Config = append(options.IPAM.Config, network.IPAMConfig{Subnet: c.Subnet, IPRange: c.Range, Gateway: c.Gateway})
		}
	}
	return options
}

// speaks tells whether the engine's API is of a version, or newer. Both ends have agreed on one by
// their first call.
func (d *Driver) speaks(version string) bool {
	return !versions.LessThan(d.client.ClientVersion(), version)
}

// listNetworks lists the engine's networks that are the cluster's.
func (d *Driver) listNetworks(ctx context.Context) ([]network.Summary, error) {
	list, err := d.client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", LabelNetwork))})
	return list, explain(err)
}

// isOf tells whether an engine's network is the cluster's network. A user's own of the same name isn't.
func isOf(found network.Summary, n *cluster.Network) bool {
	return found.Labels[LabelNetwork] == n.ID && (!n.Spans() || found.Options[optionBridge] == bridgeName(n))
}

// ensure returns the engine's network that is the cluster's, among list, or makes it.
func (d *Driver) ensure(ctx context.Context, nodeID string, n *cluster.Network, list []network.Summary) (network.Summary, error) {
	found := func(list []network.Summary) int {
		return slices.IndexFunc(list, func(s network.Summary) bool { return isOf(s, n) })
	}
	if i := found(list); i >= 0 {
		return list[i], nil
	}
	mtu, there := 0, true
	if n.Spans() {
		if mtu, there = d.cfg.Bridge(bridgeName(n)); !there {
			// The engine would make one of its own in its place.
			return network.Summary{}, cluster.Errorf(cluster.ErrUnavailable, "make network %s: its bridge %s isn't there yet", n.Spec.Name, bridgeName(n))
		}
	}
	options := creation(nodeID, n, mtu)
	if id := d.cluster(); id != "" {
		options.Labels[LabelNetworkCluster] = id
	}
	if options.ConfigFrom != nil {
		// An engine takes no labels beside one, and without ours the network isn't known again.
		if err := d.configure(ctx, &options); err != nil {
			return network.Summary{}, cluster.Errorf(err, "make network %s: %v", n.Spec.Name, err)
		}
	}
	var failed error
	for _, name := range []string{engineName(n), engineName(n) + "." + n.ID} {
		made, err := d.client.NetworkCreate(ctx, name, options)
		if err == nil {
			return network.Summary{ID: made.ID, Name: name, Labels: options.Labels, Options: options.Options}, nil
		}
		failed = err
		// Another node on the engine may be faster: then the name is taken, or the subnet or the bridge, which
		// engines refuse before they list the network.
		for range madeLooks {
			list, err := d.listNetworks(ctx)
			if err != nil {
				return network.Summary{}, err
			}
			if i := found(list); i >= 0 {
				return list[i], nil
			}
			if !cerrdefs.IsPermissionDenied(failed) || !cluster.Sleep(ctx, madeLook) {
				break
			}
		}
		if !cerrdefs.IsConflict(failed) {
			break
		}
	}
	failed = explain(failed)
	return network.Summary{}, cluster.Errorf(failed, "make network %s: %v", n.Spec.Name, failed)
}

// configure puts the configuration in the place of the name of the node's network that has it.
func (d *Driver) configure(ctx context.Context, options *network.CreateOptions) error {
	from := options.ConfigFrom.Network
	config, err := d.client.NetworkInspect(ctx, from, network.InspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
		return cluster.Errorf(cluster.ErrNotFound, "configuration network %q does not exist: make it on this node with docker network create --config-only", from)
	case err != nil:
		return explain(err)
	case !config.ConfigOnly:
		return cluster.Errorf(cluster.ErrInvalid, "network %q is not a configuration network: make one on this node with docker network create --config-only", from)
	}
	for key, value := range config.Labels {
		if _, ours := options.Labels[key]; !ours {
			options.Labels[key] = value
		}
	}
	options.ConfigFrom, options.Options, options.IPAM, options.EnableIPv6 = nil, config.Options, &config.IPAM, new(config.EnableIPv6)
	return nil
}

// KeepNetworks makes those networks that the engine lacks, and removes those that aren't
// among them and that this node made, or had kept before, or that another node of the cluster made, which
// may be gone: one at a time keeps an engine's networks. One that containers are on stays until a later call.
func (d *Driver) KeepNetworks(ctx context.Context, nodeID string, networks []*cluster.Network) (used []string, err error) {
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	list, err := d.listNetworks(ctx)
	if err != nil {
		return nil, err
	}
	var failed []error
	keep, id := map[string]bool{}, d.cluster()
	for _, n := range networks {
		made, err := d.ensure(ctx, nodeID, n, list)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		keep[made.ID] = true
	}
	for _, found := range list {
		ours := found.Labels[LabelNetworkNode] == nodeID || d.kept(found.ID) || id != "" && found.Labels[LabelNetworkCluster] == id
		if keep[found.ID] || !ours ||
			slices.ContainsFunc(networks, func(n *cluster.Network) bool { return isOf(found, n) }) {
			continue
		}
		switch err := d.client.NetworkRemove(ctx, found.ID); {
		case err == nil, cerrdefs.IsNotFound(err):
		case cerrdefs.IsPermissionDenied(err): // Containers are on it.
			keep[found.ID] = true
			used = append(used, found.Labels[LabelNetwork])
		default:
			failed = append(failed, fmt.Errorf("remove network %s: %w", found.Name, explain(err)))
			keep[found.ID] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.networks = keep
	return used, errors.Join(failed...)
}

// ClearNetworks removes all of the cluster's networks, whoever made them. While containers of another node are on
// one, all stay. Users' own are disconnected, as by Swarm.
func (d *Driver) ClearNetworks(ctx context.Context, nodeID string) (shared bool, err error) {
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	list, err := d.listNetworks(ctx)
	if err != nil {
		return false, err
	}
	id := d.cluster()
	list = slices.DeleteFunc(list, func(s network.Summary) bool {
		return s.Labels[LabelNetworkCluster] != id && s.Labels[LabelNetworkNode] != nodeID
	})
	if shared, err := d.othersAttached(ctx, nodeID, list); shared || err != nil {
		return shared, err
	}
	var failed []error
	for _, found := range list {
		if err := d.clearNetwork(ctx, found.ID); err != nil && !cerrdefs.IsNotFound(err) {
			failed = append(failed, fmt.Errorf("remove network %s: %w", found.Name, explain(err)))
		}
	}
	return false, errors.Join(failed...)
}

func (d *Driver) clearNetwork(ctx context.Context, id string) error {
	found, err := d.client.NetworkInspect(ctx, id, network.InspectOptions{})
	if err != nil {
		return err
	}
	for containerID := range found.Containers {
		if err := d.client.NetworkDisconnect(ctx, id, containerID, true); err != nil && !cerrdefs.IsNotFound(err) {
			return err
		}
	}
	return d.client.NetworkRemove(ctx, id)
}

// Attached gives the addresses that containers have in the cluster's networks, or get when they start. It gives them
// also with an error, of those that other nodes don't reach yet.
func (d *Driver) Attached(ctx context.Context) (map[string]map[netip.Addr]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	networks, err := d.listNetworks(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := d.client.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, explain(err)
	}
	have, mended, failed := map[string]map[netip.Addr]bool{}, map[string]bool{}, []error(nil)
	for _, c := range containers {
		if c.NetworkSettings == nil {
			continue
		}
		for name, settings := range c.NetworkSettings.Networks {
			// Of one that it was never started in a container has the name only.
			i := slices.IndexFunc(networks, func(s network.Summary) bool {
				return settings != nil && (s.ID == settings.NetworkID || settings.NetworkID == "" && (s.Name == name || s.ID == name))
			})
			if i < 0 {
				continue
			}
			if _, _, other := otherMAC(settings); other && networks[i].Options[optionBridge] != "" {
				mended[settings.EndpointID] = d.mended[settings.EndpointID] // The engine goes on to say what it gave.
				if !mended[settings.EndpointID] {
					err := d.mendMAC(ctx, c.ID, settings.NetworkID)
					mended[settings.EndpointID], failed = err == nil, append(failed, err)
				}
			}
			of := networks[i].Labels[LabelNetwork]
			if have[of] == nil {
				have[of] = map[netip.Addr]bool{}
			}
			texts := []string{settings.IPAddress, settings.GlobalIPv6Address}
			if settings.IPAMConfig != nil {
				texts = append(texts, settings.IPAMConfig.IPv4Address, settings.IPAMConfig.IPv6Address)
			}
			for _, text := range texts {
				if addr, err := netip.ParseAddr(text); err == nil {
					have[of][addr] = true
				}
			}
		}
	}
	d.mended = mended
	return have, errors.Join(failed...)
}

// othersAttached tells whether a container of another node's is on one of the networks.
func (d *Driver) othersAttached(ctx context.Context, nodeID string, networks []network.Summary) (bool, error) {
	containers, err := d.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", LabelNode))})
	if err != nil {
		return false, explain(err)
	}
	for _, c := range containers {
		if c.Labels[LabelNode] == nodeID || c.NetworkSettings == nil {
			continue
		}
		for _, settings := range c.NetworkSettings.Networks {
			if settings != nil && slices.ContainsFunc(networks, func(s network.Summary) bool { return s.ID == settings.NetworkID }) {
				return true, nil
			}
		}
	}
	return false, nil
}

// AddressUses are the ranges that the engine's networks have. Those of a swarm that the engine is in
// itself are in namespaces of their own.
func (d *Driver) AddressUses(ctx context.Context) (uses []cluster.AddressUse, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	list, err := d.client.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, explain(err)
	}
	for _, n := range list {
		for _, config := range n.IPAM.Config {
			if prefix, err := netip.ParsePrefix(config.Subnet); err == nil && n.Scope == "local" {
				uses = append(uses, cluster.AddressUse{Prefix: prefix.Masked(), By: "network " + n.Name + " of its engine", Engine: true, NetworkID: n.Labels[LabelNetwork]})
			}
		}
	}
	return uses, nil
}

// kept tells whether the driver had the engine keep the network.
func (d *Driver) kept(networkID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.networks[networkID]
}
