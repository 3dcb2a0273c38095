package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// playAttached has users' own containers on an attachable network: they reach services on other hosts
// by name, are reached by theirs, keep their addresses over restarts, and what is removed while the
// daemon is away is freed.
func playAttached(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "--attachable", "open")
	p.docker("network", "create", "-d", "overlay", "closed")
	p.service("web", "--network", "open", "--replicas", "1", "--constraint", "node.hostname==n2", "--", "serve")
	p.running("web", 1)
	p.on(1).refused("network closed not manually attachable", "run", "--rm", "--network", "closed", guestImage(1), "lookup", "web")
	for _, number := range []int{1, 3} {
		p.on(number).docker("run", "-d", "--name", fmt.Sprint("box", number), "--network", "open", "--network-alias", fmt.Sprint("alias", number), guestImage(1), "serve")
	}
	seatOf := func(number int) *seat {
		return &seat{rackPart: p, host: p.hosts[number-1], pid: p.engineOn(number).docker("inspect", "-f", "{{.State.Pid}}", fmt.Sprint("box", number))}
	}
	box := seatOf(1)
	p.eventually("the container to reach the service by its name", 20*time.Second, func(context.Context) error {
		_, err := box.get("http://web/")
		return err
	})
	for _, name := range []string{"box3", "alias3"} {
		if r, err := box.get("http://" + name + "/"); err != nil {
			p.Errorf("%s answers %+v, %v", name, r, err)
		}
	}
	address := func() string {
		return p.engineOn(1).docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "box1")
	}
	before := address()
	p.on(1).docker("restart", "-t", "0", "box1")
	if after := address(); after != before {
		p.Errorf("restarted, box1 has %s after %s", after, before)
	}
	if out, err := p.on(1).run("network", "rm", "open"); err == nil || !strings.Contains(out, "in use") {
		p.Errorf("a network in use is removed: %s", out)
	}
	p.docker("service", "rm", "web")
	p.on(3).docker("rm", "-f", "box3")
	p.engineOn(1).docker("rm", "-f", "box1")
	p.eventually("the network to be free", 2*time.Minute, func(context.Context) error {
		out, err := p.on(1).run("network", "rm", "open", "closed")
		if err != nil && strings.Contains(out, "open") && strings.Contains(out, "not found") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
}
