package up

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"
)

const (
	// mostSkew is how far clocks of machines may be apart. Certificates are good from an
	// hour before they are made, and ages are shown in seconds.
	mostSkew = 10 * time.Second
	// leastDisk is how much room the disk of the database must have.
	leastDisk = 1 << 30
	// leastMTU is what IPv6 needs, behind what a packet between nodes has before it.
	leastMTU = 1280 + 50
	// leastAPI is the engine's oldest API that nodes speak.
	leastAPI = "1.24"
)

// Problem is something that would fail later, and what to do about it.
type Problem struct {
	// Machine is its host; empty for all of them.
	Machine string `json:",omitempty"`
	What    string
	Do      string `json:",omitempty"`
}

func (p Problem) String() string {
	text := p.What
	if p.Machine != "" {
		text = p.Machine + ": " + text
	}
	if p.Do != "" {
		text += "\n    → " + p.Do
	}
	return text
}

// Options are what is wanted beside the list.
type Options struct {
	// Version and Digests are of the binary that machines shall run: the digest by its
	// architecture.
	Version string
	Digests map[string]string
	// Remove are the hosts of machines that shall be no nodes any more.
	Remove []string
	// Force has machines upgraded whatever `skep upgrade check` says.
	Force bool
}

// Check says what is wrong with the machines of a list, and those to be removed.
func Check(l List, w World, o Options) []Problem {
	c := checker{list: l, world: w, opts: o}
	for _, m := range l.Machines {
		c.machine(m)
	}
	for _, host := range o.Remove {
		if s := w[host]; s.Err != "" {
			c.say(host, s.Err, strings.TrimPrefix(s.Do+"; if it is gone for good: \"skep node demote\" and \"skep node rm --force\" on a manager", "; "))
		}
	}
	c.twice("host name", "rename one: hostnamectl set-hostname NAME", func(s *Sight) string { return s.Hostname })
	c.twice("machine ID", "they are clones: rm /etc/machine-id && systemd-machine-id-setup on one, and reboot it", func(s *Sight) string { return s.MachineID })
	c.clocks()
	c.mtus()
	c.clusters()
	return c.found
}

type checker struct {
	list  List
	world World
	opts  Options
	found []Problem
}

func (c *checker) say(host, what, do string) { c.found = append(c.found, Problem{host, what, do}) }

// seen are the list's machines that could be looked at.
func (c *checker) seen() (all []Machine) {
	for _, m := range c.list.Machines {
		if s := c.world[m.Host]; s.Err == "" && s.MachineID != "" {
			all = append(all, m)
		}
	}
	return all
}

func (c *checker) machine(m Machine) {
	s := c.world[m.Host]
	say := func(do, format string, args ...any) { c.say(m.Host, fmt.Sprintf(format, args...), do) }
	switch {
	case s.Err != "":
		say(s.Do, "%s", s.Err)
		return
	case c.opts.Digests[s.Arch] == "":
		say(fmt.Sprintf("give one that is, beside this one: --binary FILE (\"GOARCH=%s make build\" makes one)", s.Arch), "it is a machine of %s, and there is no skep for that here", s.Arch)
		return
	}
	if s.Systemd == "" {
		say("use a machine that systemd runs, or run \"skep daemon\" there by other means", "systemd doesn't run it")
	}
	switch {
	case s.Engine.Error != "":
		say("install one (Debian, Ubuntu: apt-get install docker.io) and start it: systemctl enable --now docker", "there is no Docker Engine that answers: %s", s.Engine.Error)
	case versions.LessThan(s.Engine.API, leastAPI):
		say("upgrade it", "its Docker Engine %s is too old: its API is %s, and %s is needed", s.Engine.Version, s.Engine.API, leastAPI)
	case s.Engine.Swarm != "":
		say("leave that first, with --force if it is a manager: docker -H unix:///var/run/docker.sock swarm leave", "its Docker Engine is in a swarm of its own (%s)", s.Engine.Swarm)
	}
	if s.NoNetworks != "" {
		say("see \"Networks\" in the README", "it can't carry networks that span nodes: %s", s.NoNetworks)
	}
	if s.DiskSize > 0 && s.DiskFree < leastDisk {
		say("make room", "the disk of /var/lib has %d MiB free, and %d are needed", s.DiskFree>>20, leastDisk>>20)
	}
	if len(s.Taken) > 0 {
		say("see which: ss -lpn; stop it", "another program has %s", strings.Join(s.Taken, ", "))
	}
	if s.Skep.Packaged && s.Skep.Version != c.opts.Version {
		say("install the package of "+c.opts.Version+" there, or remove it and run this again", "a package has installed skep %s, and this is %s", s.Skep.Version, c.opts.Version)
	}
	switch addr, err := address(m, s); {
	case err != nil:
		say("say in the list by which of its addresses the others reach it: addr: ADDRESS", "%v", err)
	case s.Node.in() && m.Addr != "" && s.Node.Addr != "" && s.Node.Addr != addr:
		say("correct the list, or give the node another: see \"Addresses\" in the README", "the list says address %s, and the node advertises %s", m.Addr, s.Node.Addr)
	}
	c.cuts(m, s)
}

