package simulate_test

import (
	"context"
	"fmt"
	"maps"
	"math"
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
	"skep/cluster"
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
	case "keys": // of a node, a line for each: generation and the key's first byte
		index := uint16(number(t, arg("node")))
		i := slices.IndexFunc(s.wanted.Nodes, func(n network.Node) bool { return n.Index == index })
		s.wanted.Nodes[i].Keys = cluster.WireKeys{}
		for k, line := range strings.Split(d.Input, "\n") {
			if words := strings.Fields(line); len(words) == 2 {
				s.wanted.Nodes[i].Keys[k] = cluster.WireKey{Generation: uint32(number(t, words[0])), Public: [32]byte{byte(number(t, words[1]))}}
			}
		}
	case "generation":
		s.wanted.Generation, s.wanted.MTU = uint32(number(t, name)), 1500
	case "meet":
		s.plane.Meet(name)
	case "rmnode":
		index := uint16(number(t, arg("index")))
		s.wanted.Nodes = slices.DeleteFunc(s.wanted.Nodes, func(n network.Node) bool { return n.Index == index })
	case "network":
		n := network.Network{ID: name, VNI: uint32(number(t, arg("vni"))), MTU: 1450, Internal: d.HasArg("internal"), Encrypted: d.HasArg("encrypted"), Ingress: d.HasArg("ingress")}
		for _, word := range words {
			if gateway, err := netip.ParseAddr(word); err == nil {
				n.Gateways = append(n.Gateways, gateway)
				continue
			}
			prefix := netip.MustParsePrefix(word)
			n.Subnets = append(n.Subnets, network.Subnet{Prefix: prefix, Gateway: prefix.Addr().Next()})
		}
		s.wanted.Networks = append(s.wanted.Networks, n)
	case "rmnetwork":
		s.wanted.Networks = slices.DeleteFunc(s.wanted.Networks, func(n network.Network) bool { return n.ID == name })
	case "endpoints": // a line for each: node and addresses, and "gone" if it is
		net().Endpoints = nil
		for line := range strings.Lines(d.Input) {
			line, gone := strings.CutSuffix(strings.TrimSpace(line), " gone")
			words := strings.Fields(line)
			net().Endpoints = append(net().Endpoints, network.Endpoint{Node: uint16(number(t, words[0])), Addrs: addrs(words[1:]), Gone: gone})
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
	case "guard": // the firewall of an engine that has started
		s.plane.Guard(false)
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
		steps := network.Plan(network.Desired(&s.wanted, existing), existing.Objects, !d.HasArg("incomplete"))
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
// nothing is removed or replaced.
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
			early := network.Plan(network.Desired(w, existing), existing.Objects, false)
			for _, step := range early {
				if step.Do != network.Add {
					t.Fatalf("changed before all was known: %s", step)
				}
			}
			if rapid.Bool().Draw(t, "early") {
				if err := plane.Apply(ctx, early); err != nil {
					t.Fatal(err)
				}
				existing, _ = plane.Dump(ctx, "c")
			}
			desired := network.Desired(w, existing)
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
		desired := network.Desired(w, network.Existing{Ports: map[string][]string{sound.Bridge(): {"veth1"}}})
		keys := map[network.ObjectKey]network.Object{}
		for _, o := range desired {
			if other, twice := keys[network.KeyOf(o)]; twice {
				t.Fatalf("two of a key: %s, %s", o, other)
			}
			keys[network.KeyOf(o)] = o
		}
		alone := *w
		alone.Networks, alone.Ports = []network.Network{sound}, nil
		for _, o := range network.Desired(&alone, network.Existing{Ports: map[string][]string{sound.Bridge(): {"veth1"}}}) {
			if _, is := o.(network.Table); is {
				continue // names the ingress network, if there is one
			}
			if got := keys[network.KeyOf(o)]; got != o {
				t.Fatalf("of the sound network there isn't %s but %v", o, got)
			}
		}
		plane := simulate.New()
		existing, _ := plane.Dump(ctx, "c")
		desired = network.Desired(w, existing)
		if err := plane.Apply(ctx, network.Plan(desired, existing.Objects, true)); err != nil {
			t.Fatal(err)
		}
		existing, _ = plane.Dump(ctx, "c")
		if again := network.Plan(desired, existing.Objects, true); len(again) > 0 {
			t.Fatalf("planned again: %v", again)
		}
	})
}

