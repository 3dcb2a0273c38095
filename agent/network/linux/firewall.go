package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"

	"skep/agent/network"
)

const (
	// userChain is where an engine looks before its own rules, and leaves what others put there.
	userChain = "DOCKER-USER"
	// patience is how long a program of iptables may take: another one may hold its lock.
	patience = 5 * time.Second
	// firewallAge is how old what is known of the firewall may get: of the old kind of iptables the
	// kernel tells no news.
	firewallAge = 10 * time.Second
)

// firewall is the forward rules of one family, as one kind of iptables has them.
type firewall struct {
	program string // its name
	chain   bool   // there is an engine's chain for users' rules
	drops   bool   // what no rule accepts is dropped
	passes  []network.Pass
}

// programs are the kinds of iptables of a family that have rules. Asking the others would make them
// have some, or there may be no program.
func programs(v6 bool) ([]string, error) {
	name, proc := "iptables", "/proc/net/ip_tables_names"
	if v6 {
		name, proc = "ip6tables", "/proc/net/ip6_tables_names"
	}
	var found []string
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTablesOfFamily(tableOf(v6).Family)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == "filter" }) {
		found = append(found, name+"-nft")
	}
	if old, err := os.ReadFile(proc); err == nil && slices.Contains(strings.Fields(string(old)), "filter") {
		found = append(found, name+"-legacy")
	}
	return found, nil
}

// call runs a program of iptables. An old one, of one kind only, has no name of its own kind.
func call(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := findProgram(program); err != nil {
		family, rest, _ := strings.Cut(program, "-")
		_, verb, _ := strings.Cut(rest, "-")
		program = strings.TrimSuffix(family+"-"+verb, "-")
	}
	c := hostCommand(ctx, program, args...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}

// readFirewalls reads what all kinds of iptables of a family have.
func readFirewalls(ctx context.Context, v6 bool) ([]firewall, error) {
	names, err := programs(v6)
	if err != nil {
		return nil, err
	}
	var list []firewall
	for _, program := range names {
		saved, err := call(ctx, program+"-save", "-t", "filter")
		if err != nil {
			return nil, err
		}
		list = append(list, parseFirewall(program, v6, saved))
	}
	return list, nil
}

// parseFirewall reads what iptables-save wrote.
func parseFirewall(program string, v6 bool, saved string) firewall {
	f := firewall{program: program}
	ended := false
	for line := range strings.Lines(saved) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 2 && words[0] == ":FORWARD":
			f.drops = words[1] == "DROP"
		case len(words) >= 2 && words[0] == ":"+userChain:
			f.chain = true
		case len(words) >= 4 && words[0] == "-A" && words[1] == userChain && !ended:
			if slices.Equal(words[2:], []string{"-j", "RETURN"}) {
				ended = true // What is behind has no effect.
				continue
			}
			for _, in := range []bool{false, true} {
				if p := (network.Pass{IPv6: v6, Bridge: words[3], In: in}); slices.Equal(words[2:], passRule(p)) && !slices.Contains(f.passes, p) {
					f.passes = append(f.passes, p)
				}
			}
		}
	}
	return f
}

// passRule is the rule, as iptables-save writes it. What published ports lead to goes in, and what answers it
// gets out, also to another of the engine's networks, which the engine keeps from each other.
func passRule(p network.Pass) []string {
	if p.In {
		return []string{"-i", p.Bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"}
	}
	return []string{"-o", p.Bridge, "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT"}
}

// firewalls is what is known of the firewalls of both families.
type firewalls map[bool][]firewall

// dumpFirewalls lists the rules that let published ports pass, of bridges of the cluster's, and of such as
// are gone; and which families need them.
func (p *Plane) dumpFirewalls(ctx context.Context, out *network.Existing, others map[string]bool) error {
	if p.stale.Swap(false) || p.known == nil {
		known := firewalls{}
		for _, v6 := range []bool{false, true} {
			list, err := readFirewalls(ctx, v6)
			if err != nil {
				p.stale.Store(true)
				return err
			}
			known[v6] = list
		}
		p.known = known
		time.AfterFunc(firewallAge, func() { p.stale.Store(true) })
	}
	out.Guarded = map[bool]bool{}
	for v6, list := range p.known {
		counts, guards := map[network.Pass]int{}, 0
		for _, f := range list {
			if f.chain || f.drops {
				guards++
			}
			for _, pass := range f.passes {
				counts[pass]++
			}
		}
		out.Guarded[v6] = guards > 0
		for pass, n := range counts {
			if strings.HasPrefix(pass.Bridge, "skb") && !others[pass.Bridge] {
				pass.Lacking = n < guards
				out.Objects = append(out.Objects, pass)
			}
		}
	}
	return nil
}

// putPass has the rule in each firewall that has the engine's chain, or in none.
func (p *Plane) putPass(ctx context.Context, pass network.Pass, gone bool) error {
	p.stale.Store(true)
	pass.Lacking = false
	list, err := readFirewalls(ctx, pass.IPv6)
	if err != nil {
		return err
	}
	var failed []error
	for _, f := range list {
		has := slices.Contains(f.passes, pass)
		switch {
		case gone && has:
			_, err = call(ctx, f.program, append([]string{"-w", "3", "-D", userChain}, passRule(pass)...)...)
		case !gone && f.chain && !has:
			_, err = call(ctx, f.program, append([]string{"-w", "3", "-I", userChain}, passRule(pass)...)...)
		case !gone && !f.chain && f.drops:
			err = fmt.Errorf("%s drops what is forwarded, and no engine has a chain %s in it: published ports aren't reached by other nodes' tasks: "+
				"start the engine, or let the policy of FORWARD be ACCEPT", f.program, userChain)
		default:
			err = nil
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
