package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// oneHostNodes are the nodes of TestOneHost: two of three managers are a majority, when one is gone.
const oneHostNodes = 3

// oneHostUp has several nodes share a host, and its engine.
func oneHostUp(r *rack, ctx context.Context) error {
	if err := r.wire(1); err != nil {
		return err
	}
	h := r.hosts[0]
	h.node.addr = "127.0.1.1"
	shared := []string{"--runtime-dir", filepath.Join(h.dir, "run")}
	h.node.flags = append(h.node.flags, shared...)
	if err := h.boot(ctx); err != nil {
		return err
	}
	peers := []peer{{h.name, h.node.addr, h.node.api}}
	for i := 2; i <= oneHostNodes; i++ {
		n := newNode(fmt.Sprint("n", i), fmt.Sprint("127.0.1.", i), filepath.Join(h.dir, fmt.Sprint("node", i)), h.node.binary, "--engine", h.engine.socket())
		n.flags = append(n.flags, shared...)
		n.in = h.in
		h.others = append(h.others, n)
		if err := n.start(ctx); err != nil {
			return err
		}
		peers = append(peers, peer{n.name, n.addr, n.api})
	}
	return form(ctx, peers, oneHostNodes)
}

// onOneHost waits until that many of the nodes are ready managers.
func (p *rackPart) onOneHost(ready int) {
	p.Helper()
	p.eventually(fmt.Sprintf("%d nodes to be ready", ready), time.Minute, func(context.Context) error {
		out, err := p.any().run("node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}")
		if n := strings.Count(out, "Ready Reachable") + strings.Count(out, "Ready Leader"); err != nil || n != ready {
			return errors.New(out)
		}
		return nil
	})
}

// kernel are what the host's kernel and engine have of the cluster's networks.
func (p *rackPart) kernel() (has []string) {
	p.Helper()
	h := p.hosts[0]
	ask := func(what string, filter func(string) bool, name string, args ...string) {
		out, err := h.program(p.Context(), name, args...)
		if err != nil {
			p.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); filter(line) {
				has = append(has, what+": "+line)
			}
		}
	}
	contains := func(part string) func(string) bool {
		return func(line string) bool { return strings.Contains(line, part) }
	}
	ask("link", func(line string) bool { return strings.Contains(line, ": skb") || strings.Contains(line, ": skx") }, "ip", "-o", "link")
	ask("table", contains("skep"), "nft", "list", "tables")
	ask("firewall", contains(" skb"), "iptables-save", "-t", "filter")
	ask("rule", contains("skb"), "ip", "rule")
	for _, name := range strings.Fields(p.engineOn(1).docker("network", "ls", "-q", "--filter", "label=skep.network")) {
		has = append(has, "engine's network: "+name)
	}
	return has
}

// answersAll calls the tasks of web by each way there is, from each of so many containers of probe.
func (p *rackPart) answersAll(probes, tasks int) {
	p.Helper()
	h := p.hosts[0]
	var web, probe []*seat
	p.eventually("names and the mesh to know the tasks", 20*time.Second, func(context.Context) error {
		// Those on their way out would go while they are asked.
		if web, probe = p.seats("web"), p.seats("probe"); len(web) != tasks || len(probe) != probes {
			return fmt.Errorf("there are %d containers of web, and %d of probe", len(web), len(probe))
		}
		for _, s := range probe {
			if got, err := s.guest("lookup", "tasks.web"); err != nil || len(strings.Fields(got)) != tasks {
				return fmt.Errorf("tasks.web is %q, %v", got, err)
			}
		}
		return nil
	})
	names := taskNames(web)
	for _, s := range probe {
		p.reaches("http://web from "+s.task, names, func() (reply, error) { return s.get("http://web/") })
	}
	if clients := p.reaches("the port from outside", names, func() (reply, error) { return p.get("http://" + h.addr + ":8080/") }); len(clients) != 1 || !clients[p.outsideIP] {
		p.Errorf("from outside the tasks saw %v call, want %s", clients, p.outsideIP)
	}
	for _, to := range []string{"127.0.0.1", "127.0.1.2", h.addr} {
		p.reaches("the port at "+to, names, func() (reply, error) {
			return parseReply(h.program(p.Context(), filepath.Join(p.bin, "guest"), "get", "http://"+to+":8080/"))
		})
	}
}

