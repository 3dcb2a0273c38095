package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"skep/cmd/lab/scenario"
)

// member is a node of an experiment.
type member struct {
	peer
	role string // "manager" or "worker"
	// proc is what faults hit; start runs it and waits until its API answers.
	proc  *process
	start func(context.Context) error
	// setClock decides what time the daemon will see; nil for Docker Swarm's.
	setClock func(ahead time.Duration)
	// in is its namespace, disk and engine are its own, and so is the host, which then has the
	// others; each nil when it has none.
	in     *namespace
	disk   *disk
	engine *engine
	host   *rackHost
	// away is set while the node is dead, stopped, cut off or the like: it isn't asked.
	away bool
}

// setting is what all rounds of a run have in common.
type setting struct {
	lab
	scenario scenario.Scenario
	// swarm is set when the nodes are Docker Swarm's instead of skep's.
	swarm    bool
	driver   string
	latency  string // see cluster.TimingFor
	isolated bool
}

// refuse says why an experiment can't be made here, or nil.
func refuse(s setting, root bool) error {
	needs, name := s.scenario.Needs(), s.scenario.Name
	switch {
	case s.scenario.Driver != "" && s.scenario.Driver != s.driver:
		return fmt.Errorf("run %s: it is for --driver %s only", name, s.scenario.Driver)
	case needs.Engine && s.driver != "docker":
		return fmt.Errorf("run %s: it restarts an engine, and simulated tasks have none: use --driver docker", name)
	case needs.Hosts && (needs.Disks || needs.Engine || needs.Clocks):
		return fmt.Errorf("run %s: nodes with networks have no disks, engines or clocks that steps can disturb", name)
	case needs.Hosts && (!root || !s.isolated):
		return fmt.Errorf("run %s: its services have networks, so each node is a machine with an engine, which needs root, namespaces, iproute2 and /dev/net/tun", name)
	case !root && (needs.Links || needs.Disks || needs.Engine):
		return fmt.Errorf("run %s: it disturbs links, disks or engines, which needs root", name)
	case !s.isolated && (needs.Links || needs.Disks || needs.Engine):
		return fmt.Errorf("run %s: it disturbs links, disks or engines, which needs namespaces, iproute2 and /dev/net/tun", name)
	case needs.Disks && !haveDisks():
		return fmt.Errorf("run %s: it disturbs disks, which needs mkfs.ext4 and loop devices", name)
	}
	return nil
}

// canIsolate tells whether nodes can have namespaces of their own here. It tries, since
// a root without the right to is as good as none.
func canIsolate() bool {
	n, err := newNamespace("probe")
	if err != nil {
		return false
	}
	defer n.close()
	f := newFabric()
	defer f.close()
	_, err = f.attach(n, "probe")
	return err == nil
}

// haveDisks tells whether nodes can have disks of their own here.
func haveDisks() bool {
	_, err := exec.LookPath("mkfs.ext4")
	_, loop := os.Stat("/dev/loop-control")
	return err == nil && loop == nil
}