// cuts has a problem for each machine that this one doesn't reach.
func (c *checker) cuts(m Machine, s *Sight) {
	by := map[string][]Cut{}
	for _, cut := range s.Cut {
		by[cut.To] = append(by[cut.To], cut)
	}
	for _, to := range slices.Sorted(maps.Keys(by)) {
		var ports []string
		large := false
		for _, cut := range by[to] {
			if large = large || cut.Large; !cut.Large {
				ports = append(ports, fmt.Sprintf("%s (%s)", cut.Port, cut.Why))
			}
		}
		switch {
		case len(ports) > 0:
			c.say(m.Host, fmt.Sprintf("it doesn't reach %s of %s, %s", strings.Join(ports, ", "), to, by[to][0].Addr),
				"let them through, in the firewall of "+to+" and on the way; or say another address in the list: addr: ADDRESS")
		case large:
			c.say(m.Host, fmt.Sprintf("large packets to %s, %s, are lost: the way there carries less than the interface's MTU says", to, by[to][0].Addr),
				"lower the MTU of the interfaces to what the way carries")
		}
	}
}

// twice has a problem for each value that several machines have.
func (c *checker) twice(what, do string, value func(*Sight) string) {
	by := map[string][]string{}
	for _, m := range c.seen() {
		if v := value(c.world[m.Host]); v != "" {
			by[v] = append(by[v], m.Host)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(by)) {
		if len(by[v]) > 1 {
			c.say("", fmt.Sprintf("%s have the same %s, %s", strings.Join(by[v], ", "), what, v), do)
		}
	}
}

// clocks compares each machine's clock with the one in the middle.
func (c *checker) clocks() {
	all := c.seen()
	if len(all) < 2 {
		return
	}
	slices.SortStableFunc(all, func(a, b Machine) int { return cmp.Compare(c.world[a.Host].Ahead, c.world[b.Host].Ahead) })
	middle := c.world[all[len(all)/2].Host]
	for _, m := range all {
		s := c.world[m.Host]
		apart := s.Ahead - middle.Ahead
		if apart.Abs()-s.Unsure-middle.Unsure > mostSkew {
			word := "ahead of"
			if apart < 0 {
				word = "behind"
			}
			c.say(m.Host, fmt.Sprintf("its clock is %v %s that of others", apart.Abs().Round(time.Second), word), "set it: timedatectl set-ntp true")
		}
	}
}

// mtus compares those of the interfaces that machines reach each other by.
func (c *checker) mtus() {
	by := map[int][]string{}
	for _, m := range c.seen() {
		s := c.world[m.Host]
		addr, err := address(m, s)
		if err != nil {
			continue
		}
		for _, a := range s.Addresses {
			if a.IP.String() == addr {
				by[a.MTU] = append(by[a.MTU], m.Host)
				if a.MTU < leastMTU {
					c.say(m.Host, fmt.Sprintf("its interface %s has an MTU of %d, and networks that span nodes need %d", a.Interface, a.MTU, leastMTU), "raise it")
				}
			}
		}
	}
	if len(by) < 2 {
		return
	}
	var parts []string
	for _, mtu := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d on %s", mtu, strings.Join(by[mtu], ", ")))
	}
	c.say("", "the machines' interfaces have different MTUs, so large packets of networks would be lost: "+strings.Join(parts, "; "), "give them the same")
}