// seatOf is the place in a service's container that is of a node.
func (p *rackPart) seatOf(service string, n *node) *seat {
	p.Helper()
	id, err := n.id(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	for _, s := range p.seats(service) {
		if p.engineOn(1).docker("inspect", "-f", `{{index .Config.Labels "`+nodeLabel+`"}}`, s.id) == id {
			return s
		}
	}
	p.Fatalf("%s has no container on %s", service, n.name)
	return nil
}

// TestOneHost plays networks where several nodes share an engine: one of them makes them for all.
func TestOneHost(t *testing.T) {
	needRack(t)
	p := &rackPart{t, rackUp(t, oneHostUp)}
	began := time.Now()
	defer p.tell(began)
	h := p.hosts[0]
	nodes := append([]*node{h.node}, h.others...)
	p.onOneHost(oneHostNodes)

	p.docker("network", "create", "-d", "overlay", "net")
	p.service("probe", "--mode", "global", "--network", "net", "--", "sleep")
	p.service("web", append(slices.Clone(oneEach), "--network", "net", "--publish", "8080:80", "--", "serve")...)
	p.running("probe", oneHostNodes)
	p.running("web", oneHostNodes)
	p.answersAll(oneHostNodes, oneHostNodes)

	inside, outside := p.seatOf("probe", nodes[1]).calling("http://web/"), p.calling(8080, h)
	var now phases
	now.begin(p, "kill of the node that makes the networks")
	h.node.kill()
	p.onOneHost(oneHostNodes - 1)
	now.begin(p, "new service")
	p.docker("service", "scale", "--detach", "web=2") // The killed node's task can't be replaced on another.
	p.docker("network", "create", "-d", "overlay", "later")
	p.service("later", "--network", "later", "--publish", "8081:80", "--", "serve")
	p.running("later", 1)
	p.eventually("a service to answer that began meanwhile", 20*time.Second, func(context.Context) error {
		_, err := p.get("http://" + h.addr + ":8081/")
		return err
	})
	now.begin(p, "return of the node")
	if err := h.node.start(p.Context()); err != nil {
		t.Fatal(err)
	}
	p.onOneHost(oneHostNodes)
	p.running("probe", oneHostNodes)
	p.running("web", 2)
	p.answersAll(oneHostNodes, 2)
	now.begin(p, "drain")
	p.docker("node", "update", "--availability", "drain", "n1")
	p.running("probe", oneHostNodes-1)
	p.running("web", 2)
	p.answersAll(oneHostNodes-1, 2)
	inside.end().without(inside, now)
	outside.end().without(outside, now)

	inside, outside = p.seatOf("probe", nodes[1]).calling("http://web/"), p.calling(8080, h)
	now.begin(p, "departure of the node that makes the networks")
	p.at(nodes[0]).docker("swarm", "leave", "--force")
	if err := nodes[0].stop(); err != nil {
		t.Error(err)
	}
	p.onOneHost(oneHostNodes - 1)
	now.begin(p, "scale after the departure")
	p.docker("service", "scale", "--detach", "later=3")
	p.running("later", 3)
	p.answersAll(oneHostNodes-1, 2)
	inside.end().without(inside, now)
	outside.end().without(outside, now)

	p.removed("web", "probe", "later")
	p.noContainers()
	p.gone("net", "later")
	// Users run containers by either of the two, whichever makes the networks.
	for _, n := range nodes[1:] {
		p.docker("network", "create", "-d", "overlay", "--attachable", "open-"+n.name)
		p.at(n).docker("run", "-d", "--name", "box-"+n.name, "--network", "open-"+n.name, guestImage(1), "sleep")
	}
	p.engineOn(1).docker("rm", "-f", "box-n3")
	// Its place is free, within a minute when nobody had seen the container yet.
	p.eventually("the network to be free", 2*time.Minute, func(context.Context) error {
		if out, err := p.any().run("network", "rm", "open-n3"); err != nil {
			return errors.New(out)
		}
		return nil
	})
	// A user's own container stays, without the network, as with Swarm.
	p.at(nodes[1]).docker("swarm", "leave", "--force")
	// The last one was killed: its daemon can't leave any more.
	nodes[2].kill()
	if out, err := h.program(t.Context(), nodes[2].binary, "node", "clear", "--force", "--data-dir", filepath.Join(nodes[2].dir, "data"), "--engine", h.engine.socket(), "--runtime-dir", filepath.Join(h.dir, "run")); err != nil {
		t.Errorf("clear: %v\n%s", err, out)
	}
	if box := p.engineOn(1).docker("inspect", "-f", "{{.State.Running}} {{range $name, $on := .NetworkSettings.Networks}}{{$name}} {{end}}", "box-n2"); box != "true" {
		t.Errorf("the user's container is %s", box)
	}
	if left := p.kernel(); len(left) > 0 {
		t.Errorf("after all nodes have left there are\n%s", strings.Join(left, "\n"))
	}
}

// noContainers waits until the engine has no containers of the cluster.
func (p *rackPart) noContainers() {
	p.Helper()
	p.eventually("no containers to be left", 30*time.Second, func(context.Context) error {
		if out := p.engineOn(1).docker("ps", "-aq", "--filter", "label="+nodeLabel); out != "" {
			return errors.New(out)
		}
		return nil
	})
}
