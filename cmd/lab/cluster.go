package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

// nodeLabel is on every container that an agent makes, with the node's ID.
const nodeLabel = "com.docker.swarm.node.id"

// processes is a cluster of skep processes on this machine.
type processes struct {
	lab
	dir    string
	driver string
	nodes  []*node
	// ids are the IDs of nodes that have been in the cluster: the containers that
	// carry them are the experiment's to remove.
	ids map[string]bool
}

// newProcesses starts count nodes called n1, n2, …, each on an address of its own
// and in no cluster yet.
func newProcesses(ctx context.Context, l lab, driver string, count int) (*processes, error) {
	block, err := freeBlock(count)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "skep-lab-")
	if err != nil {
		return nil, err
	}
	p := &processes{lab: l, dir: dir, driver: driver, ids: map[string]bool{}}
	for i := 1; i <= count; i++ {
		name := fmt.Sprintf("n%d", i)
		p.nodes = append(p.nodes, newNode(name, fmt.Sprintf("127.0.%d.%d", block, i), filepath.Join(dir, name),
			filepath.Join(l.bin, "skep"), "--driver", driver, "--engine", l.engine))
	}
	for _, n := range p.nodes {
		if err := n.start(ctx); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

// freeBlock finds an N such that the ports of skep are free on 127.0.N.1 and the
// following addresses: several labs and tests may run on one machine.
func freeBlock(count int) (int, error) {
	var last error
next:
	for block := 1; block < 250; block++ {
		for i := 1; i <= count; i++ {
			for _, port := range []int{2377, 7946} {
				l, err := net.Listen("tcp", fmt.Sprintf("127.0.%d.%d:%d", block, i, port))
				if err != nil {
					last = err
					continue next
				}
				l.Close()
			}
		}
		return block, nil
	}
	return 0, fmt.Errorf("find free loopback addresses for %d nodes: %w", count, last)
}

// form makes a cluster of the nodes: the first managers ones are managers, in order.
func (p *processes) form(ctx context.Context, managers int) error {
	var peers []peer
	for _, n := range p.nodes {
		peers = append(peers, peer{n.name, n.addr, n.api})
	}
	if err := form(ctx, peers, managers); err != nil {
		return err
	}
	return p.settled(ctx, managers, len(p.nodes))
}

// peer is a machine that can be in a cluster, whoever makes it one.
type peer struct {
	name, addr string
	api        *client.Client
}

// form makes a cluster of the peers: the first managers ones are managers, in order.
func form(ctx context.Context, peers []peer, managers int) error {
	first := peers[0]
	if _, err := first.api.SwarmInit(ctx, swarm.InitRequest{AdvertiseAddr: first.addr, ListenAddr: first.addr + ":2377"}); err != nil {
		return fmt.Errorf("make a cluster on %s: %w", first.name, err)
	}
	tokens, err := first.api.SwarmInspect(ctx)
	if err != nil {
		return fmt.Errorf("read join tokens: %w", err)
	}
	for i, p := range peers[1:] {
		token := tokens.JoinTokens.Worker
		if i+1 < managers {
			token = tokens.JoinTokens.Manager
		}
		if err := p.join(ctx, first.addr, token); err != nil {
			return err
		}
	}
	return nil
}

// join makes the peer a member of the cluster of the manager at addr.
func (p peer) join(ctx context.Context, addr, token string) error {
	err := p.api.SwarmJoin(ctx, swarm.JoinRequest{
		AdvertiseAddr: p.addr, ListenAddr: p.addr + ":2377", RemoteAddrs: []string{addr + ":2377"}, JoinToken: token,
	})
	if err != nil {
		return fmt.Errorf("join %s: %w", p.name, err)
	}
	return nil
}

// settled waits until that many managers are reachable and that many nodes ready,
// with one leader among them, and remembers the nodes' IDs.
func (p *processes) settled(ctx context.Context, managers, nodes int) error {
	return until(ctx, time.Minute, "the cluster to settle", func(ctx context.Context) error {
		list, err := p.anyManager().api.NodeList(ctx, swarm.NodeListOptions{})
		if err != nil {
			return err
		}
		for _, n := range list {
			p.ids[n.ID] = true
		}
		return allThere(list, managers, nodes)
	})
}

// allThere says what a list of nodes lacks of that many managers and nodes.
func allThere(list []swarm.Node, managers, nodes int) error {
	ready, reachable, leaders := 0, 0, 0
	for _, n := range list {
		if n.Status.State == swarm.NodeStateReady {
			ready++
		}
		if m := n.ManagerStatus; m != nil && m.Reachability == swarm.ReachabilityReachable {
			reachable++
			if m.Leader {
				leaders++
			}
		}
	}
	if ready != nodes || reachable != managers || leaders != 1 {
		return fmt.Errorf("%d of %d nodes ready, %d of %d managers reachable, %d leaders", ready, nodes, reachable, managers, leaders)
	}
	return nil
}

// anyManager is a running node to speak to; the first nodes are the managers.
func (p *processes) anyManager() *node {
	for _, n := range p.nodes {
		if n.running() {
			return n
		}
	}
	return p.nodes[0]
}

// leader asks through the given node which process leads.
func (p *processes) leader(ctx context.Context, through *node) (*node, error) {
	list, err := through.api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if n.ManagerStatus != nil && n.ManagerStatus.Leader {
			return p.named(n.Description.Hostname), nil
		}
	}
	return nil, errors.New("no leader")
}

func (p *processes) named(name string) *node {
	for _, n := range p.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// close ends all processes and removes what they left: containers and directories.
// It has a deadline of its own, since the caller's context may have ended.
func (p *processes) close() error {
	for _, n := range p.nodes {
		n.kill()
		if n.api != nil {
			n.api.Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if p.driver == "docker" {
		errs = append(errs, p.removeContainers(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}

// removeContainers removes the containers of the experiment's nodes, and no others.
func (p *processes) removeContainers(ctx context.Context) error {
	return removeContainersOf(ctx, p.engine, p.ids)
}

// removeContainersOf removes the containers of the nodes with those IDs from an engine.
func removeContainersOf(ctx context.Context, host string, ids map[string]bool) error {
	engine, err := connect(host)
	if err != nil {
		return err
	}
	defer engine.Close()
	return until(ctx, 30*time.Second, "the containers to be gone", func(ctx context.Context) error {
		var errs []error
		for id := range ids {
			list, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", nodeLabel+"="+id))})
			errs = append(errs, err)
			for _, c := range list {
				// The engine may still be at what a node that is no more ordered: what it is
				// making can't be removed yet, and what it is removing not again.
				errs = append(errs, fmt.Errorf("container %s was there", c.Names))
				if err := engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
					errs = append(errs, err)
				}
			}
		}
		return errors.Join(errs...)
	})
}
