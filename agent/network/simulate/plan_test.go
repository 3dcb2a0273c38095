package simulate_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/agent/network/networktest"
	"skep/agent/network/simulate"
)

// TestPlan_Scripts runs the scripts in testdata. `go test -rewrite` writes what came out
// into them: commit that only when it is understood.
func TestPlan_Scripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := script{plane: simulate.New(), wanted: network.Wanted{
				Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789, Seed: 7,
				Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
			}}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.do(t, d) })
		})
	}
}

// script is a node's account of its networks, and its kernel.
type script struct {
	wanted network.Wanted
	plane  *simulate.Plane
}

func (s *script) do(t *testing.T, d *datadriven.TestData) string {
	words := strings.Fields(d.Input)
	arg := func(key string) string {
		for _, a := range d.CmdArgs {
			if a.Key == key && len(a.Vals) > 0 {
				return a.Vals[0]
			}
		}
		return ""
	}
	name := ""
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	net := func() *network.Network {
		i := slices.IndexFunc(s.wanted.Networks, func(n network.Network) bool { return n.ID == name })
		if i < 0 {
			t.Fatalf("%s: no network %s", d.Pos, name)
		}
		return &s.wanted.Networks[i]
	}
	switch d.Cmd {
	case "node":
		s.wanted.Nodes = append(s.wanted.Nodes, network.Node{Index: uint16(number(t, arg("index"))), Addr: netip.MustParseAddr(arg("addr"))})
	case "rmnode":
		index := uint16(number(t, arg("index")))
		s.wanted.Nodes = slices.DeleteFunc(s.wanted.Nodes, func(n network.Node) bool { return n.Index == index })
	case "network":
		n := network.Network{ID: name, VNI: uint32(number(t, arg("vni"))), MTU: 1450, Internal: d.HasArg("internal"), Ingress: d.HasArg("ingress")}
		for _, word := range words {
			prefix := netip.MustParsePrefix(word)
			n.Subnets = append(n.Subnets, network.Subnet{Prefix: prefix, Gateway: prefix.Addr().Next()})
		}
		s.wanted.Networks = append(s.wanted.Networks, n)
	case "rmnetwork":
		s.wanted.Networks = slices.DeleteFunc(s.wanted.Networks, func(n network.Network) bool { return n.ID == name })
	case "endpoints": // a line for each: node and addresses
		net().Endpoints = nil
		for line := range strings.Lines(d.Input) {
			words := strings.Fields(line)
			net().Endpoints = append(net().Endpoints, network.Endpoint{Node: uint16(number(t, words[0])), Addrs: addrs(words[1:])})
		}
	case "services": // a line for each: VIP and backends
		net().Services = nil
		for line := range strings.Lines(d.Input) {
			words := strings.Fields(line)
			affinity := words[len(words)-1] == "affinity"
			if affinity {
				words = words[:len(words)-1]
			}
			net().Services = append(net().Services, network.Service{VIP: netip.MustParseAddr(words[0]), Backends: addrs(words[1:]), Affinity: affinity})
		}
	case "ports": // a line for each: [address] published protocol target backends
		s.wanted.Ports = nil
		for line := range strings.Lines(d.Input) {
			words := strings.Fields(line)
			p := network.Port{}
			if strings.ContainsAny(words[0], ".:") {
				p.HostIP, words = netip.MustParseAddr(words[0]), words[1:]
			}
			p.Published, p.Protocol, p.Target, p.Backends = uint16(number(t, words[0])), words[1], uint16(number(t, words[2])), addrs(words[3:])
			s.wanted.Ports = append(s.wanted.Ports, p)
		}
	case "self":
		s.wanted.Self.Addr = netip.MustParseAddr(arg("addr"))
	case "connect":
		s.plane.Connect(name, arg("port"))
	case "remove": // by somebody else: all objects that begin so
		existing, _ := s.plane.Dump(context.Background(), "c")
		for _, o := range existing.Objects {
			if strings.HasPrefix(o.String(), strings.TrimSpace(d.Input)) {
				if err := s.plane.Apply(context.Background(), []network.Step{{Do: network.Remove, Object: o}}); err != nil {
					return err.Error()
				}
			}
		}
	case "plan": // with "incomplete" before all is known; with "quiet" only how many steps
		existing, _ := s.plane.Dump(context.Background(), "c")
		steps := network.Plan(network.Desired(&s.wanted, existing.Ports), existing.Objects, !d.HasArg("incomplete"))
		var out strings.Builder
		if d.HasArg("quiet") {
			fmt.Fprintln(&out, len(steps), "steps")
		} else {
			for _, step := range steps {
				fmt.Fprintln(&out, step)
			}
			if len(steps) == 0 {
				fmt.Fprintln(&out, "nothing")
			}
		}
		if err := s.plane.Apply(context.Background(), steps); err != nil {
			fmt.Fprintln(&out, err)
		}
		return out.String()
	default:
		t.Fatalf("%s: no command %s", d.Pos, d.Cmd)
	}
	return ""
}

