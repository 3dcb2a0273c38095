package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// answers waits until a port answers on each host as it should.
func (p *rackPart) answers(port int, right func(reply) bool) {
	p.Helper()
	for _, h := range p.hosts {
		url := fmt.Sprintf("http://%s:%d/", h.addr, port)
		p.eventually(url, 15*time.Second, func(context.Context) error {
			r, err := p.get(url)
			if err == nil && !right(r) {
				err = fmt.Errorf("it answers %+v", r)
			}
			return err
		})
	}
}

func from(prefix string) func(reply) bool {
	return func(r reply) bool { return strings.HasPrefix(r.Task, prefix) }
}

// read is a file in the container.
func (s *seat) read(file string) string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.host.engine.proc, s.pid, "root", file))
	if err != nil {
		s.Errorf("%s: %v", s.task, err)
	}
	return strings.TrimSpace(string(text))
}

// playStacks deploys stacks as users have them, calls them as their users do, deploys them again
// and removes them.
func playStacks(p *rackPart) {
	// Nodes have the ingress network while anything is published, so the part before may still be going.
	var before string
	p.eventually("hosts to have no networks any more", 40*time.Second, func(context.Context) (err error) {
		if before, err = p.inventory(); err == nil && strings.Contains(before, "skb") {
			err = errors.New(before)
		}
		return err
	})
	stackPlay{
		T: p.T, any: p.any, docker: p.docker, works: p.stacksWork,
		live:    func(colour string) { p.answers(8088, from("colours_"+colour+".")) },
		watches: func() { p.answers(3000, from("n")) },
	}.play()
	p.eventually("nothing to be left of the stacks", 40*time.Second, func(context.Context) error {
		after, err := p.inventory()
		if err == nil && after != before {
			err = fmt.Errorf("there was\n%s\nand is\n%s", before, after)
		}
		return err
	})
	p.engineOn(2).docker("volume", "rm", "shop_data") // It stays where the database was, as in Swarm.
}

// stacksWork calls the stacks, and looks at what they were given.
func (p *rackPart) stacksWork() {
	p.Helper()
	p.answers(8080, from("shop_db.1."))
	db := p.seats("shop_db")[0]
	for _, name := range []string{"cache", "shop_cache", "api", "tasks.api", "database", "primary"} {
		if db.lookup(name) == nil {
			p.Errorf("shop_db doesn't know %s", name)
		}
	}
	if got := db.lookup("proxy"); got != nil {
		p.Errorf("shop_db knows proxy, which is on another network: %v", got)
	}
	p.answers(3000, from("n"))
	p.answers(9100, from("n"))
	if r, err := p.seats("watch_page")[0].get("http://alertmanager:9093/"); err != nil || !from("watch_alerts.1.")(r) {
		p.Errorf("alertmanager answers %+v, %v", r, err)
	}
	p.answers(9000, from("n"))

	for _, has := range []struct{ service, file, text string }{
		{"shop_api", "/run/secrets/password", "not a secret"}, {"shop_db", "/run/secrets/db_password", "not a secret"},
		{"shop_proxy", "/etc/routes", "/ api"}, {"watch_collector", "/etc/rules", "/ api"},
		{"agents_manager", "/run/secrets/licence", "not a secret"}, {"agents_manager", "/site.txt", "/ api"},
	} {
		for _, s := range p.seats(has.service) {
			if got := s.read(has.file); got != has.text {
				p.Errorf("%s of %s says %q, want %q", has.file, s.task, got, has.text)
			}
		}
	}
}

// inventory is what the cluster and the hosts have that stacks bring.
func (p *rackPart) inventory() (string, error) {
	var all strings.Builder
	var errs []error
	add := func(what, out string, err error) {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		slices.Sort(lines)
		fmt.Fprintf(&all, "%s: %s\n", what, strings.Join(lines, ", "))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w %s", what, err, out))
		}
	}
	for _, what := range []string{"service", "network", "secret", "config"} {
		out, err := p.any().run(what, "ls", "--format", "{{.Name}}")
		add(what, out, err)
	}
	for i, h := range p.hosts {
		for _, list := range [][]string{{"ps", "-a", "--format", "{{.Names}}"}, {"network", "ls", "--format", "{{.Name}}"}} {
			out, err := p.engineOn(i + 1).run(list...)
			add(h.name+" "+list[0], out, err)
		}
		for _, kind := range []string{"vxlan", "bridge"} {
			out, err := h.program(p.Context(), "ip", "-br", "link", "show", "type", kind)
			var links []string
			for line := range strings.Lines(out) {
				links = append(links, strings.Fields(line)[0])
			}
			add(h.name+" "+kind, strings.Join(links, "\n"), err)
		}
	}
	return all.String(), errors.Join(errs...)
}