// Keys' generations come to an end, and what is made of an account must, too.
func TestDesired_OfTheLastGeneration(t *testing.T) {
	for generation, want := range map[uint32]int{1: 1, 2: 2, math.MaxUint32: 2} {
		w := &network.Wanted{
			Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, Generation: generation, MTU: 1500, DataPort: 4789,
			Networks: []network.Network{{ID: "n", VNI: 4097, MTU: 1370, Encrypted: true, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")}}}},
		}
		var existing network.Existing
		for range 2 { // The second time the device of the generation before is there.
			existing.Objects = network.Desired(w, existing)
			w.Generation--
			existing.Objects = append(existing.Objects, network.Desired(w, existing)...)
			w.Generation++
		}
		wires := 0
		for _, o := range network.Desired(w, existing) {
			if _, is := o.(network.Wire); is {
				wires++
			}
		}
		if wires != want {
			t.Errorf("%d devices for generation %d, want %d", wires, generation, want)
		}
	}
}

// anyObject draws an object of the kernel's: one of those that are desired, or almost, or another one.
func anyObject(t *rapid.T, desired []network.Object) network.Object {
	o := network.Object(network.Bridge{Name: "skb9"})
	if len(desired) > 0 {
		o = rapid.SampledFrom(desired).Draw(t, "like")
	}
	text := rapid.SampledFrom([]string{"", "skb1001", "skx1001", "x", "10.0.3.1"})
	v6, number := rapid.Bool(), rapid.Uint32Max(1<<16)
	switch rapid.IntRange(0, 12).Draw(t, "kind") {
	case 0:
		return network.Bridge{Name: text.Draw(t, "name"), Alias: text.Draw(t, "alias"), MTU: int(number.Draw(t, "mtu"))}
	case 1:
		return network.Tunnel{Name: text.Draw(t, "name"), Bridge: text.Draw(t, "bridge"), VNI: number.Draw(t, "vni")}
	case 2:
		return network.Table{IPv6: v6.Draw(t, "v6"), Layout: int(number.Draw(t, "layout"))}
	case 3:
		return network.Chain{IPv6: v6.Draw(t, "v6"), Name: text.Draw(t, "name"), Backends: text.Draw(t, "backends")}
	case 4:
		return network.Element{IPv6: v6.Draw(t, "v6"), Set: network.Set(text.Draw(t, "set")), A: text.Draw(t, "a"), Value: text.Draw(t, "value")}
	case 5:
		return network.Rule{Priority: number.Draw(t, "priority"), IPv6: v6.Draw(t, "v6"), Mark: number.Draw(t, "mark")}
	case 6:
		return network.Route{Link: text.Draw(t, "link"), Table: number.Draw(t, "table")}
	}
	switch was := o.(type) {
	case network.Forward:
		was.Node = netip.MustParseAddr("192.0.2.77")
		return was
	case network.Element:
		was.Value = text.Draw(t, "value")
		return was
	case network.Chain:
		was.Backends = rapid.SampledFrom([]string{network.Digest(was.Backends), "#", "10.0.3.9"}).Draw(t, "backends")
		return was
	case network.Table:
		was.Layout = 0
		return was
	}
	return o
}

// TestPlan_FromAnything has anything at all be there already, and any account be wanted: the steps, done in their
// order, end with what is desired and nothing else; and before everything is known nothing is taken away.
func TestPlan_FromAnything(t *testing.T) { rapid.Check(t, fromAnything) }

// FuzzPlan is TestPlan_FromAnything.
func FuzzPlan(f *testing.F) { f.Fuzz(rapid.MakeFuzz(fromAnything)) }

func fromAnything(t *rapid.T) {
	w, _ := networktest.Any(t)
	desired := network.Desired(w, network.Existing{})
	slices.SortFunc(desired, func(a, b network.Object) int { return strings.Compare(a.String(), b.String()) })
	existing := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) network.Object { return anyObject(t, desired) }), 0, 20).Draw(t, "existing")
	there := map[network.ObjectKey]network.Object{}
	for _, o := range existing {
		there[network.KeyOf(o)] = o
	}
	for _, step := range network.Plan(desired, existing, false) {
		if _, is := there[network.KeyOf(step.Object)]; is || step.Do != network.Add {
			t.Fatalf("before everything is known: %s", step)
		}
	}
	for _, step := range network.Plan(desired, existing, true) {
		if table, is := step.Object.(network.Table); is && step.Do == network.Replace {
			maps.DeleteFunc(there, func(_ network.ObjectKey, o network.Object) bool {
				chain, isChain := o.(network.Chain)
				element, isElement := o.(network.Element)
				return isChain && chain.IPv6 == table.IPv6 || isElement && element.IPv6 == table.IPv6
			})
		}
		if there[network.KeyOf(step.Object)] = step.Object; step.Do == network.Remove {
			delete(there, network.KeyOf(step.Object))
		}
	}
	// Of a chain a kernel knows the digest of its backends.
	digested := func(o network.Object) network.Object {
		if c, is := o.(network.Chain); is {
			c.Backends = network.Digest(c.Backends)
			return c
		}
		return o
	}
	var got, want []network.Object
	for _, o := range there {
		got = append(got, digested(o))
	}
	for _, o := range desired {
		want = append(want, digested(o))
	}
	if got, want := lines(got), lines(want); !slices.Equal(got, want) {
		t.Fatalf("there is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func lines(objects []network.Object) []string {
	list := make([]string, len(objects))
	for i, o := range objects {
		list[i] = o.String()
	}
	slices.Sort(list)
	return list
}