func number(t *testing.T, word string) uint64 {
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func addrs(words []string) (list []netip.Addr) {
	for _, word := range words {
		list = append(list, netip.MustParseAddr(word))
	}
	return list
}

// TestPlan_EachStepFindsWhatItNeeds goes from any account of the networks to any other, with
// objects removed by others on the way: the simulated kernel refuses no step, ends with what
// is desired and nothing else, and then nothing is left to do. While the account is incomplete
// nothing is removed.
func TestPlan_EachStepFindsWhatItNeeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		plane := simulate.New()
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			w := networktest.Wanted(t)
			existing, _ := plane.Dump(ctx, "c")
			if n := len(existing.Objects); n > 0 && rapid.Bool().Draw(t, "damage") {
				o := existing.Objects[rapid.IntRange(0, n-1).Draw(t, "which")]
				_ = plane.Apply(ctx, []network.Step{{Do: network.Remove, Object: o}})
				existing, _ = plane.Dump(ctx, "c")
			}
			early := network.Plan(network.Desired(w, existing.Ports), existing.Objects, false)
			for _, step := range early {
				if step.Do == network.Remove {
					t.Fatalf("removed before all was known: %s", step)
				}
			}
			if rapid.Bool().Draw(t, "early") {
				if err := plane.Apply(ctx, early); err != nil {
					t.Fatal(err)
				}
				existing, _ = plane.Dump(ctx, "c")
			}
			desired := network.Desired(w, existing.Ports)
			if err := plane.Apply(ctx, network.Plan(desired, existing.Objects, true)); err != nil {
				t.Fatal(err)
			}
			existing, _ = plane.Dump(ctx, "c")
			if got, want := lines(existing.Objects), lines(desired); !slices.Equal(got, want) {
				t.Fatalf("there is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if again := network.Plan(desired, existing.Objects, true); len(again) > 0 {
				t.Fatalf("planned again: %v", again)
			}
		}
	})
}

// TestDesired_OfAnyAccount has anything be wrong in an account: there is at most one object of a key, the
// simulated kernel has all of them without refusing a step, and a network that is sound is there
// as if it were alone.
func TestDesired_OfAnyAccount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		w, sound := networktest.Any(t)
		desired := network.Desired(w, map[string][]string{sound.Bridge(): {"veth1"}})
		keys := map[any]network.Object{}
		for _, o := range desired {
			if other, twice := keys[network.KeyOf(o)]; twice {
				t.Fatalf("two of a key: %s, %s", o, other)
			}
			keys[network.KeyOf(o)] = o
		}
		alone := *w
		alone.Networks, alone.Ports = []network.Network{sound}, nil
		for _, o := range network.Desired(&alone, map[string][]string{sound.Bridge(): {"veth1"}}) {
			if _, is := o.(network.Table); is {
				continue // names the ingress network, if there is one
			}
			if got := keys[network.KeyOf(o)]; got != o {
				t.Fatalf("of the sound network there isn't %s but %v", o, got)
			}
		}
		plane := simulate.New()
		existing, _ := plane.Dump(ctx, "c")
		desired = network.Desired(w, existing.Ports)
		if err := plane.Apply(ctx, network.Plan(desired, existing.Objects, true)); err != nil {
			t.Fatal(err)
		}
		existing, _ = plane.Dump(ctx, "c")
		if again := network.Plan(desired, existing.Objects, true); len(again) > 0 {
			t.Fatalf("planned again: %v", again)
		}
	})
}

func lines(objects []network.Object) []string {
	list := make([]string, len(objects))
	for i, o := range objects {
		list[i] = o.String()
	}
	slices.Sort(list)
	return list
}
