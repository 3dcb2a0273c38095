package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// traffic is clients that ask without a pause: eight that keep their connections, and eight
// that make one for each request.
type traffic struct {
	*rackPart
	piped
	from string
}

// outcome is what the guest says of its load.
type outcome struct {
	Began, Ended     time.Time
	Requests, Failed int
	Longest          time.Duration
	Failures         []struct {
		Began, Ended     time.Time
		Kept             bool
		Task, URL, Error string
	}
	Tasks map[string]struct {
		Count       int
		First, Last time.Time
		Version     string
	}
	Clients map[string]int
}

// calling starts traffic from outside to a port of hosts.
func (p *rackPart) calling(port int, hosts ...*rackHost) *traffic {
	p.Helper()
	args := []string{"load", "-pause", loadPause.String()}
	for _, h := range hosts {
		args = append(args, fmt.Sprintf("http://%s:%d/", h.addr, port))
	}
	t := &traffic{rackPart: p, from: "outside"}
	t.begin(t.start(p.outside, filepath.Join(p.bin, "guest"), args...))
	return t
}

// calling starts traffic from a container.
func (s *seat) calling(args ...string) *traffic {
	s.Helper()
	t := &traffic{rackPart: s.rackPart, from: s.host.name}
	t.begin(t.start(s.host.in, "nsenter", s.args(append([]string{"load", "-pause", loadPause.String()}, args...))...))
	return t
}

// loadPause is between two requests of a client: sixteen clients make 160 a second.
const loadPause = 100 * time.Millisecond

func (t *traffic) begin(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = t.cmd.Process.Kill()
		_ = t.cmd.Wait() // The host's first process ends only after all others were waited for.
	})
	t.eventually("clients to begin", 10*time.Second, func(context.Context) error {
		if said := t.err.String(); said != "ready\n" {
			return fmt.Errorf("they say %q", said)
		}
		return nil
	})
}

