package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// rackPrefix begins the name of a rack's directory and of its control groups; the ID of
	// the process that has it follows.
	rackPrefix = "skep-rack-"
	rackHosts  = 3
)

// rack is three hosts on one network, each with an engine and a node, and a machine outside
// that has neither: the world. What they do to links, filters and routes stays in their
// namespaces.
type rack struct {
	dir, bin string
	fabric   *fabric
	hosts    []*rackHost
	// outside is a client's machine; it has the addresses after the hosts'.
	outside              *namespace
	outsideIP, outsideV6 string
	config               string // DOCKER_CONFIG
}

// needRack skips a test where hosts can't be made.
func needRack(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs engines and takes minutes")
	}
	missing := ""
	if !canIsolate() {
		missing = "no root, iproute2 or /dev/net/tun"
	}
	for _, program := range []string{"dockerd", "docker", "ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil && missing == "" {
			missing = "there is no " + program
		}
	}
	switch {
	case missing == "":
	case os.Getenv(requireDocker) == "1":
		t.Fatalf("%s, and %s=1: three hosts need it", missing, requireDocker)
	default:
		t.Skip("NOTICE: " + missing + ": networks were not tested on three hosts")
	}
}

// newRack brings the hosts up as managers of one cluster. After the test nothing of it is left.
func newRack(t *testing.T) *rack {
	t.Helper()
	return rackUp(t, (*rack).up)
}

