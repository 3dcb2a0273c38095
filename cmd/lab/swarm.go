package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

const (
	swarmManagers = 3
	swarmBridge   = "skeplab0"
	swarmSubnet   = "10.93.77"
)

// realSwarm is three managers of real Docker Swarm, each a dockerd in a network
// namespace of its own: what skep's numbers are set beside. Making one needs root.
type realSwarm struct {
	dir     string
	engines []*engine
}

// engine is one dockerd.
type engine struct {
	process
	index int
	dir   string
	api   *client.Client
	// flags are its own; without any it makes no networks.
	flags []string
	// proc has its processes, when its host has a first process that buries them; empty for
	// this machine's /proc.
	proc string
}

func (e *engine) socket() string    { return "unix://" + filepath.Join(e.dir, "docker.sock") }
func (e *engine) namespace() string { return fmt.Sprintf("skeplab%d", e.index) }
func (e *engine) link() string      { return fmt.Sprintf("skeplabv%d", e.index) }
func (e *engine) addr() string      { return fmt.Sprintf("%s.%d", swarmSubnet, e.index) }

// tool runs a system tool and gives its words as the error.
func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// newRealSwarm starts the three and makes them one swarm.
func newRealSwarm(ctx context.Context) (*realSwarm, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("three real managers need network namespaces, and those need root")
	}
	for _, name := range []string{"dockerd", "ip", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "skep-lab-swarm-")
	if err != nil {
		return nil, err
	}
	s := &realSwarm{dir: dir}
	if err := s.up(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *realSwarm) up(ctx context.Context) error {
	if err := errors.Join(
		tool(ctx, "ip", "link", "add", swarmBridge, "type", "bridge"),
		tool(ctx, "ip", "addr", "add", swarmSubnet+".254/24", "dev", swarmBridge),
		tool(ctx, "ip", "link", "set", swarmBridge, "up"),
	); err != nil {
		return err
	}
	// Where the host filters what bridges forward, ours must pass; elsewhere it passes.
	_ = tool(ctx, "iptables", "-I", "FORWARD", "-i", swarmBridge, "-o", swarmBridge, "-j", "ACCEPT")
	for i := 1; i <= swarmManagers; i++ {
		dir := filepath.Join(s.dir, fmt.Sprint(i))
		e := &engine{process: process{name: fmt.Sprintf("dockerd %d", i), logFile: filepath.Join(dir, "log")}, index: i, dir: dir}
		s.engines = append(s.engines, e)
		if err := errors.Join(
			os.MkdirAll(e.dir, 0o700),
			tool(ctx, "ip", "netns", "add", e.namespace()),
			tool(ctx, "ip", "link", "add", e.link(), "type", "veth", "peer", "name", "eth0", "netns", e.namespace()),
			tool(ctx, "ip", "link", "set", e.link(), "master", swarmBridge, "up"),
			tool(ctx, "ip", "-n", e.namespace(), "addr", "add", e.addr()+"/24", "dev", "eth0"),
			tool(ctx, "ip", "-n", e.namespace(), "link", "set", "eth0", "up"),
			tool(ctx, "ip", "-n", e.namespace(), "link", "set", "lo", "up"),
			tool(ctx, "ip", "-n", e.namespace(), "route", "add", "default", "via", swarmSubnet+".254"),
		); err != nil {
			return err
		}
		var err error
		if e.api, err = connect(e.socket()); err != nil {
			return err
		}
		if err := e.start(ctx); err != nil {
			return err
		}
	}
	var peers []peer
	for _, e := range s.engines {
		peers = append(peers, peer{e.name, e.addr(), e.api})
	}
	if err := form(ctx, peers, swarmManagers); err != nil {
		return err
	}
	return s.settled(ctx)
}

// start runs the dockerd and waits until it answers. The machine's own settings for
// dockerd are left aside: it shall do nothing but what the experiment asks of it.
func (e *engine) start(ctx context.Context) error {
	settings, flags := filepath.Join(e.dir, "daemon.json"), e.flags
	if flags == nil {
		flags = []string{"--storage-driver", "vfs", "--iptables=false", "--bridge=none"}
	}
	if err := os.WriteFile(settings, []byte("{}"), 0o600); err != nil {
		return err
	}
	// What a kill leaves would keep the next one from starting.
	_ = os.Remove(filepath.Join(e.dir, "pid"))
	if err := e.containerdGone(ctx); err != nil {
		return err
	}
	command := []string{"dockerd", "--config-file", settings, "-H", e.socket(),
		"--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"), "-p", filepath.Join(e.dir, "pid")}
	command = append(command, flags...)
	if e.in == nil { // the bench's namespaces have names
		command = append([]string{"nsenter", "--net=/var/run/netns/" + e.namespace()}, command...)
	}
	if err := e.run(command[0], command[1:]...); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, e.name, func(ctx context.Context) error {
		_, err := e.api.Ping(ctx)
		return errors.Join(e.alive(), err)
	})
}

