package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cmd/lab/report"
	"skep/cmd/lab/scenario"
)

// What a report calls the questions of a service's users.
const (
	requests = "requests"
	lookUps  = "look-ups"
)

// portOf is an address and a port, which differs from one connection to the next.
var portOf = regexp.MustCompile(`(\d+\.\d+\.\d+\.\d+):\d+`)

// answered is what the guest says of each request: see its "each".
type answered struct {
	Client             int
	Began, Ended       time.Time
	URL, Error, Answer string
}

// newOutside makes the machine of the clients of published ports. It runs nothing else.
func (x *experiment) newOutside() error {
	var err error
	if x.outside, err = newNamespace("outside"); err != nil {
		return err
	}
	x.outsideAddr, err = x.fabric.attach(x.outside, "outside")
	return err
}

// networks makes the overlay networks that the services are on.
func (x *experiment) networks(ctx context.Context) error {
	made := map[string]bool{"": true}
	for _, s := range x.scenario.Services {
		if made[s.Network] {
			continue
		}
		made[s.Network] = true
		if _, err := x.members[0].api.NetworkCreate(ctx, s.Network, network.CreateOptions{Driver: "overlay"}); err != nil {
			return fmt.Errorf("create network %s: %w", s.Network, err)
		}
	}
	return nil
}

// ask starts the clients of the services. It returns what ends them and waits for what they
// have under way.
func (x *experiment) ask(ctx context.Context) (end func(), err error) {
	var clients []*piped
	var readers sync.WaitGroup
	end = func() {
		for _, c := range clients {
			_ = c.cmd.Process.Signal(syscall.SIGTERM)
		}
		readers.Wait()
	}
	start := func(in *namespace, through func(answered) string, what, want, program string, args ...string) error {
		c := &piped{}
		out, err := c.stream(in, program, args...)
		if err != nil {
			return err
		}
		clients = append(clients, c)
		readers.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				var a answered
				if json.Unmarshal(lines.Bytes(), &a) == nil {
					x.asked(a, what, through(a), want)
				}
			}
			_ = c.cmd.Wait()
		})
		return nil
	}
	load := func(a scenario.Asking) []string {
		return []string{"load", "-each", "-clients", fmt.Sprint(a.Clients / 2), "-pause", a.Pause.String()}
	}
	if a := x.scenario.Load.Requests; a.Of != "" {
		args, names := load(a), map[string]string{}
		for _, m := range x.members {
			url := fmt.Sprintf("http://%s:%d/", m.addr, x.published(a.Of))
			args, names[url] = append(args, url), m.name
		}
		err = start(x.outside, func(a answered) string { return names[a.URL] }, requests, "", filepath.Join(x.bin, "guest"), args...)
	}
	if a := x.scenario.Load.Lookups; a.Of != "" && err == nil {
		var vip string
		if vip, err = x.vip(ctx, a.Of); err != nil {
			return end, err
		}
		for _, m := range x.members {
			pid, err := m.container(ctx, a.Of)
			if err != nil {
				return end, err
			}
			args := append([]string{"-t", strconv.Itoa(pid), "-n", "-m", "/guest"}, append(load(a), "-names", a.Of)...)
			if err := start(m.in, func(answered) string { return m.name }, lookUps, vip, "nsenter", args...); err != nil {
				return end, err
			}
		}
	}
	return end, err
}

// published is the port of a service.
func (x *experiment) published(service string) int {
	for _, s := range x.scenario.Services {
		if s.Name == service {
			return s.Publish
		}
	}
	return 0
}

// vip is what a service's name stands for.
func (x *experiment) vip(ctx context.Context, service string) (string, error) {
	s, _, err := x.members[0].api.ServiceInspectWithRaw(ctx, service, swarm.ServiceInspectOptions{})
	if err != nil {
		return "", err
	}
	for _, v := range s.Endpoint.VirtualIPs {
		if prefix, err := netip.ParsePrefix(v.Addr); err == nil {
			return prefix.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("service %s has no virtual IP", service)
}

// container finds a running container of a service on the node, and returns its process.
func (m *member) container(ctx context.Context, service string) (int, error) {
	list, err := m.engine.api.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.name="+service))})
	if err != nil {
		return 0, err
	}
	if len(list) == 0 {
		return 0, fmt.Errorf("%s runs no container of %s: give the service a replica for each node", m.name, service)
	}
	c, err := m.engine.api.ContainerInspect(ctx, list[0].ID)
	if err != nil {
		return 0, err
	}
	return c.State.Pid, nil
}

// asked records what came of a question. A wrong answer is a failure, too.
func (x *experiment) asked(a answered, what, through, want string) {
	if a.Error == "" && want != "" && a.Answer != want {
		a.Error = fmt.Sprintf("the answer was %q", a.Answer)
	}
	q := report.Request{What: what, Through: through, Client: a.Client, Began: report.Since(x.began, a.Began), Ended: report.Since(x.began, a.Ended), Answered: a.Error == ""}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !q.Answered {
		q.Why = x.reasonLocked(portOf.ReplaceAllString(reason(errors.New(a.Error), a.URL, x.dir), "$1"))
	}
	x.round.Requests = append(x.round.Requests, q)
}
