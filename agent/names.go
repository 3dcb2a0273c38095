package agent

import (
	"net/netip"
	"slices"
	"strings"

	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/cluster"
)

// dnsPort is where resolvers are asked.
const dnsPort = 53

// names are what the node's name server answers from, without the resolvers of the node. Names of
// the ingress network are nobody's: all services that publish a port are on it.
func (f *facts) names() *dns.Names {
	names := &dns.Names{Complete: f.Complete, Askers: map[netip.Addr]*dns.Asker{}, Networks: map[string]*dns.Network{}}
	for _, a := range f.networks() {
		names.Listen = append(names.Listen, gatewaysOf(a.Network)...)
		if !a.Network.Spec.Ingress {
			names.Networks[a.Network.ID] = f.namesIn(a)
		}
	}
	f.askers(names)
	return names
}

// gatewaysOf are where a network's containers ask: those on the ingress network alone do so, too.
func gatewaysOf(n *cluster.Network) (gateways []dns.Listen) {
	bridge := (&network.Network{VNI: n.VNI}).Bridge()
	for _, s := range n.Subnets {
		gateways = append(gateways, dns.Listen{Addr: netip.AddrPortFrom(s.Gateway, network.NamesPort), Bridge: bridge, From: s.Prefix.Masked()})
	}
	return gateways
}

// namesIn are the names in one network.
func (f *facts) namesIn(a *account) *dns.Network {
	n := &dns.Network{
		Names:     make(map[string]dns.Record, 2*(len(a.Services)+len(a.Endpoints))),
		Addresses: make(map[netip.Addr]string, len(a.Services)+len(a.Endpoints)),
	}
	for _, s := range a.Network.Subnets {
		n.Subnets = append(n.Subnets, s.Prefix.Masked())
	}
	serving := f.serving(a)
	for i := range a.Services {
		s := &a.Services[i]
		tasks := dns.Record{Shuffle: true}
		for _, e := range serving[i] {
			tasks.Addrs = append(tasks.Addrs, a.Network.Addrs(e.Host)...)
		}
		service := tasks
		if s.VirtualIP != 0 {
			service = dns.Record{Addrs: a.Network.Addrs(s.VirtualIP)}
			for _, addr := range service.Addrs {
				n.Addresses[addr] = s.Name
			}
		}
		name(n, s.Name, service)
		name(n, "tasks."+s.Name, tasks)
		for _, alias := range s.Aliases {
			name(n, alias, service)
			name(n, "tasks."+alias, tasks) // A stack knows its services by these.
		}
	}
	for i, serves := range f.serves(a) {
		e := &a.Endpoints[i]
		addrs := a.Network.Addrs(e.Host)
		if e.Name != "" {
			for _, addr := range addrs {
				n.Addresses[addr] = e.Name
			}
		}
		record := dns.Record{}
		if serves {
			record.Addrs = addrs
		}
		name(n, e.Name, record)
		for _, alias := range e.Aliases {
			name(n, alias, record)
		}
		if slot, is := strings.CutSuffix(e.Name, "."+e.ID); is {
			name(n, slot, record)
		}
	}
	return n
}

// name adds what a name stands for to what it stands for already: an alias may be another
// service's name.
func name(n *dns.Network, name string, record dns.Record) {
	if name = strings.ToLower(strings.TrimSuffix(name, ".")); name == "" {
		return
	}
	known, there := n.Names[name]
	if !there {
		n.Names[name] = record
		return
	}
	for _, addr := range record.Addrs {
		if !slices.Contains(known.Addrs, addr) {
			known.Addrs = append(known.Addrs[:len(known.Addrs):len(known.Addrs)], addr)
		}
	}
	known.Shuffle = known.Shuffle || record.Shuffle
	n.Names[name] = known
}

// askers are the containers that this node carries: its own tasks', and those of nodes on the
// same engine.
func (f *facts) askers(names *dns.Names) {
	byTask := map[string]*dns.Asker{}
	asker := func(task string) *dns.Asker {
		if byTask[task] == nil {
			byTask[task] = &dns.Asker{}
		}
		return byTask[task]
	}
	self := f.self().Index
	add := func(task string, a *account, host cluster.Host) {
		one := asker(task)
		if !a.Network.Spec.Ingress {
			one.Networks = append(one.Networks, a.Network.ID)
		}
		for _, addr := range a.Network.Addrs(host) {
			names.Askers[addr] = one
		}
	}
	for _, a := range f.networks() {
		for i := range a.Endpoints {
			if e := &a.Endpoints[i]; e.Node == self && self != 0 && f.own(e.ID) == nil {
				add(askerOf(e), a, e.Host)
			}
		}
	}
	for i := range f.Tasks {
		t := &f.Tasks[i]
		if t.Ended {
			continue
		}
		for _, address := range t.Addresses {
			if a := byVNI(f.Accounts, address.VNI); a != nil && !a.Dropped {
				add(t.ID, a, address.Host)
			}
		}
		if t.Revision == nil || t.Revision.Spec.ContainerSpec == nil || t.Revision.Spec.ContainerSpec.DNSConfig == nil {
			continue
		}
		for _, server := range t.Revision.Spec.ContainerSpec.DNSConfig.Nameservers {
			if addr, err := netip.ParseAddr(server); err == nil {
				one := asker(t.ID)
				one.Resolvers = append(one.Resolvers, netip.AddrPortFrom(addr, dnsPort))
			}
		}
	}
}

// askerOf is who asks from an endpoint: a container has an attachment for each network that it is on,
// and no other container of the engine has its name.
func askerOf(e *cluster.NetworkEndpoint) string {
	if e.ServiceID == "" && e.Name != "" {
		return "container " + e.Name
	}
	return e.ID
}
