package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// playEncrypted has two services call each other by an encrypted network, over the death of what
// encrypts: nothing of it is on the wire between the hosts but WireGuard's packets.
func playEncrypted(p *rackPart) {
	counts, killed := p.countInClear(), false
	p.docker("network", "create", "-d", "overlay", "--opt", "encrypted", "safe")
	p.service("front", "--network", "safe", "--replicas", "1", "--constraint", "node.hostname==n1", "--", "serve")
	p.service("back", "--network", "safe", "--replicas", "1", "--constraint", "node.hostname==n2", "--", "serve")
	p.running("front", 1)
	p.running("back", 1)
	front, back := p.seats("front")[0], p.seats("back")[0]
	talk := func() error {
		_, there := front.get("http://back/")
		_, andBack := back.get("http://front/")
		return errors.Join(there, andBack)
	}
	p.eventually("both services to reach each other by the encrypted network", 20*time.Second, func(context.Context) error { return talk() })
	for range 20 {
		if err := talk(); err != nil {
			p.Errorf("by the encrypted network: %v", err)
		}
	}
	if plugins := p.docker("node", "inspect", "n1", "--format", "{{range .Description.Engine.Plugins}}{{.Name}} {{end}}"); !strings.Contains(plugins, "overlay-encrypted") {
		p.Errorf("n1 lists %s", plugins)
	}
	for _, pid := range inside(p.hosts[0].in.id, runningProcesses()) {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "--wires") {
			_ = syscall.Kill(pid, syscall.SIGKILL) // A kernel with WireGuard needs no such process.
			killed = true
		}
	}
	if killed {
		p.eventually("n1 to say that encryption is slow", 10*time.Second, func(context.Context) error {
			if said := p.docker("node", "inspect", "n1", "--format", "{{.Status.Message}}"); !strings.Contains(said, "encrypted networks are slow here") {
				return fmt.Errorf("it says %q", said)
			}
			return nil
		})
	}
	began := time.Now()
	p.eventually("both services to reach each other again", 20*time.Second, func(context.Context) error { return talk() })
	p.Logf("%v after what encrypts was killed (%v) both reach each other", time.Since(began), killed)
	for host, clear := range counts() {
		if clear != 0 {
			p.Errorf("%s sent %d packets in clear", host, clear)
		}
	}
	p.removed("front", "back")
	p.eventually("the network to be free", time.Minute, func(context.Context) error {
		_, err := p.any().run("network", "rm", "safe")
		return err
	})
}

// countInClear begins to count, on each host, the VXLAN packets that leave it by another device than WireGuard's,
// and returns what tells how many there were.
func (p *rackPart) countInClear() func() map[string]int {
	table := func(h *rackHost, words ...string) string {
		p.Helper()
		out, err := h.program(p.Context(), "nft", words...)
		if err != nil {
			p.Fatalf("count packets on %s: %v", h.name, err)
		}
		return out
	}
	for _, h := range p.hosts {
		table(h, `add table ip watch; add chain ip watch seen { type filter hook postrouting priority 400; }; add rule ip watch seen oifname != "skw*" udp dport 4789 counter`)
	}
	return func() map[string]int {
		counts := map[string]int{}
		for _, h := range p.hosts {
			said := table(h, "list", "chain", "ip", "watch", "seen")
			n := -1
			if _, after, found := strings.Cut(said, "counter packets "); found {
				_, _ = fmt.Sscan(after, &n)
			}
			counts[h.name] = n
			table(h, "delete", "table", "ip", "watch")
		}
		return counts
	}
}
