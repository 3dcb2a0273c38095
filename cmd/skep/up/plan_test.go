package up

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/docker/docker/api/types/swarm"
)

// TestPlan_Scripts plays the files in testdata. Commands:
//
//	machines HOST...              machines on which nothing is
//	cluster VERSION HOST...       a cluster of them, led by the first; HOST:worker for a worker
//	fact HOST NAME=VALUE...       something about a machine, see facts below
//	list                          the list, below it
//	plan [VERSION] [remove=HOST] [force]
//	down
//
// `go test ./cmd/skep/up -run Scripts -rewrite` writes what comes out.
func TestPlan_Scripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := script{t: t, changes: map[string][]func(*Sight){}}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	t       *testing.T
	world   *simulated
	list    List
	changes map[string][]func(*Sight)
}

func (s *script) run(_ *testing.T, d *datadriven.TestData) string {
	words := []string{}
	for _, a := range d.CmdArgs {
		words = append(words, a.String())
	}
	switch d.Cmd {
	case "machines":
		s.world, s.changes = newSimulated(words...), map[string][]func(*Sight){}
	case "cluster":
		s.cluster(words[0]+strings.Repeat("x", 18), words[1:])
	case "fact":
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			change := facts[name]
			if change == nil {
				d.Fatalf(s.t, "there is no fact %s", name)
			}
			s.changes[words[0]] = append(s.changes[words[0]], func(sight *Sight) { change(sight, value) })
		}
	case "list":
		var err error
		if s.list, err = Parse([]byte(d.Input)); err != nil {
			return err.Error()
		}
	case "plan", "down":
		return s.plan(d.Cmd == "down", words)
	default:
		d.Fatalf(s.t, "there is no command %s", d.Cmd)
	}
	return ""
}

func (s *script) cluster(version string, hosts []string) {
	for i, h := range hosts {
		host, role, _ := strings.Cut(h, ":")
		if role == "" {
			role = "manager"
		}
		m := s.world.machines[host]
		m.binary, m.running, m.unit, m.enabled, m.data, m.in, m.known = version, version, true, true, true, true, true
		m.role, m.availability = swarm.NodeRole(role), "active"
		if i == 0 {
			s.world.cluster, s.world.leader = true, host
		}
	}
}

func (s *script) plan(down bool, words []string) string {
	o := Options{Version: "v1", Digests: map[string]string{"amd64": "v1" + strings.Repeat("x", 18)}}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "remove":
			o.Remove = append(o.Remove, value)
		case "force":
			o.Force = true
		default:
			o.Version, o.Digests["amd64"] = name, name+strings.Repeat("x", 18)
		}
	}
	w := World{}
	for _, host := range slices.Concat(s.list.Hosts(), o.Remove) {
		sight := &Sight{Arch: "amd64", Reached: s.world.addr(host), Facts: s.world.facts(s.world.machines[host])}
		for _, change := range s.changes[host] {
			change(sight)
		}
		w[host] = sight
	}
	todo := PlanDown(s.list, w)
	if !down {
		todo = Plan(s.list, w, o)
	}
	var out strings.Builder
	for _, p := range todo.Problems {
		fmt.Fprintln(&out, "problem:", p)
	}
	for _, step := range todo.Steps {
		fmt.Fprintln(&out, step)
	}
	for _, n := range todo.Notes {
		fmt.Fprintln(&out, "note:", n)
	}
	if out.Len() == 0 {
		return "nothing to do\n"
	}
	return out.String()
}

// facts are what scripts can say of a machine.
var facts = map[string]func(*Sight, string){
	"err":        func(s *Sight, v string) { *s = Sight{Err: words(v), Do: "see that \"ssh HOST\" works"} },
	"arch":       func(s *Sight, v string) { s.Arch = v },
	"systemd":    func(s *Sight, v string) { s.Systemd = v },
	"engine":     func(s *Sight, v string) { s.Engine = Engine{Error: words(v)} },
	"api":        func(s *Sight, v string) { s.Engine.API = v },
	"swarm":      func(s *Sight, v string) { s.Engine.Swarm = words(v) },
	"kernel":     func(s *Sight, v string) { s.NoNetworks = words(v) },
	"encryption": func(s *Sight, v string) { s.Encryption = words(v) },
	"hostname":   func(s *Sight, v string) { s.Hostname = v },
	"id":         func(s *Sight, v string) { s.MachineID = v },
	"free":       func(s *Sight, v string) { _, _ = fmt.Sscan(v, &s.DiskFree) },
	"taken":      func(s *Sight, v string) { s.Taken = strings.Split(v, ",") },
	"clock":      func(s *Sight, v string) { s.Ahead, _ = time.ParseDuration(v) },
	"mtu": func(s *Sight, v string) {
		s.Addresses = slices.Clone(s.Addresses)
		_, _ = fmt.Sscan(v, &s.Addresses[0].MTU)
	},
	"also": func(s *Sight, v string) {
		s.Addresses = append(s.Addresses, Address{netip.MustParseAddr(v), "eth1", 1500})
	},
	"reached": func(s *Sight, v string) { s.Reached = v },
	"cut": func(s *Sight, v string) {
		to, port, _ := strings.Cut(v, ":")
		s.Cut = append(s.Cut, Cut{To: to, Addr: "10.0.0.9", Port: port, Why: "no answer"})
	},
	"large": func(s *Sight, v string) {
		s.Cut = append(s.Cut, Cut{To: v, Addr: "10.0.0.9", Port: "4789/udp", Why: "no answer", Large: true})
	},
	"state":   func(s *Sight, v string) { s.Node.State, s.Cluster = swarm.LocalNodeState(v), nil },
	"error":   func(s *Sight, v string) { s.Node.Error = words(v) },
	"running": func(s *Sight, v string) { s.Skep.Running, s.Node, s.Cluster = v, Node{}, nil },
	"unit":    func(s *Sight, v string) { s.Skep.Unit = words(v) },
	"package": func(s *Sight, v string) {
		s.Skep = Skep{Path: packagedPath, Packaged: true, Version: v, Digest: "package", Unit: UnitPackaged, Enabled: s.Skep.Enabled, Running: s.Skep.Running, Data: s.Skep.Data}
	},
	"cluster": func(s *Sight, v string) { s.Cluster = &Cluster{ID: v} },
	"node":    func(s *Sight, v string) { s.Node.ID = v },
	"label": func(s *Sight, v string) {
		host, label, _ := strings.Cut(v, "/")
		name, value, _ := strings.Cut(label, ":")
		s.Cluster.Labels["id-"+host][name] = value
	},
	"novote": func(s *Sight, v string) {
		for i := range s.Cluster.Status.Managers {
			if m := &s.Cluster.Status.Managers[i]; m.Hostname == v {
				m.Voter = false
			}
		}
	},
	"lost": func(s *Sight, v string) {
		for i := range s.Cluster.Status.Managers {
			if m := &s.Cluster.Status.Managers[i]; m.Hostname == v {
				m.Reachable = false
				s.Cluster.Status.Nodes[i].State = "down"
			}
		}
	},
	"autolock": func(s *Sight, _ string) { s.Cluster.Status.Autolock = true },
	"way":      func(s *Sight, v string) { s.Cluster.InTheWay = append(s.Cluster.InTheWay, words(v)) },
}

// words are written with underscores in scripts.
func words(v string) string { return strings.ReplaceAll(v, "_", " ") }
