package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// playLocal has a network that the engine of each host makes by itself, as its own configuration says, and forgets.
func playLocal(p *rackPart) {
	for i := range p.hosts {
		p.engineOn(i+1).docker("network", "create", "--config-only", "--subnet", fmt.Sprintf("10.68.%d.0/24", i+1), "cfg")
	}
	p.docker("network", "create", "--scope", "swarm", "-d", "bridge", "--config-from", "cfg", "own")
	p.docker("network", "create", "-d", "overlay", "net")
	p.service("web", "--mode", "global", "--network", "own", "--network", "net", "--publish", "8080:80", "--", "serve")
	p.service("alone", "--mode", "global", "--network", "own", "--", "serve")
	p.running("web", rackHosts)
	p.running("alone", rackHosts)
	seats := p.seats("web")
	for i, h := range p.hosts {
		addr := p.engineOn(i+1).docker("network", "inspect", "-f", `{{range .Containers}}{{.IPv4Address}} {{end}}`, "own")
		for _, a := range strings.Fields(addr) {
			if !strings.HasPrefix(a, fmt.Sprintf("10.68.%d.", i+1)) {
				p.Errorf("a container on %s has %s", h.name, a)
			}
			if _, err := seats[i].get("http://" + strings.TrimSuffix(a, "/24") + "/"); err != nil {
				p.Errorf("%s from %s: %v", a, h.name, err)
			}
		}
		if len(strings.Fields(addr)) != 2 {
			p.Errorf("on %s %q are on the network, want two containers", h.name, addr)
		}
		p.reaches("http://web/ from "+h.name, taskNames(seats), func() (reply, error) { return seats[i].get("http://web/") })
		p.reaches("port 8080 of "+h.name, taskNames(seats), func() (reply, error) { return p.get("http://" + h.addr + ":8080/") })
	}
	p.any().refused("in use by service", "network", "rm", "own")
	p.removed("web", "alone")
	p.gone("own", "net")
	p.eventually("the engines to forget the network", 40*time.Second, func(context.Context) error {
		var errs []error
		for i := range p.hosts {
			if out, err := p.engineOn(i+1).run("network", "inspect", "own"); err == nil {
				errs = append(errs, errors.New(out))
			}
		}
		return errors.Join(errs...)
	})
	for i := range p.hosts {
		p.engineOn(i+1).docker("network", "rm", "cfg")
	}
}

// playAddresses has a network of two subnets, which tasks of each reach each other in, by address and by virtual
// IP and with the published port's network for their way out; and a host whose user has made a network
// of its engine with addresses of the cluster's, which tasks keep off until it is gone.
func playAddresses(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "--subnet", "10.66.0.0/29", "--subnet", "10.66.2.0/29", "--gateway", "10.66.0.1", "--gateway", "10.66.2.6", "wide")
	p.service("wide", "--replicas", "6", "--network", "wide", "--publish", "8080:80", "--", "serve")
	p.running("wide", 6)
	seats, in, addrs := p.seats("wide"), map[netip.Prefix]int{}, []string{}
	for _, id := range p.tasks("wide") {
		for _, text := range p.addresses(id, "wide") {
			in[netip.PrefixFrom(netip.MustParseAddr(text), 29).Masked()]++
			addrs = append(addrs, text)
		}
	}
	// The virtual IP is in the first, which the command may have chosen.
	if a, b := in[netip.MustParsePrefix("10.66.0.0/29")], in[netip.MustParsePrefix("10.66.2.0/29")]; max(a, b) != 4 || min(a, b) != 2 {
		p.Errorf("the tasks' subnets are %v", in)
	}
	for _, s := range seats {
		p.reaches("http://wide/ from "+s.task, taskNames(seats), func() (reply, error) { return s.get("http://wide/") })
		for _, addr := range addrs {
			if _, err := s.get("http://" + addr + "/"); err != nil {
				p.Errorf("%s from %s on %s: %v", addr, s.task, s.host.name, err)
			}
		}
	}
	for _, h := range p.hosts {
		for _, gateway := range []string{"10.66.0.1", "10.66.2.6"} {
			if out, err := h.program(p.Context(), "ip", "route", "get", gateway); err != nil || !strings.HasPrefix(out, "local ") {
				p.Errorf("%s isn't at %s: %v %s", h.name, gateway, err, out)
			}
		}
	}
	p.removed("wide")
	p.gone("wide")

	number := 1
	if p.hosts[0] == p.leader() { // Its engine is asked when a network is made.
		number = 2
	}
	h := p.hosts[number-1]
	p.engineOn(number).docker("network", "create", "--subnet", "10.67.0.128/25", "theirs")
	p.docker("network", "create", "-d", "overlay", "--subnet", "10.67.0.0/24", "ours")
	p.service("apart", "--mode", "global", "--network", "ours", "--", "serve")
	p.service("there", "--constraint", "node.hostname=="+h.name, "--network", "ours", "--", "serve")
	p.eventually("tasks to say what they wait for", 40*time.Second, func(context.Context) error {
		out := p.docker("service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format", "{{.CurrentState}} {{.Error}}", "there", "apart")
		if strings.Count(out, "addresses of network ours in other use on 1 node") != 2 || strings.Count(out, "Running ") != rackHosts-1 {
			return errors.New(out)
		}
		return nil
	})
	status, err := exec.CommandContext(p.Context(), filepath.Join(p.bin, "skep"), "-H", h.node.socket(), "cluster", "status").CombinedOutput()
	if want := "it gets no tasks of network ours: its subnet 10.67.0.0/24 overlaps 10.67.0.128/25, which network theirs of its engine has here"; !strings.Contains(string(status), want) {
		p.Errorf("the status doesn't say %q: %v\n%s", want, err, status)
	}
	p.engineOn(number).docker("network", "rm", "theirs")
	p.running("there", 1)
	p.running("apart", rackHosts)
	p.removed("there", "apart")
	p.gone("ours")
}
