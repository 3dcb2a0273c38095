package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// seat is a place in a container: what runs there is on the container's networks and asks
// whom the container asks for names.
type seat struct {
	*rackPart
	host *rackHost
	id   string // the container's
	pid  string // in the host
	task string // its task's name, as the guest answers
}

// seats are places in the running containers of a service, in the order of the hosts.
func (p *rackPart) seats(service string) []*seat {
	p.Helper()
	var all []*seat
	for i, h := range p.hosts {
		engine := p.engineOn(i + 1)
		for _, id := range strings.Fields(engine.docker("ps", "-q", "--no-trunc", "--filter", "label=com.docker.swarm.service.name="+service)) {
			pid, name, _ := strings.Cut(engine.docker("inspect", "--type", "container", "-f", `{{.State.Pid}} {{index .Config.Labels "com.docker.swarm.task.name"}}`, id), " ")
			if pid != "0" { // It has ended meanwhile.
				all = append(all, &seat{p, h, id, pid, name})
			}
		}
	}
	return all
}

// guest runs the guest in the container.
func (s *seat) guest(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	return s.host.program(ctx, "nsenter", s.args(args)...)
}

func (s *seat) args(args []string) []string {
	return append([]string{"-t", s.pid, "-n", "-m", "/guest"}, args...)
}

func (s *seat) get(url string) (reply, error) { return parseReply(s.guest("get", url)) }

func (s *seat) udp(to string) (reply, error) { return parseReply(s.guest("udp", to)) }

// lookup are the addresses of a name, or the names of an address; none if there is no such.
func (s *seat) lookup(name string) []string {
	s.Helper()
	out, err := s.guest("lookup", name)
	if err != nil {
		s.Fatalf("look %s up on %s: %v", name, s.host.name, err)
	}
	if out = strings.TrimSpace(out); out == "-" {
		return nil
	}
	return strings.Fields(out)
}

// addresses are those of a task in a network of the cluster, without their lengths.
func (p *rackPart) addresses(task, network string) []string {
	p.Helper()
	var found []string
	for _, a := range strings.Fields(p.docker("inspect", "--type", "task", "-f", `{{range .NetworksAttachments}}{{if eq .Network.Spec.Name "`+network+`"}}{{range .Addresses}}{{.}} {{end}}{{end}}{{end}}`, task)) {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			p.Errorf("task %s has the address %q: %v", task, a, err)
			continue
		}
		found = append(found, prefix.Addr().String())
	}
	return found
}

// tasks are the IDs of a service's running tasks.
func (p *rackPart) tasks(service string) []string {
	p.Helper()
	return strings.Fields(p.docker("service", "ps", "-q", "--no-trunc", "--filter", "desired-state=running", service))
}

