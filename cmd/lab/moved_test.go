package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// takesWrites waits until a node's cluster takes writes.
func takesWrites(ctx context.Context, n *node, name string) error {
	return until(ctx, time.Minute, "a write to be accepted", func(ctx context.Context) error {
		_, err := n.api.ConfigCreate(ctx, swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte("x")})
		return err
	})
}

// knownAt waits until a manager knows the node of that name, and as a manager, at addr.
func knownAt(ctx context.Context, through *node, name, addr string) error {
	return until(ctx, time.Minute, name+" to be known at "+addr, func(ctx context.Context) error {
		list, err := through.api.NodeList(ctx, swarm.NodeListOptions{})
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.Description.Hostname != name {
				continue
			}
			if n.Status.State != swarm.NodeStateReady || n.Status.Addr != addr || n.ManagerStatus == nil ||
				n.ManagerStatus.Addr != addr+":2377" || n.ManagerStatus.Reachability != swarm.ReachabilityReachable {
				return fmt.Errorf("it is %+v, %+v", n.Status, n.ManagerStatus)
			}
			return nil
		}
		return fmt.Errorf("there is no %s", name)
	})
}

// TestMoved_AFlagThatSaysAnotherAddress restarts managers with another --advertise-addr.
func TestMoved_AFlagThatSaysAnotherAddress(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p, err := newProcesses(ctx, lab{bin: binaries(t)}, "simulate", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.form(ctx, 3); err != nil {
		t.Fatal(err)
	}
	for i, n := range p.nodes {
		addr := strings.TrimSuffix(n.addr, fmt.Sprint(".", i+1)) + fmt.Sprint(".", 100+i)
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		n.flags = append(n.flags, "--advertise-addr", addr)
		if err := n.start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := knownAt(ctx, p.nodes[(i+1)%3], n.name, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.settled(ctx, 3, 3); err != nil {
		t.Fatal(err)
	}
	// Gossip finds them, too.
	if err := until(ctx, time.Minute, "all to be well", func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, filepath.Join(p.bin, "skep"), "-H", p.nodes[0].socket(), "cluster", "status").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestMoved_AWholeLab gives all machines other addresses at once, in network namespaces,
// and does what the README says. One of them had no address at all for a while.
func TestMoved_AWholeLab(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	needIsolation(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	bin, dir, f := binaries(t), t.TempDir(), newFabric()
	defer f.close()
	var nodes []*node
	for i := range 3 {
		name := fmt.Sprint("n", i+1)
		in, err := newNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		defer in.close()
		addr, err := f.attach(in, name)
		if err != nil {
			t.Fatal(err)
		}
		n := newNode(name, addr, filepath.Join(dir, name), filepath.Join(bin, "skep"), "--driver", "simulate", "--engine", "")
		n.in = in
		nodes = append(nodes, n)
		if err := n.start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	first := nodes[0]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\nthe log of %s ends:\n%s", err, first.name, first.lastLog())
		}
	}
	if _, err := first.api.SwarmInit(ctx, swarm.InitRequest{ListenAddr: "0.0.0.0:2377"}); err != nil {
		t.Fatal(err)
	}
	must(takesWrites(ctx, first, "before"))

	// A lone manager just works.
	must(first.stop())
	addr, err := f.move(first.in, first.addr)
	must(err)
	first.addr = addr
	must(first.start(ctx))
	must(takesWrites(ctx, first, "moved"))
	must(knownAt(ctx, first, first.name, first.addr))

	// Without an address it says so, serves its API, and goes on.
	must(first.stop())
	must(first.in.tool("ip", "addr", "del", first.addr+"/24", "dev", "eth0"))
	must(first.start(ctx))
	must(until(ctx, 5*time.Second, "it to say that it has no address", func(ctx context.Context) error {
		info, err := first.api.Info(ctx)
		if err != nil || !strings.Contains(info.Swarm.Error, "isn't this machine's any more") {
			return fmt.Errorf("it says %q, %v", info.Swarm.Error, err)
		}
		return nil
	}))
	must(takesWrites(ctx, first, "nowhere"))
	must(first.in.tool("ip", "addr", "add", first.addr+"/24", "dev", "eth0"))
	must(knownAt(ctx, first, first.name, first.addr))

	var peers []peer
	tokens, err := first.api.SwarmInspect(ctx)
	must(err)
	for _, n := range nodes[1:] {
		one := peer{n.name, n.addr, n.api}
		must(one.join(ctx, first.addr, tokens.JoinTokens.Manager))
		peers = append(peers, one)
	}
	for _, n := range nodes {
		must(knownAt(ctx, first, n.name, n.addr))
	}
	must(takesWrites(ctx, nodes[2], "three"))

	// All at once: nobody finds anybody.
	for _, n := range nodes {
		must(n.stop())
	}
	for _, n := range nodes {
		n.addr, err = f.move(n.in, n.addr)
		must(err)
	}
	for _, n := range nodes[1:] {
		n.flags = append(n.flags, "--join", first.addr)
	}
	for _, n := range nodes {
		must(n.start(ctx))
	}
	if _, err := first.api.SwarmInit(ctx, swarm.InitRequest{ListenAddr: "0.0.0.0:2377", ForceNewCluster: true, AdvertiseAddr: first.addr}); err != nil {
		must(err)
	}
	must(takesWrites(ctx, first, "alone"))
	for i := range peers {
		must(until(ctx, time.Minute, "the others to be ready workers", func(ctx context.Context) error {
			list, err := first.api.NodeList(ctx, swarm.NodeListOptions{})
			if err != nil {
				return err
			}
			for _, n := range list {
				if n.Description.Hostname == peers[i].name && (n.Status.State != swarm.NodeStateReady || n.Spec.Role != swarm.NodeRoleWorker || n.Status.Addr != nodes[i+1].addr) {
					return fmt.Errorf("%s is %+v", peers[i].name, n.Status)
				}
			}
			return nil
		}))
	}
	have, err := first.api.ConfigList(ctx, swarm.ConfigListOptions{})
	if err != nil || len(have) != 5 {
		t.Errorf("%d of 5 configs are left: %v", len(have), err)
	}
}
