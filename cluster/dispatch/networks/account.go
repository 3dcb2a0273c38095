package networks

import (
	"net/netip"
	"slices"
	"strconv"

	"skep/cluster"
	"skep/store"
)

// The account of the nodes is told like that of a network without an ID.
const nodesAccount = ""

// A key names what changes in an account: the ID of a task, of a service, or of the network
// itself; in the account of nodes it is a node's index, or settingsKey.
const settingsKey = "settings"

func indexKey(index uint16) string { return strconv.Itoa(int(index)) }

// fullUpdate is the whole account of a network, or of the nodes; nil when there is no such
// network.
func fullUpdate(view store.View, networkID string) *cluster.NetworkUpdate {
	if networkID == nodesAccount {
		return fullNodes(view)
	}
	n := view.Network(networkID)
	if n == nil {
		return nil
	}
	u := &cluster.NetworkUpdate{NetworkID: networkID, Full: true, Network: n}
	for s := range view.Services() {
		if place, ok := serviceIn(n, s); ok {
			u.Services = append(u.Services, place)
		}
	}
	nodes := newCarriers(view)
	for t := range view.TasksOfNetwork(n.VNI) {
		if e, ok := endpointIn(view, n, t, nodes); ok {
			u.Endpoints = append(u.Endpoints, e)
		}
	}
	for _, holder := range view.AddressHolders(n.VNI) {
		if a := view.Attachment(holder.ID); a != nil && holder.Kind == attachmentKind {
			if e, ok := attachedIn(n, a, nodes); ok {
				u.Endpoints = append(u.Endpoints, e)
			}
		}
	}
	return u
}

// attachmentKind is what the database calls attachments.
const attachmentKind = "attachment"

// attachedIn is a container's place in a network; false when it has left it. Managers don't know
// whether it runs: its name leads to it as long as it is there. It is the engine's, which runs on when the node that it
// was made by is down; as long as any node that shares the engine isn't, somebody sees whether it is there.
func attachedIn(n *cluster.Network, a *cluster.Attachment, nodes *carriers) (cluster.NetworkEndpoint, bool) {
	node := nodes.of(a.NodeID)
	if a.Address.VNI != n.VNI || a.Address.Host == 0 || !a.Ended.IsZero() || node.index == 0 {
		return cluster.NetworkEndpoint{}, false
	}
	e := cluster.NetworkEndpoint{ID: a.ID, Name: a.Name, Aliases: a.Aliases, Node: node.index, Host: a.Address.Host, Phase: cluster.EndpointServing}
	if node.dark {
		e.Phase = cluster.EndpointKnown
	}
	return e, true
}

// difference is what brings an account up to view in which nothing else changed than what
// has these keys; nil when there is no such network.
func difference(view store.View, networkID string, keys []string) *cluster.NetworkUpdate {
	if networkID == nodesAccount {
		return nodesDifference(view, keys)
	}
	n := view.Network(networkID)
	if n == nil {
		return nil
	}
	u := &cluster.NetworkUpdate{NetworkID: networkID}
	nodes := newCarriers(view)
	for _, id := range keys {
		if id == networkID {
			u.Network = n
			continue
		}
		if t := view.Task(id); t != nil {
			if e, ok := endpointIn(view, n, t, nodes); ok {
				u.Endpoints = append(u.Endpoints, e)
				continue
			}
		} else if s := view.Service(id); s != nil {
			if place, ok := serviceIn(n, s); ok {
				u.Services = append(u.Services, place)
				continue
			}
		} else if a := view.Attachment(id); a != nil {
			if e, ok := attachedIn(n, a, nodes); ok {
				u.Endpoints = append(u.Endpoints, e)
				continue
			}
		}
		u.Gone = append(u.Gone, id)
	}
	return u
}