// same tells whether two lists have the same members.
func same(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// reaches asks a URL until it has heard each of the tasks, a few dozen times at most, and
// returns the addresses that they saw.
func (p *rackPart) reaches(what string, tasks []string, ask func() (reply, error)) map[string]bool {
	p.Helper()
	heard, clients := map[string]bool{}, map[string]bool{}
	for range 20 * len(tasks) {
		r, err := ask()
		if err != nil {
			p.Errorf("%s: %v", what, err)
			return clients
		}
		heard[r.Task], clients[r.Client] = true, true
		if len(heard) == len(tasks) {
			break
		}
	}
	var names []string
	for name := range heard {
		names = append(names, name)
	}
	if !same(names, tasks) {
		p.Errorf("%s: %v answered, want %v", what, names, tasks)
	}
	return clients
}

func taskNames(seats []*seat) []string {
	var names []string
	for _, s := range seats {
		names = append(names, s.task)
	}
	return names
}

// oneEach places a task of a service on each host.
var oneEach = []string{"--replicas", fmt.Sprint(rackHosts), "--replicas-max-per-node", "1"}

// probe starts a container on each host that does nothing, on the networks, and takes a seat
// in each.
func (p *rackPart) probe(networks ...string) []*seat {
	p.Helper()
	args := []string{"--mode", "global"}
	for _, n := range networks {
		args = append(args, "--network", n)
	}
	p.service("probe", append(args, "--", "sleep")...)
	p.running("probe", rackHosts)
	return p.seats("probe")
}

// playNames finds tasks by all their names from a container on each host.
func playNames(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "net")
	probes := p.probe("net")
	p.service("web", append(slices.Clone(oneEach), "--network", "name=net,alias=www", "--", "serve")...)
	p.service("rr", append(slices.Clone(oneEach), "--network", "net", "--endpoint-mode", "dnsrr", "--", "serve")...)
	p.running("web", rackHosts)
	p.running("rr", rackHosts)
	web, rr := p.seats("web"), p.seats("rr")

	vip, _, _ := strings.Cut(p.docker("service", "inspect", "-f", "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", "web"), "/")
	addresses, slot := map[string][]string{}, map[string]string{}
	for _, service := range []string{"web", "rr"} {
		for _, id := range p.tasks(service) {
			has := p.addresses(id, "net")
			if len(has) != 1 {
				p.Fatalf("task %s of %s has the addresses %v", id, service, has)
			}
			addresses[service] = append(addresses[service], has[0])
			slot[fmt.Sprintf("%s.%s", service, p.docker("inspect", "--type", "task", "-f", "{{.Slot}}", id))] = has[0]
			slot[fmt.Sprintf("%s.%s.%s", service, p.docker("inspect", "--type", "task", "-f", "{{.Slot}}", id), id)] = has[0]
		}
	}
	for _, s := range probes {
		found := func(name string, want ...string) {
			p.Helper()
			if got := s.lookup(name); !same(got, want) {
				p.Errorf("on %s %s is %v, want %v", s.host.name, name, got, want)
			}
		}
		found("web", vip)
		found("www", vip)
		found("tasks.web", addresses["web"]...)
		found("rr", addresses["rr"]...)
		found("tasks.rr", addresses["rr"]...)
		found("nobody")
		for name, addr := range slot {
			found(name, addr)
		}
		if got := s.lookup(vip); len(got) != 1 || !strings.HasPrefix(got[0], "web.") {
			p.Errorf("on %s %s is %v", s.host.name, vip, got)
		}
		on := func(url string) func() (reply, error) { return func() (reply, error) { return s.get(url) } }
		own := p.ownAddress(s, "net")
		for _, name := range []string{"web", "tasks.web", "www"} {
			if clients := p.reaches("http://"+name+" from "+s.host.name, taskNames(web), on("http://"+name+"/")); len(clients) != 1 || !clients[own] {
				p.Errorf("tasks behind %s saw %v call from %s, want %s", name, clients, s.host.name, own)
			}
		}
		p.reaches("http://rr from "+s.host.name, taskNames(rr), on("http://rr/"))
		p.reaches("UDP to web from "+s.host.name, taskNames(web), func() (reply, error) { return s.udp("web:80") })
		if r, err := s.get("http://web.1/"); err != nil || !strings.HasPrefix(r.Task, "web.1.") {
			p.Errorf("web.1 is answered by %+v, %v", r, err)
		}
	}
	// A task that calls its own virtual IP may be led to itself.
	p.reaches("http://web from a task of its own", taskNames(web), func() (reply, error) { return web[0].get("http://web/") })
	p.any().refused("net", "network", "rm", "net")
	p.removed("web", "rr", "probe")
	p.gone("net")
}

// ownAddress is a container's own in a network, as its task has it.
func (p *rackPart) ownAddress(s *seat, network string) string {
	p.Helper()
	_, id, _ := strings.Cut(strings.TrimPrefix(s.task, "probe."), ".")
	has := p.addresses(id, network)
	if len(has) == 0 {
		p.Fatalf("task %s has no address in %s", s.task, network)
	}
	return has[0]
}