// add makes a node and starts it; it is in no cluster yet.
func (x *experiment) add(ctx context.Context, role string) (*member, error) {
	x.mu.Lock()
	number := 1
	for _, m := range x.members {
		if m.role == role {
			number++
		}
	}
	m := &member{peer: peer{name: fmt.Sprintf("%c%d", role[0], number)}, role: role}
	x.members = append(x.members, m)
	place := len(x.members)
	x.mu.Unlock()

	dir := filepath.Join(x.dir, m.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if x.scenario.Needs().Hosts {
		return m, x.addHost(ctx, m, dir)
	}
	if x.fabric != nil {
		var err error
		if m.in, err = newNamespace(m.name); err != nil {
			return nil, err
		}
		if m.addr, err = x.fabric.attach(m.in, m.name); err != nil {
			return nil, err
		}
	} else {
		m.addr = fmt.Sprintf("127.0.%d.%d", x.block, place)
	}
	if x.swarm {
		return m, x.addEngine(ctx, m, dir)
	}
	if x.scenario.Needs().Disks && role == "manager" {
		var err error
		if m.disk, err = newDisk(m.in, dir, filepath.Join(dir, "data")); err != nil {
			return nil, err
		}
	}
	host := x.lab.engine
	if x.scenario.Needs().Engine && role == "worker" {
		if err := x.addEngine(ctx, m, filepath.Join(dir, "engine")); err != nil {
			return nil, err
		}
		host = m.engine.socket()
	}
	flags := []string{"--driver", x.driver, "--engine", host, "--latency", x.latency}
	n := newNode(m.name, m.addr, dir, filepath.Join(x.bin, "skep"), flags...)
	n.in = m.in
	m.proc, m.start = &n.process, n.start
	m.setClock = func(ahead time.Duration) { n.flags = append(slices.Clone(flags), "--clock-ahead", ahead.String()) }
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	m.api = n.api
	return m, nil
}

// addHost makes the node a machine with an engine.
func (x *experiment) addHost(ctx context.Context, m *member, dir string) error {
	h, err := newRackHost(x.fabric, m.name, dir, x.bin, "--latency", x.latency)
	if err != nil {
		return err
	}
	h.resolver, m.host, m.engine = x.outsideAddr, h, h.engine
	if err := h.plug(x.fabric.attach); err != nil {
		return err
	}
	m.in, m.addr, m.proc = h.in, h.addr, &h.node.process
	m.start = func(ctx context.Context) error {
		if h.first.running() {
			return h.node.start(ctx)
		}
		err := h.restore(ctx)
		m.in = h.in
		return err
	}
	err = h.boot(ctx)
	m.api = h.node.api
	return err
}

// addEngine starts an engine of the node's own with the lab's images in it. For Docker
// Swarm that engine is the node.
func (x *experiment) addEngine(ctx context.Context, m *member, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	e := &engine{process: process{name: "dockerd of " + m.name, logFile: filepath.Join(dir, "log"), in: m.in}, dir: dir}
	var err error
	if e.api, err = connect(e.socket()); err != nil {
		return err
	}
	m.engine = e
	if x.swarm {
		m.proc, m.start, m.api = &e.process, e.start, e.api
	}
	// A registry is out of reach in there. An engine that asks for it shall hear so at once
	// and not wait for a name server's answer.
	resolver := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolver, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return err
	}
	if err := m.in.tool("mount", "--bind", resolver, "/etc/resolv.conf"); err != nil {
		return err
	}
	if err := e.start(ctx); err != nil {
		return err
	}
	return buildTimecheck(ctx, lab{bin: x.bin, engine: e.socket()})
}

// close ends all that the node is, and gives up what it had.
func (m *member) close() error {
	if m.host != nil {
		m.host.close()
		return nil
	}
	var errs []error
	if m.disk != nil {
		errs = append(errs, m.disk.thaw()) // what waits for a disk can't even be killed
	}
	if m.proc != nil {
		m.proc.kill()
	}
	if m.engine != nil {
		m.engine.kill()
		m.engine.api.Close()
	}
	if m.api != nil {
		m.api.Close()
	}
	if m.in != nil {
		m.in.close()
	}
	return errors.Join(errs...)
}

// named returns the members with those names.
func (x *experiment) named(names []string) []*member {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []*member
	for _, m := range x.members {
		if slices.Contains(names, m.name) {
			found = append(found, m)
		}
	}
	return found
}

// present are the managers that can be asked.
func (x *experiment) present() []*member {
	x.mu.Lock()
	defer x.mu.Unlock()
	var present []*member
	for _, m := range x.members {
		if m.role == "manager" && !m.away && m.proc.running() {
			present = append(present, m)
		}
	}
	return present
}

func (x *experiment) setAway(members []*member, away bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range members {
		m.away = away
	}
}
