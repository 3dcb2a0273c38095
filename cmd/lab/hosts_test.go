package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

var nodeListAll swarm.NodeListOptions

// rackPlay is one part.
type rackPlay struct {
	name string
	play func(*rackPart)
}

// rackParts are played one after the other, since they share the hosts. Each leaves them as
// it found them.
var rackParts = []rackPlay{
	{"each node runs its own", playOwn},
	{"containers of tasks from anywhere", playExec},
	{"names and virtual IPs", playNames},
	{"containers of users", playAttached},
	{"published ports", playMesh},
	{"both families", playIPv6},
	{"networks apart", playApart},
	{"addresses", playAddresses},
	{"networks of each engine", playLocal},
	{"names stay", playNamesStay},
	{"no request fails", playNoneFails},
	{"a killed task is left in time", playTaskKilled},
	{"a dead host is left in time", playHostDies},
	{"stacks", playStacks},
	{"a stack one can trust", playTrust},
	{"nodes that come and go", playComing},
	{"encrypted", playEncrypted},
}

// TestHosts plays what users do with networks, on three hosts with an engine each.
func TestHosts(t *testing.T) {
	needRack(t)
	r := newRack(t)
	for _, part := range rackParts {
		if !t.Run(part.name, func(t *testing.T) {
			began := time.Now()
			p := &rackPart{t, r}
			defer p.tell(began)
			part.play(p)
			p.nothingLeft()
		}) {
			r.tidy(t)
		}
	}
}

// tell shows what the nodes said, when a part failed.
func (p *rackPart) tell(began time.Time) {
	if !p.Failed() {
		return
	}
	for _, h := range p.hosts {
		for _, n := range h.others {
			p.Logf("the log of %s on it ends:\n%s", n.name, n.lastLog())
		}
		p.Logf("the log of %s ends:\n%s", h.name, h.node.lastLog())
	}
	if hold, err := time.ParseDuration(os.Getenv("SKEP_HOLD")); err == nil {
		for _, h := range p.hosts {
			fmt.Printf("%s: nsenter -a -t %d\n", h.name, h.first.cmd.Process.Pid)
		}
		time.Sleep(hold)
	}
}

// nothingLeft waits until there are no services, and no containers of the cluster.
func (p *rackPart) nothingLeft() {
	p.Helper()
	p.eventually("nothing to be left", 30*time.Second, func(context.Context) error {
		var errs []error
		left := func(what string, out string, err error) {
			if out = strings.TrimSpace(out); err != nil || out != "" {
				errs = append(errs, fmt.Errorf("%s: %v\n%s", what, err, out))
			}
		}
		out, err := p.on(1).run("service", "ls", "-q")
		left("services", out, err)
		for i, h := range p.hosts {
			out, err := p.engineOn(i+1).run("ps", "-a", "--filter", "label="+nodeLabel)
			if strings.Count(out, "\n") == 1 {
				out = ""
			}
			left("containers on "+h.name, out, err)
		}
		return errors.Join(errs...)
	})
}

// tidy removes what a part that failed left, so that the next one can be played.
func (r *rack) tidy(t *testing.T) {
	p := &rackPart{t, r}
	for _, what := range []string{"service", "network", "config", "secret"} {
		list := []string{what, "ls", "-q"}
		if what == "network" {
			list = append(list, "--filter", "driver=overlay")
		}
		out, _ := p.any().run(list...)
		if ids := strings.Fields(out); len(ids) > 0 {
			if out, err := p.any().run(append([]string{what, "rm"}, ids...)...); err != nil {
				t.Log(out)
			}
		}
	}
}

// playOwn shows the hosts themselves: one cluster, an engine each, a published port of the
// host's own on each.
func playOwn(p *rackPart) {
	if out := p.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"); out != "n1 Ready Leader\nn2 Ready Reachable\nn3 Ready Reachable" {
		p.Errorf("the nodes are\n%s", out)
	}
	engines := map[string]bool{}
	for i := range p.hosts {
		engines[p.engineOn(i+1).docker("info", "--format", "{{.ID}}")] = true
	}
	if len(engines) != rackHosts {
		p.Errorf("the engines' IDs are %v", engines)
	}
	p.service("own", "--mode", "global", "--publish", "mode=host,target=80,published=8000", "--", "serve")
	p.running("own", rackHosts)
	tasks := map[string]bool{}
	for _, h := range p.hosts {
		r, err := p.get("http://" + h.addr + ":8000/")
		if err != nil || r.Client != p.outsideIP || r.Version != "1" {
			p.Errorf("%s answers %+v, %v", h.name, r, err)
		}
		tasks[r.Task] = true
	}
	if len(tasks) != rackHosts {
		p.Errorf("these tasks answer: %v", tasks)
	}
	p.removed("own")
}