// clusters finds machines that are nodes of different clusters, and those that can't go on by themselves.
func (c *checker) clusters() {
	ids := map[string][]string{}
	var known *Cluster
	for _, host := range slices.Concat(c.list.Hosts(), c.opts.Remove) {
		s := c.world[host]
		switch {
		case s.Node.State == swarm.LocalNodeStateLocked:
			c.say(host, "its manager is locked", "unlock it there: skep swarm unlock")
		case s.Node.State == swarm.LocalNodeStateError:
			c.say(host, "its node can't go on: "+s.Node.Error, "take it out of its cluster: skep swarm leave --force there, and \"skep node rm\" on a manager")
		}
		if s.Cluster != nil {
			ids[s.Cluster.ID] = append(ids[s.Cluster.ID], host)
			if s.Cluster.Error == "" {
				known = s.Cluster
			}
		}
	}
	if len(ids) > 1 {
		var parts []string
		for _, id := range slices.Sorted(maps.Keys(ids)) {
			parts = append(parts, fmt.Sprintf("%s in %s", strings.Join(ids[id], ", "), id))
		}
		c.say("", "the machines are in different clusters: "+strings.Join(parts, "; "), "take those that shall move out of theirs: skep swarm leave")
		return
	}
	nodes, names := map[string]bool{}, map[string]string{}
	if known != nil {
		for _, n := range known.Status.Nodes {
			nodes[n.NodeID], names[n.Hostname] = true, n.NodeID
		}
	}
	for _, m := range c.list.Machines {
		s := c.world[m.Host]
		switch {
		case s.Err != "" || s.Node.State == swarm.LocalNodeStateLocked || s.Node.State == swarm.LocalNodeStateError:
		case known != nil && s.Node.State == swarm.LocalNodeStateActive && !nodes[s.Node.ID]:
			c.say(m.Host, fmt.Sprintf("it is a node (%s) of another cluster than the others", s.Node.ID), "take it out of that: skep swarm leave")
		case known != nil && !s.Node.in() && !s.Skep.Data && names[s.Hostname] != "" && c.alive(known, names[s.Hostname]):
			c.say(m.Host, fmt.Sprintf("the cluster has another node that is named %s", s.Hostname), "rename it: hostnamectl set-hostname NAME")
		case known == nil && len(ids) == 0 && s.Node.State == swarm.LocalNodeStateActive && !s.Node.Manager && m.Role == swarm.NodeRoleWorker && c.all(func(s *Sight) bool { return !s.Skep.Data || s.Node.in() && !s.Node.Manager }):
			c.say(m.Host, "it is a worker of a cluster whose managers aren't in the list", "add them to the list, or take it out of that: skep swarm leave")
		}
	}
}

// alive tells whether a node of the cluster is there.
func (c *checker) alive(known *Cluster, id string) bool {
	for _, n := range known.Status.Nodes {
		if n.NodeID == id {
			return n.State == string(swarm.NodeStateReady)
		}
	}
	return false
}

func (c *checker) all(is func(*Sight) bool) bool {
	for _, m := range c.list.Machines {
		if !is(c.world[m.Host]) {
			return false
		}
	}
	return true
}

// address is the one by which other machines reach a machine: what the list says, else what the node
// advertises, else what ssh has come by, else the only one.
func address(m Machine, s *Sight) (string, error) {
	has := func(addr string) bool {
		ip, err := netip.ParseAddr(addr)
		return err == nil && slices.ContainsFunc(s.Addresses, func(a Address) bool { return a.IP == ip })
	}
	switch {
	case m.Addr != "":
		return m.Addr, nil // It may be that of a NAT.
	case s.Node.in() && s.Node.Addr != "":
		return s.Node.Addr, nil
	case has(s.Reached):
		return s.Reached, nil
	case len(s.Addresses) == 1:
		return s.Addresses[0].IP.String(), nil
	}
	var all []string
	for _, a := range s.Addresses {
		all = append(all, a.IP.String()+" on "+a.Interface)
	}
	if len(all) == 0 {
		return "", fmt.Errorf("it has no address that others could reach")
	}
	return "", fmt.Errorf("it has several addresses (%s), and ssh comes by none of them", strings.Join(all, ", "))
}
