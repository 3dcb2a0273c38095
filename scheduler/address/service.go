package address

import (
	"net"
	"slices"
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// Provide gives next the virtual IPs and the ports that its spec asks for. old is the service
// as it is, nil when there is none yet: what it has is kept as far as the spec asks for it, and
// given up otherwise. It is called with the view of the transaction that writes next.
//
// It fails, and leaves next as it is, when a port is somebody else's or a network is full.
func Provide(v store.View, old, next *cluster.Service) error {
	if old == nil {
		old = &cluster.Service{}
	}
	ips, err := virtualIPs(v, old, next)
	if err != nil {
		return err
	}
	ports, err := ports(v, old, next)
	if err != nil {
		return err
	}
	next.VirtualIPs, next.Ports = ips, ports
	return nil
}

// virtualIPs are one for each network that spans nodes. The ingress network needs none: its
// packets are for the nodes' addresses.
func virtualIPs(v store.View, old, next *cluster.Service) ([]cluster.Address, error) {
	if e := next.Spec.EndpointSpec; e != nil && e.Mode == swarm.ResolutionModeDNSRR {
		return nil, nil
	}
	var list []cluster.Address
	for _, attachment := range next.Spec.TaskTemplate.Networks {
		n := v.Network(attachment.Target)
		if n == nil || !n.Spans() || n.Spec.Ingress {
			continue
		}
		host := cluster.AddressIn(old.VirtualIPs, n.VNI)
		if host == 0 {
			var free bool
			if host, free = Free(v, n, next.ID); !free {
				return nil, cluster.Errorf(cluster.ErrPrecondition, "%s: a service has one there beside those of its tasks: remove services from the network, or give it a larger subnet", Exhausted(v, n))
			}
		}
		list = append(list, cluster.Address{VNI: n.VNI, Host: host})
	}
	return list, nil
}

// Free finds a number of a network that nobody has, for the object of an ID; false when there is
// none.
func Free(v store.View, n *cluster.Network, id string) (cluster.Host, bool) {
	return Of(n).Choose(id, func(host cluster.Host) bool {
		_, held := v.Holder(cluster.UniqueAddress(cluster.Address{VNI: n.VNI, Host: host}))
		return held
	})
}

// Exhausted says that a network has no address left.
func Exhausted(v store.View, n *cluster.Network) string {
	return "no free address in network " + n.Spec.Name + " (" + strconv.Itoa(v.AddressesIn(n.VNI)) + " in use)"
}

// ports are those of next's spec, with a number for each that is published on all nodes.
func ports(v store.View, old, next *cluster.Service) ([]swarm.PortConfig, error) {
	if next.Spec.EndpointSpec == nil || len(next.Spec.EndpointSpec.Ports) == 0 {
		return nil, nil
	}
	list := slices.Clone(next.Spec.EndpointSpec.Ports)
	t := taken{view: v, id: next.ID, own: map[cluster.Unique]bool{}}
	for _, p := range list {
		if p.PublishedPort == 0 {
			continue
		}
		if err := t.refuse(p); err != nil {
			return nil, err
		}
		t.own[cluster.UniquePort(p.Protocol, p.PublishedPort)] = true
	}
	for i := range list {
		p := &list[i]
		if !ingress(*p) || p.PublishedPort != 0 {
			continue
		}
		number, ok := t.choose(old.Ports, *p)
		if !ok {
			return nil, cluster.Errorf(cluster.ErrPrecondition, "no port from %d to %d is free for port %d/%s: remove services, or publish it on another one", FirstDynamicPort, LastDynamicPort, p.TargetPort, p.Protocol)
		}
		p.PublishedPort = number
		t.own[cluster.UniquePort(p.Protocol, number)] = true
	}
	return list, nil
}

func ingress(p swarm.PortConfig) bool { return p.PublishMode == swarm.PortConfigPublishModeIngress }

// taken is which ports the service of an ID can't publish on all nodes.
type taken struct {
	view store.View
	id   string
	// own are those that the spec has already.
	own map[cluster.Unique]bool
	// hosts are the other services that publish a port on the nodes of their tasks, and nodes are
	// ports that the nodes themselves listen on, by what for; both nil until somebody asks.
	hosts map[cluster.Unique]*cluster.Service
	nodes map[cluster.Unique]string
}

// refuse says in Swarm's words why the service can't have the port whose number p says.
func (t *taken) refuse(p swarm.PortConfig) error {
	u := cluster.UniquePort(p.Protocol, p.PublishedPort)
	holder, held := t.view.Holder(u)
	if held && holder.ID == t.id {
		return nil // It has been looked into when it was published.
	}
	if held {
		name := holder.ID
		if s := t.view.Service(holder.ID); s != nil {
			name = s.Spec.Name
		}
		return cluster.Errorf(cluster.ErrInvalid, "port '%d' is already in use by service '%s' (%s) as an ingress port", p.PublishedPort, name, holder.ID)
	}
	if !ingress(p) {
		return nil // On its own node it is for the scheduler to see who has it.
	}
	t.look()
	if s := t.hosts[u]; s != nil {
		return cluster.Errorf(cluster.ErrInvalid, "port '%d' is already in use by service '%s' (%s) as a host-published port", p.PublishedPort, s.Spec.Name, s.ID)
	}
	if what := t.nodes[u]; what != "" {
		return cluster.Errorf(cluster.ErrInvalid, "port '%d' can't be published on all nodes: it is in use for %s", p.PublishedPort, what)
	}
	return nil
}

// choose is the number that the service has for the port already, or one that is free.
func (t *taken) choose(old []swarm.PortConfig, p swarm.PortConfig) (uint32, bool) {
	for _, o := range old {
		if ingress(o) && o.TargetPort == p.TargetPort && o.Protocol == p.Protocol && !t.own[cluster.UniquePort(o.Protocol, o.PublishedPort)] {
			return o.PublishedPort, true
		}
	}
	t.look()
	number, ok := Port(func(number uint16) bool {
		u := cluster.UniquePort(p.Protocol, uint32(number))
		_, held := t.view.Holder(u)
		return held || t.own[u] || t.hosts[u] != nil || t.nodes[u] != ""
	})
	return uint32(number), ok
}

// look finds out what has ports but no service that publishes them on all nodes.
func (t *taken) look() {
	if t.hosts != nil {
		return
	}
	t.hosts = map[cluster.Unique]*cluster.Service{}
	for s := range t.view.Services() {
		if s.ID == t.id {
			continue
		}
		for _, p := range cluster.HostPorts(s.Spec.EndpointSpec) {
			if p.PublishedPort != 0 {
				t.hosts[cluster.UniquePort(p.Protocol, p.PublishedPort)] = s
			}
		}
	}
	tcp, udp := swarm.PortConfigProtocolTCP, swarm.PortConfigProtocolUDP
	t.nodes = map[cluster.Unique]string{
		cluster.UniquePort(tcp, cluster.ControlPort):                                 "the managers",
		cluster.UniquePort(tcp, cluster.GossipPort):                                  "gossip between nodes",
		cluster.UniquePort(udp, cluster.GossipPort):                                  "gossip between nodes",
		cluster.UniquePort(udp, uint32(t.view.Cluster().NetworkSettings().DataPort)): "networks between nodes",
	}
	for n := range t.view.Nodes() {
		if _, port, err := net.SplitHostPort(n.ManagerAddr); err == nil {
			if number, err := strconv.ParseUint(port, 10, 16); err == nil {
				t.nodes[cluster.UniquePort(tcp, uint32(number))] = "manager " + n.ID
			}
		}
	}
}