// endpointIn is a task's place in a network; false when it has none, or has ended.
func endpointIn(view store.View, n *cluster.Network, t *cluster.Task, nodes *carriers) (cluster.NetworkEndpoint, bool) {
	host := cluster.AddressIn(t.Addresses, n.VNI)
	if host == 0 || t.Dead() {
		return cluster.NetworkEndpoint{}, false
	}
	node := nodes.of(t.NodeID)
	if node.index == 0 {
		return cluster.NetworkEndpoint{}, false
	}
	e := cluster.NetworkEndpoint{ID: t.ID, ServiceID: t.ServiceID, Node: node.index, Host: host, Phase: phaseOf(t)}
	if node.down {
		e.Phase = cluster.EndpointKnown
	}
	if r := view.Revision(t.ServiceID, t.Revision); r != nil {
		e.Name = r.TaskName(t)
	}
	return e, true
}

// phaseOf is what may be sent to a task that hasn't ended, whatever its node does.
func phaseOf(t *cluster.Task) cluster.EndpointPhase {
	switch {
	case !t.Live(), t.Status.State == cluster.StateRunning && t.Status.Message == cluster.MessageUnhealthy:
		return cluster.EndpointDraining
	case t.Status.State == cluster.StateRunning:
		return cluster.EndpointServing
	}
	return cluster.EndpointKnown
}

// serviceIn is a service as a network has it; false when it isn't on it.
func serviceIn(n *cluster.Network, s *cluster.Service) (cluster.NetworkService, bool) {
	place := cluster.NetworkService{ID: s.ID, Name: s.Spec.Name}
	place.Affinity, _ = cluster.LabelSticky.Of(s.Spec.Labels)
	if n.Spec.Ingress {
		place.Ports = cluster.PublishedPorts(s)
		place.Local, _ = cluster.LabelPublish.Of(s.Spec.Labels)
		return place, len(place.Ports) > 0
	}
	for _, attachment := range s.Spec.TaskTemplate.Networks {
		if attachment.Target == n.ID {
			place.Aliases = attachment.Aliases
			place.VirtualIP = cluster.AddressIn(s.VirtualIPs, n.VNI)
			return place, true
		}
	}
	return cluster.NetworkService{}, false
}

// fullNodes is the whole account of the nodes that carry networks.
func fullNodes(view store.View) *cluster.NetworkUpdate {
	u := &cluster.NetworkUpdate{Full: true}
	settings := view.Cluster().NetworkSettings()
	u.Settings = &settings
	for _, n := range carrying(view) {
		u.Nodes = append(u.Nodes, n)
	}
	slices.SortFunc(u.Nodes, func(a, b cluster.NetworkNode) int { return int(a.Index) - int(b.Index) })
	return u
}

func nodesDifference(view store.View, keys []string) *cluster.NetworkUpdate {
	u := &cluster.NetworkUpdate{}
	nodes := carrying(view)
	for _, key := range keys {
		if key == settingsKey {
			settings := view.Cluster().NetworkSettings()
			u.Settings = &settings
			continue
		}
		number, _ := strconv.Atoi(key)
		index := uint16(number)
		if n, ok := nodes[index]; ok {
			u.Nodes = append(u.Nodes, n)
		} else {
			u.GoneNodes = append(u.GoneNodes, index)
		}
	}
	return u
}

// carrying are the nodes that carry networks, by index.
func carrying(view store.View) map[uint16]cluster.NetworkNode {
	owners := make(map[netip.Addr]*cluster.Node)
	shared := make(map[string][]*cluster.Node)
	add := func(n *cluster.Node) {
		if addr := n.PacketAddr(); n.Index != 0 && addr.IsValid() && (owners[addr] == nil || before(n, owners[addr])) {
			owners[addr] = n
		}
	}
	for n := range view.Nodes() {
		if engine := n.SharedEngine(); engine != "" {
			shared[engine] = append(shared[engine], n)
		} else {
			add(n)
		}
	}
	for _, group := range shared {
		if carrier := carrierOf(group); carrier != nil {
			add(carrier)
		}
	}
	nodes := make(map[uint16]cluster.NetworkNode, len(owners))
	for addr, n := range owners {
		nodes[n.Index] = cluster.NetworkNode{ID: n.ID, Index: n.Index, Addr: addr, Keys: n.WireKeys}
	}
	return nodes
}
