package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// moreHost makes another host, with an engine and a node that is in no cluster. It goes with the part.
func (p *rackPart) moreHost(name string) (*rackHost, error) {
	h, err := newRackHost(p.fabric, name, filepath.Join(p.dir, name), p.bin, "--group", strconv.Itoa(rackGroup))
	if err != nil {
		return nil, err
	}
	p.Cleanup(h.close)
	if err := h.plug(p.fabric.attach); err != nil {
		return nil, err
	}
	h.resolver = p.outsideIP
	return h, h.boot(p.Context())
}

// playComing has a node drained for a while, and a host join by a token that is good for one: tasks of a service that
// wants it so come to both by themselves.
func playComing(p *rackPart) {
	me := p.inGroup(p.hosts[1])
	p.service("spread", "--replicas", "4", "--label", "skep.rebalance=auto", "--label", "skep.rebalance.quiet=1s", "--stop-grace-period", "5s", "--", "sleep")
	p.running("spread", 4)
	comes := func(node string) {
		p.Helper()
		p.eventually("a task to come to "+node, 30*time.Second, func(context.Context) error {
			out, err := p.any().run("service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}", "spread")
			if err == nil && !strings.Contains(out, node+" Running") {
				err = errors.New(out)
			}
			return err
		})
		p.running("spread", 4)
	}
	const length = 6 * time.Second
	began := time.Now()
	me.skep(0, []string{"n3: drained until ", "n3: empty"}, "node", "drain", "--for", length.String(), "--wait", "n3")
	me.skep(0, []string{"Drain until "}, "node", "ls")

	// Meanwhile another host starts, and is told which token is good for it.
	h, err := p.moreHost("n4")
	if err != nil {
		p.Fatalf("%v\n%s", err, h.engine.lastLog())
	}
	joining := p.inGroup(h)
	token := func(args ...string) string {
		p.Helper()
		text, _, _ := strings.Cut(me.skep(0, []string{"SWMTKN-1-"}, append([]string{"token", "create"}, args...)...), "\n")
		return text
	}
	join := func(status int, says, token string) {
		p.Helper()
		joining.reading(token).skep(status, []string{says}, "swarm", "join", "--token-file", "-", "--advertise-addr", h.addr, "--listen-addr", h.addr+":2377", p.hosts[0].addr+":2377")
	}
	old, good := token("--for", "1s"), token("--uses", "1", "--label", "zone=lab")

	p.eventually("n3 to be active again by itself", 20*time.Second, func(context.Context) error {
		out, err := p.any().run("node", "inspect", "-f", "{{.Spec.Availability}} {{len .Spec.Labels}}", "n3")
		if err == nil && strings.TrimSpace(out) != "active 0" {
			err = errors.New(out)
		}
		return err
	})
	if took := time.Since(began); took < length {
		p.Errorf("n3 was drained for %s, want %s", took, length)
	}
	comes("n3")

	join(1, "was good until", old)
	join(0, "This node joined a swarm as a worker.", good)
	if out := p.docker("node", "inspect", "-f", "{{.Spec.Role}} {{json .Spec.Labels}}", "n4"); out != `worker {"zone":"lab"}` {
		p.Errorf("n4 is %s", out)
	}
	me.skep(0, []string{"1 of 1   used"}, "token", "ls")
	comes("n4")
	joining.skep(0, nil, "swarm", "leave")
	join(1, "was for 1 nodes, and all have joined", good)
	p.eventually("n4 to be removed", 20*time.Second, func(context.Context) error {
		if out, status := me.run("node", "rm", "n4"); status != 0 {
			return fmt.Errorf("%d: %s", status, out)
		}
		return nil
	})
	p.running("spread", 4)
	p.removed("spread")
	p.told(me, []string{"POST /skep/v1/nodes/{id}/drain  node n3 ", "POST /skep/v1/tokens  token ", "DELETE /nodes/{id}  node n4 "})
	for _, id := range strings.Fields(me.skep(0, nil, "token", "ls")) {
		if len(id) == 25 {
			me.skep(0, nil, "token", "rm", id)
		}
	}
}