// gone removes networks once nothing is on them.
func (p *rackPart) gone(networks ...string) {
	p.Helper()
	p.eventually("networks to be removed", 20*time.Second, func(context.Context) error {
		if out, err := p.any().run(append([]string{"network", "rm"}, networks...)...); err != nil {
			return errors.New(out)
		}
		return nil
	})
}

// playMesh calls published ports on every host, from outside, by both families and protocols.
func playMesh(p *rackPart) {
	// Docker's command asks before it removes this one.
	if err := p.hosts[0].node.api.NetworkRemove(p.Context(), "ingress"); err != nil {
		p.Fatal(err)
	}
	p.docker("network", "create", "-d", "overlay", "--ingress", "--ipv6", "ingress")
	p.service("web", append(slices.Clone(oneEach), "--publish", "8080:80", "--publish", "8053:80/udp", "--", "serve")...)
	p.service("one", "--constraint", "node.hostname==n2", "--", "serve")
	p.running("web", rackHosts)
	p.running("one", 1)
	web, one := p.seats("web"), p.seats("one")
	for _, h := range p.hosts {
		for addr, client := range map[string]string{h.addr: p.outsideIP, "[" + h.v6 + "]": p.outsideV6} {
			for what, ask := range map[string]func() (reply, error){
				"http://" + addr + ":8080": func() (reply, error) { return p.get("http://" + addr + ":8080/") },
				"UDP to " + addr + ":8053": func() (reply, error) { return parseReply(p.guest("udp", addr+":8053")) },
			} {
				if clients := p.reaches(what, taskNames(web), ask); len(clients) != 1 || !clients[client] {
					p.Errorf("%s: the tasks saw %v call, want %s", what, clients, client)
				}
			}
		}
		// The hosts themselves ask, too.
		guest := filepath.Join(p.bin, "guest")
		for _, to := range []string{"127.0.0.1", h.addr, p.hosts[0].addr} {
			p.reaches("port 8080 of "+to+" from "+h.name, taskNames(web), func() (reply, error) {
				return parseReply(h.program(p.Context(), guest, "get", "http://"+to+":8080/"))
			})
		}
	}
	// A port that is published later replaces nothing.
	p.docker("service", "update", "--detach", "--no-resolve-image", "--publish-add", "8081:80", "one")
	for _, h := range p.hosts {
		p.eventually("port 8081 of "+h.name, 10*time.Second, func(context.Context) error {
			r, err := p.get("http://" + h.addr + ":8081/")
			if err == nil && (r.Task != one[0].task || r.Client != p.outsideIP) {
				err = fmt.Errorf("it answers %+v, want %s", r, one[0].task)
			}
			return err
		})
	}
	if now := p.seats("one"); len(now) != 1 || now[0].id != one[0].id {
		p.Errorf("the task was replaced")
	}
	p.docker("service", "update", "--detach", "--no-resolve-image", "--publish-rm", "8081:80", "one")
	for _, h := range p.hosts {
		p.eventually("port 8081 of "+h.name+" to be closed", 10*time.Second, func(context.Context) error {
			if r, err := p.get("http://" + h.addr + ":8081/"); err == nil {
				return fmt.Errorf("it answers %+v", r)
			}
			return nil
		})
	}
	p.any().refused("8080", "service", "create", "--detach", "--no-resolve-image", "--name", "other", "--publish", "8080:80", guestImage(1), "serve")
	p.removed("web", "one")
}