// containerdGone waits until the containerd of a killed engine is gone too. A new engine
// would take it for alive as long as nobody has waited for its end.
func (e *engine) containerdGone(ctx context.Context) error {
	pid, err := os.ReadFile(filepath.Join(e.dir, "exec", "containerd", "containerd.pid"))
	if err != nil {
		return nil // there was none
	}
	return until(ctx, 30*time.Second, "the last containerd of "+e.name+" to end", func(context.Context) error {
		if e.proc == "" {
			buryOrphans()
		}
		if _, err := os.Stat(filepath.Join(cmp.Or(e.proc, "/proc"), strings.TrimSpace(string(pid)))); err == nil {
			return errors.New("it is still there")
		}
		return nil
	})
}

// settled waits until all three are reachable and one leads.
func (s *realSwarm) settled(ctx context.Context) error {
	return until(ctx, 3*time.Minute, "Docker Swarm to settle", func(ctx context.Context) error {
		list, err := s.engines[0].api.NodeList(ctx, swarm.NodeListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range list {
			if n.Status.State == swarm.NodeStateReady && n.ManagerStatus != nil && n.ManagerStatus.Reachability == swarm.ReachabilityReachable {
				ready++
			}
		}
		if ready != swarmManagers {
			return fmt.Errorf("%d of %d managers are ready", ready, swarmManagers)
		}
		return nil
	})
}

// leader returns the engine that leads and another.
func (s *realSwarm) leader(ctx context.Context) (leader, other *engine, err error) {
	list, err := s.engines[0].api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for _, n := range list {
		if m := n.ManagerStatus; m != nil && m.Leader {
			for _, e := range s.engines {
				if strings.HasPrefix(m.Addr, e.addr()+":") {
					leader = e
				} else {
					other = e
				}
			}
		}
	}
	if leader == nil {
		return nil, nil, errors.New("no leader")
	}
	return leader, other, nil
}

// close ends the engines and removes all that they and up made.
func (s *realSwarm) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, e := range s.engines {
		e.kill()
		if e.api != nil {
			e.api.Close()
		}
		// Whatever up didn't get to isn't there to be removed.
		_ = tool(ctx, "ip", "link", "del", e.link())
		_ = tool(ctx, "ip", "netns", "del", e.namespace())
	}
	_ = tool(ctx, "iptables", "-D", "FORWARD", "-i", swarmBridge, "-o", swarmBridge, "-j", "ACCEPT")
	_ = tool(ctx, "ip", "link", "del", swarmBridge)
	errs = append(errs, unmountBelow(s.dir), os.RemoveAll(s.dir))
	return errors.Join(errs...)
}

// unmountBelow detaches what a killed engine left mounted.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	var errs []error
	all := strings.Split(string(mounts), "\n")
	for i := len(all) - 1; i >= 0; i-- {
		if fields := strings.Fields(all[i]); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			errs = append(errs, syscall.Unmount(fields[1], syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// swarmFailover kills a leader of Docker Swarm, and stops one in order.
func swarmFailover(ctx context.Context) (killed, stopped time.Duration, err error) {
	s, err := newRealSwarm(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	leader, other, err := s.leader(ctx)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	leader.kill()
	if killed, err = nextWrite(ctx, other.api, start, 2*time.Minute); err != nil {
		return 0, 0, err
	}
	if err := errors.Join(leader.start(ctx), s.settled(ctx)); err != nil {
		return 0, 0, err
	}
	if leader, other, err = s.leader(ctx); err != nil {
		return 0, 0, err
	}
	w := startWriter(ctx, other.api)
	err = w.during(ctx, leader.stop)
	return killed, w.longest, err
}

// swarmWrites measures Docker Swarm's writes per second, by the number of clients.
func swarmWrites(ctx context.Context, clients []int) (rates map[int]float64, err error) {
	s, err := newRealSwarm(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var hosts []string
	for _, e := range s.engines {
		hosts = append(hosts, e.socket())
	}
	rates = map[int]float64{}
	for _, c := range clients {
		if rates[c], err = writesPerSecond(ctx, hosts, c, 5*time.Second); err != nil {
			return nil, err
		}
	}
	return rates, nil
}
