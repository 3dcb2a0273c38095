package console

import (
	"cmp"
	"slices"
	"strings"

	"skep/cluster"
)

// networkShown is a network and who is on it.
type networkShown struct {
	ID, Name, Stack string
	Driver          string
	Subnets         []string
	Notes           []string
	Services        []memberShown
	Tasks           int
	Containers      []memberShown
	Used            int
}

// memberShown is a place in a network.
type memberShown struct{ ID, Name, Addr string }

// publishedShown is a port that nodes publish.
type publishedShown struct {
	Port, Target, Mode string
	linkShown
}

// maxMembers is how many services or containers of a network are named.
const maxMembers = 100

// networksPage lists the cluster's networks, who is attached, and published ports.
func networksPage(l *look) (page, error) {
	filter := l.filter()
	var rows []networkShown
	for n := range l.view.Networks() {
		one := l.network(n)
		if fits(filter, one.Name, one.ID, one.Stack, one.Driver, strings.Join(one.Subnets, " ")) {
			rows = append(rows, one)
		}
	}
	slices.SortFunc(rows, func(a, b networkShown) int { return compareNames(a.Name, b.Name) })
	var ports []publishedShown
	for s := range l.view.Services() {
		for _, p := range s.Ports {
			one := publishedShown{Target: count(p.TargetPort), Mode: string(p.PublishMode), linkShown: linkShown{s.ID, s.Spec.Name}}
			one.Port = plain(p.PublishedPort) + "/" + cmp.Or(string(p.Protocol), "tcp")
			one.Target = plain(p.TargetPort)
			if p.PublishedPort == 0 {
				one.Port = "any/" + cmp.Or(string(p.Protocol), "tcp")
			}
			if fits(filter, one.Port, one.Name, one.Mode) {
				ports = append(ports, one)
			}
		}
	}
	slices.SortFunc(ports, func(a, b publishedShown) int {
		return cmp.Or(compareNames(a.Port, b.Port), compareNames(a.Name, b.Name))
	})
	topics := topicNetworks + " " + topicTasks + " " + topicServices
	return page{
		Title: "Networks", Nav: "networks", Filter: filter, CanFilter: true,
		Sections: []section{
			{ID: "networks", Topics: topics, Wide: true, Template: "networks", Data: cut(rows, filter)},
			{ID: "ports", Title: "Published ports", Topics: topics, Wide: true, Template: "ports", Data: cut(ports, filter)},
		},
	}, nil
}

func (l *look) network(n *cluster.Network) networkShown {
	shown := networkShown{ID: n.ID, Name: n.Spec.Name, Stack: n.Spec.Labels[stackLabel], Driver: n.Driver()}
	for _, s := range n.Subnets {
		for _, given := range s.Given() {
			shown.Subnets = append(shown.Subnets, given.Prefix.String())
		}
	}
	for _, note := range []struct {
		is   bool
		text string
	}{{n.Encrypted(), "encrypted"}, {n.Spec.Internal, "internal"}, {n.Spec.Attachable, "attachable"}, {n.Spec.Ingress, "carries published ports"}, {!n.Spans(), "each engine's own"}} {
		if note.is {
			shown.Notes = append(shown.Notes, note.text)
		}
	}
	if !n.Spans() {
		for s := range l.view.Services() {
			for _, on := range s.Spec.TaskTemplate.Networks {
				if on.Target == n.ID || on.Target == n.Spec.Name {
					shown.Services = append(shown.Services, memberShown{ID: s.ID, Name: s.Spec.Name})
				}
			}
		}
		return shown
	}
	shown.Used = l.view.AddressesIn(n.VNI)
	addr := func(addresses []cluster.Address) string {
		host := cluster.AddressIn(addresses, n.VNI)
		if host == 0 || len(n.Subnets) == 0 {
			return ""
		}
		var said []string
		for _, a := range n.Addrs(host) {
			said = append(said, a.String())
		}
		return strings.Join(said, ", ")
	}
	on := map[string]bool{}
	for task := range l.view.TasksOfNetwork(n.VNI) {
		if !task.Dead() {
			shown.Tasks++
			on[task.ServiceID] = true
		}
	}
	for s := range l.view.Services() {
		if vip := addr(s.VirtualIPs); vip != "" || on[s.ID] {
			shown.Services = append(shown.Services, memberShown{s.ID, s.Spec.Name, vip})
		}
	}
	for a := range l.view.Attachments() {
		if a.NetworkID == n.ID && a.Ended == 0 {
			shown.Containers = append(shown.Containers, memberShown{a.NodeID, a.Name + " on " + l.nodeName(a.NodeID), addr([]cluster.Address{a.Address})})
		}
	}
	byName := func(a, b memberShown) int { return compareNames(a.Name, b.Name) }
	slices.SortFunc(shown.Services, byName)
	slices.SortFunc(shown.Containers, byName)
	shown.Services = shown.Services[:min(len(shown.Services), maxMembers)]
	shown.Containers = shown.Containers[:min(len(shown.Containers), maxMembers)]
	return shown
}