// rackUp makes hosts in its own way.
func rackUp(t *testing.T, up func(*rack, context.Context) error) *rack {
	t.Helper()
	began := time.Now()
	if err := sweepRacks(); err != nil {
		t.Errorf("remove what an earlier test left: %v", err)
	}
	dir, err := os.MkdirTemp("", fmt.Sprint(rackPrefix, os.Getpid(), "-"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rack{dir: dir, fabric: newFabric(), config: t.TempDir()}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r.bin = binaries(t, "skep/cmd/lab/guest")
	built := time.Since(began)
	if err := up(r, ctx); err != nil {
		for _, h := range r.hosts {
			t.Logf("the logs of %s end:\n%s\n%s", h.name, h.engine.lastLog(), h.node.lastLog())
		}
		t.Fatal(err)
	}
	t.Logf("%d hosts were up after %s, of which the build took %s", len(r.hosts), seconds(time.Since(began)), seconds(built))
	return r
}

func (r *rack) up(ctx context.Context) error {
	if err := r.wire(rackHosts); err != nil {
		return err
	}
	g, booting := errgroup.WithContext(ctx)
	for _, h := range r.hosts {
		g.Go(func() error { return h.boot(booting) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var peers []peer
	for _, h := range r.hosts {
		peers = append(peers, peer{h.name, h.addr, h.node.api})
	}
	if err := form(ctx, peers, rackHosts); err != nil {
		return err
	}
	return r.settled(ctx)
}

// wire makes that many hosts, which are off, and the world.
func (r *rack) wire(hosts int) error {
	for i := range hosts {
		name := fmt.Sprint("n", i+1)
		h, err := newRackHost(r.fabric, name, filepath.Join(r.dir, name), r.bin, "--group", strconv.Itoa(rackGroup))
		if err != nil {
			return err
		}
		r.hosts = append(r.hosts, h)
		// One after the other, since their numbers follow from it.
		if err := h.plug(r.fabric.attach); err != nil {
			return err
		}
	}
	var err error
	if r.outside, err = newNamespace("outside"); err != nil {
		return err
	}
	if r.outsideIP, err = r.fabric.attach(r.outside, "outside"); err != nil {
		return err
	}
	for _, h := range r.hosts {
		h.resolver = r.outsideIP
	}
	r.outsideV6, err = addIPv6(r.outside, r.outsideIP)
	return err
}

// settled waits until all hosts are reachable managers and ready.
func (r *rack) settled(ctx context.Context) error {
	return until(ctx, time.Minute, "the cluster to settle", func(ctx context.Context) error {
		list, err := r.hosts[0].node.api.NodeList(ctx, nodeListAll)
		if err != nil {
			return err
		}
		return allThere(list, rackHosts, rackHosts)
	})
}

// close ends all that runs and removes all that there was.
func (r *rack) close() error {
	for _, h := range r.hosts {
		h.close()
	}
	if r.outside != nil {
		r.outside.close()
	}
	r.fabric.close()
	return removeHosts(r.dir)
}

// sweepRacks removes what racks of processes left that have ended. Nothing runs of those:
// hosts end with the process.
func sweepRacks() error {
	var errs []error
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), rackPrefix+"*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), rackPrefix), "-")
		number, err := strconv.Atoi(pid)
		if err == nil && errors.Is(syscall.Kill(number, 0), syscall.ESRCH) {
			errs = append(errs, removeHosts(dir))
		}
	}
	return errors.Join(errs...)
}

// rackPart is a part of the tests on the hosts, which share them.
type rackPart struct {
	*testing.T
	*rack
}

// at is Docker's command, spoken to a node.
func (p *rackPart) at(n *node) *console { return &console{p.T, n.socket(), p.config} }

// on is Docker's command, spoken to the node of the host with that number, from 1.
func (p *rackPart) on(number int) *console {
	return p.at(p.hosts[number-1].node)
}

// engine is Docker's command, spoken to the host's engine.
func (p *rackPart) engineOn(number int) *console {
	return &console{p.T, p.hosts[number-1].engine.socket(), p.config}
}

// docker is Docker's command on the first host that has a node running. It is asked again while
// the cluster has no leader.
func (p *rackPart) docker(args ...string) (out string) {
	p.Helper()
	p.eventually("docker "+strings.Join(args, " "), time.Minute, func(context.Context) error {
		said, err := p.any().run(args...)
		if err != nil && !strings.Contains(said, "does not have a leader") {
			tasks, _ := p.any().run("node", "ps", "--no-trunc", "--format", "{{.Name}} {{.CurrentState}} {{.Error}}")
			p.Fatalf("docker %s: %v\n%s\nthe tasks:\n%s", strings.Join(args, " "), err, said, tasks)
		}
		if out = strings.TrimSpace(said); err != nil {
			return errors.New(out)
		}
		return nil
	})
	return out
}

func (p *rackPart) any() *console {
	for _, h := range p.hosts {
		for _, n := range append([]*node{h.node}, h.others...) {
			if n.running() {
				return p.at(n)
			}
		}
	}
	return p.on(1)
}

// service makes a service of the guest's image: options, "--", what the guest does.
func (p *rackPart) service(name string, args ...string) {
	p.Helper()
	p.serviceOf(guestImage(1), name, args...)
}

func (p *rackPart) serviceOf(image, name string, args ...string) {
	p.Helper()
	command := append([]string{"service", "create", "--detach", "--no-resolve-image", "--name", name, "--stop-grace-period", "20s", "--env", "TASK={{.Task.Name}}"}, before(args)...)
	p.docker(append(append(command, image), after(args)...)...)
}

// before are the arguments before "--", after those that follow it.
func before(args []string) []string {
	for i, a := range args {
		if a == "--" {
			return args[:i]
		}
	}
	return args
}

func after(args []string) []string { return args[min(len(before(args))+1, len(args)):] }

// running waits until a service has that many running tasks of its latest spec, and no others.
func (p *rackPart) running(name string, count int) {
	p.Helper()
	p.eventually(fmt.Sprintf("%d tasks of %s to run", count, name), 40*time.Second, func(context.Context) error {
		out, err := p.any().run("service", "ps", "--filter", "desired-state=running", "--format", "{{.CurrentState}} {{.Error}}", name)
		if err != nil {
			return errors.New(out)
		}
		if n := strings.Count(out, "Running "); n != count || strings.Count(out, "\n") != count {
			all, _ := p.any().run("service", "ps", "--no-trunc", name)
			return errors.New(all)
		}
		return nil
	})
}

// removed removes services and waits until nothing is left of them.
func (p *rackPart) removed(names ...string) {
	p.Helper()
	p.docker(append([]string{"service", "rm"}, names...)...)
}

func (p *rackPart) eventually(what string, limit time.Duration, condition func(context.Context) error) {
	p.Helper()
	if err := until(p.Context(), limit, what, condition); err != nil {
		p.Fatal(err)
	}
}

// reply is what a guest answers.
type reply struct{ Task, Version, Client string }

func parseReply(out string, err error) (r reply, _ error) {
	if err != nil {
		return r, fmt.Errorf("%w %s", err, out)
	}
	return r, json.Unmarshal([]byte(out), &r)
}

// guest runs the guest outside.
func (p *rackPart) guest(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	return runIn(ctx, p.outside, filepath.Join(p.bin, "guest"), args...)
}

// get asks a URL from outside.
func (p *rackPart) get(url string) (reply, error) { return parseReply(p.guest("get", url)) }