// end stops the clients and returns what came of it.
func (t *traffic) end() (o outcome) {
	t.Helper()
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := t.wait(ctx)
	if err == nil {
		err = json.Unmarshal([]byte(out), &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("from %s: %d requests in %s, %d failed, the slowest answer took %s", t.from, o.Requests, seconds(o.Ended.Sub(o.Began)), o.Failed, millis(o.Longest))
	return o
}

// phase is what was being done when requests failed.
type phase struct {
	name  string
	began time.Time
}

// phases notes what is done, for failures to be told with.
type phases []phase

func (s *phases) begin(p *rackPart, name string) {
	now := time.Now()
	if n := len(*s); n > 0 {
		p.Logf("%s took %s", (*s)[n-1].name, seconds(now.Sub((*s)[n-1].began)))
	}
	*s = append(*s, phase{name, now})
}

func (s phases) at(when time.Time) string {
	for _, one := range slices.Backward(s) {
		if !when.Before(one.began) {
			return fmt.Sprintf("%s + %s", one.name, millis(when.Sub(one.began)))
		}
	}
	return "before"
}

// happened is what the hosts' containers did in a span of time.
func (p *rackPart) happened(s phases, from, to time.Time) string {
	p.Helper()
	var text strings.Builder
	for i, h := range p.hosts {
		// Of a host that is down there is nothing to say.
		out, _ := p.engineOn(i+1).command("docker", "events", "--since", fmt.Sprint(from.Unix()), "--until", fmt.Sprint(min(to.Unix()+1, time.Now().Unix())),
			"--filter", "type=container", "--format", "{{.TimeNano}} {{.Action}} {{.Actor.Attributes.name}}")
		for line := range strings.Lines(out) {
			stamp, what, _ := strings.Cut(line, " ")
			if nanos, err := strconv.ParseInt(stamp, 10, 64); err == nil && !strings.HasPrefix(what, "exec_") {
				fmt.Fprintf(&text, "%s on %s: %s", s.at(time.Unix(0, nanos)), h.name, what)
			}
		}
	}
	return text.String()
}

// without wants no request to have failed.
func (o outcome) without(t *traffic, s phases) {
	t.Helper()
	if o.Failed == 0 {
		return
	}
	var text strings.Builder
	for _, f := range o.Failures[:min(len(o.Failures), 20)] {
		fmt.Fprintf(&text, "%s: after %s, kept %v: %s\n", s.at(f.Began), millis(f.Ended.Sub(f.Began)), f.Kept, f.Error)
	}
	t.Errorf("%d of %d requests from %s failed:\n%sWhat containers did then:\n%s", o.Failed, o.Requests, t.from, text.String(),
		t.happened(s, o.Failures[0].Began.Add(-3*time.Second), o.Failures[len(o.Failures)-1].Ended.Add(time.Second)))
}

// playNoneFails updates, scales, drains, kills the leader and restarts every daemon under
// traffic to a published port and to a virtual IP: no request fails.
func playNoneFails(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "net")
	p.service("asker", "--network", "net", "--constraint", "node.hostname==n1", "--", "sleep")
	p.serviceOf(checkedImage(1), "web", "--replicas", "4", "--network", "net", "--publish", "8080:80", "--", "serve")
	p.service("bare", "--replicas", "2", "--publish", "8082:80", "--", "serve", "-after", "700ms") // It has no health check.
	p.running("asker", 1)
	p.running("web", 4)
	p.running("bare", 2)
	for _, port := range []int{8080, 8082} {
		p.eventually(fmt.Sprintf("port %d to answer", port), 10*time.Second, func(context.Context) error {
			_, err := p.get(fmt.Sprintf("http://%s:%d/", p.hosts[2].addr, port))
			return err
		})
	}
	bare := p.calling(8082, p.hosts...)
	outside, inside := p.calling(8080, p.hosts...), p.seats("asker")[0].calling("http://web/")
	var s phases
	s.begin(p, "rolling update")
	p.docker("service", "update", "--detach=false", "--quiet", "--no-resolve-image", "--image", checkedImage(2), "web")
	s.begin(p, "rolling update, the new one first")
	p.docker("service", "update", "--detach=false", "--quiet", "--no-resolve-image", "--update-order", "start-first", "--image", checkedImage(1), "--update-parallelism", "2", "web")
	s.begin(p, "rolling update without a health check")
	p.docker("service", "update", "--detach=false", "--quiet", "--no-resolve-image", "--update-order", "start-first", "--update-monitor", "500ms", "--env-add", "UPDATED=1", "bare")
	if o := bare.end(); len(o.Tasks) != 4 {
		p.Errorf("%d tasks answered, want 4", len(o.Tasks))
	} else {
		o.without(bare, s)
	}
	p.removed("bare")
	s.begin(p, "scale to six")
	p.docker("service", "scale", "web=6")
	s.begin(p, "scale to three")
	p.docker("service", "scale", "web=3")
	s.begin(p, "drain")
	p.docker("node", "update", "--availability", "drain", "n3")
	p.eventually("n3 to be drained", 40*time.Second, func(context.Context) error {
		out, err := p.any().run("node", "ps", "--filter", "desired-state=running", "-q", "n3")
		if err != nil || strings.TrimSpace(out) != "" {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	})
	p.running("web", 3)
	s.begin(p, "activate")
	p.docker("node", "update", "--availability", "active", "n3")
	s.begin(p, "leader kill")
	leader := p.leader()
	leader.node.kill()
	time.Sleep(100 * time.Millisecond) // As long as the unit waits before it starts a daemon again.
	p.starts(leader)
	s.begin(p, "update by the new leader")
	p.docker("service", "update", "--detach=false", "--quiet", "--no-resolve-image", "--env-add", "KILLED=1", "web")
	for _, h := range p.hosts {
		s.begin(p, "restart of the daemon of "+h.name)
		if err := h.node.stop(); err != nil {
			p.Error(err)
		}
		p.starts(h)
	}
	s.begin(p, "end")
	for _, t := range []*traffic{outside, inside} {
		o := t.end()
		o.without(t, s)
		if len(o.Tasks) < 12 {
			t.Errorf("only %d tasks answered", len(o.Tasks))
		}
	}
	if p.Failed() {
		said, err := p.any().run("service", "logs", "web")
		p.Logf("what the tasks that are left said when they ended, %v:\n%s", err, said)
	}
	p.removed("web", "asker")
	p.gone("net")
}

// leader is the host whose node leads.
func (p *rackPart) leader() *rackHost {
	p.Helper()
	name := p.docker("node", "ls", "--format", `{{if eq .ManagerStatus "Leader"}}{{.Hostname}}{{end}}`)
	for _, h := range p.hosts {
		if h.name == strings.TrimSpace(name) {
			return h
		}
	}
	p.Fatalf("no leader: %q", name)
	return nil
}

// starts starts a host's node again and waits until the cluster is whole.
func (p *rackPart) starts(h *rackHost) {
	p.Helper()
	if err := h.node.start(p.Context()); err != nil {
		p.Fatal(err)
	}
	if err := p.settled(p.Context()); err != nil {
		p.Fatal(err)
	}
}

// playTaskKilled kills a task under traffic: what fails is what it was being asked, and what is sent before
// others can know.
func playTaskKilled(p *rackPart) {
	asker := p.oneEachServes()
	web := p.seats("web")
	for _, victim := range web[:2] {
		for _, o := range p.bounded(asker, 500*time.Millisecond, func() {
			if out, err := victim.host.program(p.Context(), "kill", "-9", victim.pid); err != nil {
				p.Error(out, err)
			}
		}) {
			for _, f := range o.Failures {
				if f.Task != "" && f.Task != victim.task {
					p.Errorf("kill -9 of %s: a request by a connection to %s failed: %s", victim.task, f.Task, f.Error)
				}
			}
		}
		p.running("web", rackHosts)
	}
	p.removed("web", "asker")
	p.gone("net")
}

// keptLimit is how long after a host has lost its power a client waits for it by a connection that it keeps, at
// most: until gossip misses the host, and the host says nothing to who knocks.
const keptLimit = 2200 * time.Millisecond

// playHostDies takes a whole host's power under traffic. No request is sent there later than that, and none waits for it
// longer by a connection that a client keeps. A daemon that dies alone takes no connection along.
func playHostDies(p *rackPart) {
	asker := p.oneEachServes()
	cut := p.hosts[2]
	for _, o := range p.bounded(asker, 0, func() {
		cut.node.kill()
	}) {
		if o.Failed > 0 {
			p.Errorf("%d requests failed when a daemon died", o.Failed)
		}
	}
	p.starts(cut)
	p.running("web", rackHosts)
	var at time.Time
	for _, o := range p.bounded(asker, 1600*time.Millisecond, func() {
		at = time.Now()
		cut.cut()
	}, "http://tasks.web/") {
		last := time.Duration(0)
		for _, f := range o.Failures {
			if !f.Kept || f.Task == "" {
				continue // A connection that began: how long that may take is the client's affair.
			}
			last = max(last, f.Ended.Sub(at))
			if late := f.Ended.Sub(at); late > keptLimit {
				p.Errorf("a request that began %s after the cut by a connection to %s failed %s after it: %s", millis(f.Began.Sub(at)), f.Task, millis(late), f.Error)
			}
		}
		p.Logf("%d requests failed, the last by a kept connection %s after the cut", o.Failed, millis(last))
	}
	if err := cut.restore(p.Context()); err != nil {
		p.Fatal(err)
	}
	if err := p.settled(p.Context()); err != nil {
		p.Fatal(err)
	}
	p.running("web", rackHosts)
	p.eventually("the host to carry again", 20*time.Second, func(context.Context) error {
		_, err := p.get("http://" + cut.addr + ":8080/")
		return err
	})
	p.removed("web", "asker")
	p.gone("net")
}

// oneEachServes has a task of web on each host, and returns who asks them by their virtual IP.
func (p *rackPart) oneEachServes() (asker *seat) {
	p.Helper()
	p.docker("network", "create", "-d", "overlay", "net")
	p.service("asker", "--network", "net", "--constraint", "node.hostname==n1", "--", "sleep")
	p.serviceOf(checkedImage(1), "web", append(slices.Clone(oneEach), "--network", "net", "--publish", "8080:80", "--", "serve")...)
	p.running("asker", 1)
	p.running("web", rackHosts)
	p.eventually("the port to answer", 10*time.Second, func(context.Context) error {
		_, err := p.get("http://" + p.hosts[1].addr + ":8080/")
		return err
	})
	return p.seats("asker")[0]
}

// bounded wants no request to fail under traffic that began later than that after the event; more is what the asker
// asks for, too.
func (p *rackPart) bounded(asker *seat, limit time.Duration, event func(), more ...string) (outcomes []outcome) {
	p.Helper()
	all := []*traffic{p.calling(8080, p.hosts[0], p.hosts[1])}
	for _, url := range append([]string{"http://web/"}, more...) {
		all = append(all, asker.calling(url))
	}
	time.Sleep(time.Second)
	at := time.Now()
	event()
	time.Sleep(5 * time.Second)
	for _, t := range all {
		o := t.end()
		last := time.Duration(0)
		for _, f := range o.Failures {
			last = max(last, f.Began.Sub(at))
			if late := f.Began.Sub(at); late > limit || late < -5*time.Second {
				t.Errorf("a request that began %s later failed after %s: %s", millis(late), millis(f.Ended.Sub(f.Began)), f.Error)
			}
		}
		t.Logf("the last request that failed from %s began %s later", t.from, millis(last))
		outcomes = append(outcomes, o)
	}
	return outcomes
}

// playNamesStay looks names up all the time, while the host's daemon is restarted.
func playNamesStay(p *rackPart) {
	p.docker("network", "create", "-d", "overlay", "net")
	p.serviceOf(checkedImage(1), "web", append(slices.Clone(oneEach), "--network", "net", "--", "serve")...)
	p.running("web", rackHosts)
	vip, _, _ := strings.Cut(p.docker("service", "inspect", "-f", "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", "web"), "/")
	asker := p.seats("web")[0]
	p.eventually("the name to be known", 10*time.Second, func(context.Context) error {
		if got := asker.lookup("web"); !same(got, []string{vip}) {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
	t := asker.calling("-names", "-pause", "20ms", "web")
	var s phases
	for range 6 {
		s.begin(p, "restart")
		if err := asker.host.node.stop(); err != nil {
			p.Error(err)
		}
		p.starts(asker.host)
	}
	o := t.end()
	o.without(t, s)
	for answer, n := range o.Tasks {
		if answer != vip {
			p.Errorf("web was %q %d times, last %s, not %s", answer, n.Count, s.at(n.Last), vip)
		}
	}
	if o.Longest > time.Second {
		p.Errorf("a look-up took %s", millis(o.Longest))
	}
	p.removed("web")
	p.gone("net")
}
