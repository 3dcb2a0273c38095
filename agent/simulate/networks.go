package simulate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"skep/agent"
	"skep/agent/network"
	"skep/cluster"
)

// Bridges are the machine's bridges, into which containers' ports are plugged.
type Bridges interface {
	HasBridge(name string) bool
	Connect(bridge, port string)
	Disconnect(bridge, port string)
}

// bridge is the name of the bridge of a network.
func bridge(n *cluster.Network) string { return (&network.Network{VNI: n.VNI}).Bridge() }

// KeepNetworks has the engine know these networks of the cluster. As a real one, it makes none with the
// addresses or the bridge of another. A bridge that isn't there when its network is made, or any more when
// that is removed, is among Faults: a real engine would make one of its own, or find none to remove.
func (d *Driver) KeepNetworks(_ context.Context, _ string, networks []*cluster.Network) (used []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return nil, d.away
	}
	wanted := map[string]bool{}
	var failed []error
	for _, n := range networks {
		wanted[n.ID] = true
		if clash := n.Clash(d.uses); clash != "" && d.networks[n.ID] == nil {
			return nil, cluster.Errorf(cluster.ErrInvalid, "make network %s: Pool overlaps with other one on this address space: %s", n.Spec.Name, clash)
		}
		if d.networks[n.ID] == nil {
			if other := d.metLocked(n); other != nil {
				failed = append(failed, cluster.Errorf(cluster.ErrDenied, "make network %s: it conflicts with network %s", n.Spec.Name, other.Spec.Name))
				continue
			}
			d.checkLocked(n, "made before its bridge")
		}
		d.networks[n.ID] = n
	}
	for id, n := range d.networks {
		switch {
		case wanted[id]:
		case d.usedLocked(id):
			used = append(used, id)
		default:
			d.checkLocked(n, "removed after its bridge")
			delete(d.networks, id)
		}
	}
	return used, errors.Join(failed...)
}

// ClearNetworks has the engine know no networks. No other node has it.
func (d *Driver) ClearNetworks(ctx context.Context, nodeID string) (shared bool, err error) {
	_, err = d.KeepNetworks(ctx, nodeID, nil)
	return false, err
}

// metLocked finds a network that has the bridge of another or some of its addresses.
func (d *Driver) metLocked(n *cluster.Network) *cluster.Network {
	for _, other := range d.networks {
		for _, s := range other.Subnets {
			if other.VNI == n.VNI || slices.ContainsFunc(n.Subnets, func(own cluster.Subnet) bool { return own.Prefix.Overlaps(s.Prefix) }) {
				return other
			}
		}
	}
	return nil
}

// SetAddressUses has the engine, or its machine, use addresses for other things: it makes no network
// that clashes.
func (d *Driver) SetAddressUses(uses ...cluster.AddressUse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uses = uses
}

// AddressUses gives what SetAddressUses had.
func (d *Driver) AddressUses(context.Context) ([]cluster.AddressUse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.uses), nil
}

func (d *Driver) checkLocked(n *cluster.Network, fault string) {
	if d.cfg.Bridges != nil && n.Spans() && !d.cfg.Bridges.HasBridge(bridge(n)) {
		d.faults = append(d.faults, fmt.Sprintf("network %s was %s", n.Spec.Name, fault))
	}
}

func (d *Driver) usedLocked(networkID string) bool {
	for _, containers := range []map[string]*container{d.containers, d.users} {
		for _, c := range containers {
			if c.Phase == agent.Running && slices.ContainsFunc(c.attached, func(a agent.Attachment) bool { return a.Network.ID == networkID }) {
				return true
			}
		}
	}
	return false
}

// knowsLocked tells whether the engine knows all networks of the assignment.
func (d *Driver) knowsLocked(a agent.Assignment) error {
	for _, attached := range a.Networks {
		if d.networks[attached.Network.ID] == nil && !attached.Network.Spans() {
			d.networks[attached.Network.ID] = attached.Network // Engines make those by themselves.
		}
		if d.networks[attached.Network.ID] == nil {
			return cluster.Errorf(cluster.ErrNotFound, "network %s not found", attached.Network.Spec.Name)
		}
	}
	return nil
}

// Connect has the container on the networks of the assignment, and on no others.
func (d *Driver) Connect(_ context.Context, a agent.Assignment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.findLocked(a.Task.ID)
	if err == nil {
		err = d.knowsLocked(a)
	}
	if err != nil {
		return err
	}
	if c.Phase == agent.Running {
		d.unplugLocked(c)
		defer d.plugLocked(c)
	}
	c.attached = a.Networks
	return nil
}

func (d *Driver) plugLocked(c *container) {
	for i, a := range c.attached {
		if d.cfg.Bridges != nil && a.Network.Spans() {
			d.cfg.Bridges.Connect(bridge(a.Network), c.port(i))
		}
	}
}

func (d *Driver) unplugLocked(c *container) {
	for i, a := range c.attached {
		if d.cfg.Bridges != nil && a.Network.Spans() {
			d.cfg.Bridges.Disconnect(bridge(a.Network), c.port(i))
		}
	}
}

// port is the name of the container's end in one of its networks.
func (c *container) port(i int) string { return fmt.Sprintf("veth%s.%d", c.TaskID, i) }

// Networks lists the networks of the cluster that the engine knows, by name.
func (d *Driver) Networks() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, n := range d.networks {
		names = append(names, n.Spec.Name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

// Places gives the places in networks of the containers that run, by the tasks' IDs and by the names
// of users' own.
func (d *Driver) Places() map[string][]agent.Attachment {
	d.mu.Lock()
	defer d.mu.Unlock()
	places := map[string][]agent.Attachment{}
	for _, containers := range []map[string]*container{d.containers, d.users} {
		for id, c := range containers {
			if c.Phase == agent.Running && len(c.attached) > 0 {
				places[id] = slices.Clone(c.attached)
			}
		}
	}
	return places
}

// Run has a container of a user's run at a place in a network, as `docker run --network` does.
func (d *Driver) Run(name string, at agent.Attachment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.away != nil:
		return d.away
	case d.users[name] != nil:
		return cluster.Errorf(cluster.ErrExists, "the container name %s is already in use", name)
	case d.networks[at.Network.ID] == nil:
		return cluster.Errorf(cluster.ErrNotFound, "network %s not found", at.Network.Spec.Name)
	}
	c := &container{Container: agent.Container{TaskID: name, Phase: agent.Running}, name: name, attached: []agent.Attachment{at}}
	d.users[name] = c
	d.plugLocked(c)
	return nil
}

// Discard removes a container of a user's, as `docker rm -f` does.
func (d *Driver) Discard(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.users[name]; c != nil {
		d.unplugLocked(c)
		delete(d.users, name)
	}
}

// Attached gives the addresses that containers have in the cluster's networks.
func (d *Driver) Attached(context.Context) (map[string]map[netip.Addr]bool, error) {
	d.mu.Lock()
	away := d.away
	d.mu.Unlock()
	if away != nil {
		return nil, away
	}
	have := map[string]map[netip.Addr]bool{}
	for _, places := range d.Places() {
		for _, at := range places {
			if have[at.Network.ID] == nil {
				have[at.Network.ID] = map[netip.Addr]bool{}
			}
			for _, addr := range at.Network.Addrs(at.Host) {
				have[at.Network.ID][addr] = true
			}
		}
	}
	return have, nil
}

// Faults are what a real engine would have answered for with a broken network.
func (d *Driver) Faults() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.faults)
}