// playIPv6 finds and calls tasks of a network with both families, by the second.
func playIPv6(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "--ipv6", "--subnet", "10.99.1.0/24", "--subnet", "fd99:1::/64", "six")
	probes := p.probe("six")
	p.service("web", append(slices.Clone(oneEach), "--network", "six", "--", "serve")...)
	p.running("web", rackHosts)
	web := p.seats("web")
	for _, s := range probes {
		vips := s.lookup("web")
		if len(vips) != 2 || !netip.MustParsePrefix("10.99.1.0/24").Contains(netip.MustParseAddr(vips[0])) || !netip.MustParsePrefix("fd99:1::/64").Contains(netip.MustParseAddr(vips[1])) {
			p.Errorf("on %s web is %v", s.host.name, vips)
			continue
		}
		if got := s.lookup("tasks.web"); len(got) != 2*rackHosts {
			p.Errorf("on %s tasks.web is %v", s.host.name, got)
		}
		clients := p.reaches("http://["+vips[1]+"] from "+s.host.name, taskNames(web), func() (reply, error) { return s.get("http://[" + vips[1] + "]/") })
		for client := range clients {
			if !strings.HasPrefix(client, "fd99:1::") {
				p.Errorf("a task saw %s call", client)
			}
		}
		p.reaches("UDP to ["+vips[1]+"] from "+s.host.name, taskNames(web), func() (reply, error) { return s.udp("[" + vips[1] + "]:80") })
		p.reaches("http://web from "+s.host.name, taskNames(web), func() (reply, error) { return s.get("http://web/") })
	}
	p.removed("web", "probe")
	p.gone("six")
}

// unreached is how long an answer is waited for that mustn't come.
const unreached = "500ms"

// playApart has networks that can't reach each other, and one that reaches nothing else.
func playApart(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "a")
	p.docker("network", "create", "-d", "overlay", "b")
	p.docker("network", "create", "-d", "overlay", "--internal", "in")
	world := &piped{}
	if err := world.start(p.outside, filepath.Join(p.bin, "guest"), "serve", "-port", "9000"); err != nil {
		p.Fatal(err)
	}
	defer func() {
		_ = world.cmd.Process.Kill()
		_ = world.cmd.Wait()
	}()
	out := "http://" + p.outsideIP + ":9000/"
	var seats []*seat
	for _, name := range []string{"a", "b", "in"} {
		service := "on-" + name
		p.service(service, append(slices.Clone(oneEach), "--network", name, "--", "serve")...)
		p.running(service, rackHosts)
		seats = append(seats, p.seats(service)[0])
	}
	a, in := seats[0], seats[2]
	if _, err := a.get(out); err != nil {
		p.Errorf("from network a the world isn't reached: %v", err)
	}
	if _, err := in.guest("get", out, unreached); err == nil {
		p.Error("from an internal network the world is reached")
	}
	p.reaches("http://on-in on its network", taskNames(p.seats("on-in")), func() (reply, error) { return in.get("http://on-in/") })
	for _, from := range []*seat{a, in} {
		for _, other := range []string{"b", "in", "a"} {
			if strings.HasPrefix(from.task, "on-"+other+".") {
				continue
			}
			name := "on-" + other
			if got := from.lookup(name); got != nil {
				p.Errorf("%s knows %s, which is on another network: %v", from.task, name, got)
			}
			addrs := []string{regexp.MustCompile(`/.*`).ReplaceAllString(p.docker("service", "inspect", "-f", "{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}", name), "")}
			for _, id := range p.tasks(name) {
				addrs = append(addrs, p.addresses(id, other)...)
			}
			for _, addr := range addrs {
				if said, err := from.guest("get", "http://"+addr+"/", unreached); err == nil {
					p.Errorf("%s reaches %s of network %s: %s", from.task, addr, other, said)
				}
			}
		}
		// A virtual IP isn't the way to the host's own ports.
		for _, port := range []string{"2377", "7946"} {
			own, _, _ := strings.Cut(from.task, ".")
			if out, err := from.guest("get", "http://"+own+":"+port+"/", unreached); err == nil || !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "unreachable") {
				p.Errorf("port %s behind a virtual IP says %q, %v", port, out, err)
			}
		}
	}
	p.removed("on-a", "on-b", "on-in")
	p.gone("a", "b", "in")
}
