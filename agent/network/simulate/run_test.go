package simulate_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/agent/network/networktest"
	"skep/agent/network/simulate"
)

// TestRun_KeepsWhatIsDesired has somebody else remove an object, a container come, the account
// change, and the kernel refuse everything for a while.
func TestRun_KeepsWhatIsDesired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		prefix := netip.MustParsePrefix("10.0.1.0/24")
		w := &network.Wanted{
			Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789,
			Networks: []network.Network{{ID: "web", VNI: 4097, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}}}},
		}
		var problems []string
		var carried []string
		known, changed, plane := (*network.Wanted)(nil), make(chan struct{}, 1), simulate.New()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- network.Run(ctx, network.Config{
				Plane: plane, Wanted: func() (*network.Wanted, bool) { return known, true }, Changed: changed,
				Problem: func(reason string) { problems = append(problems, reason) },
				Carried: func(ids []string) { carried = ids }, Log: slog.New(slog.DiscardHandler),
			})
		}()
		right := func(after time.Duration) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			existing, err := plane.Dump(ctx, "c")
			if err != nil {
				t.Fatal(err)
			}
			if got, want := lines(existing.Objects), lines(network.Desired(w, existing)); !slices.Equal(got, want) {
				t.Fatalf("there is\n%v\nwant\n%v", got, want)
			}
		}
		time.Sleep(time.Hour)
		if existing, _ := plane.Dump(ctx, "c"); len(existing.Objects) > 0 {
			t.Fatal("something was made before anything was known")
		}
		known = w
		changed <- struct{}{}
		right(time.Millisecond)
		if !slices.Equal(carried, []string{"web"}) {
			t.Errorf("it carries %q", carried)
		}
		plane.Connect("skb1001", "veth1")
		right(20 * time.Millisecond)
		_ = plane.Apply(ctx, []network.Step{{Do: network.Remove, Object: network.Bridge{Name: "skb1001"}}})
		plane.Connect("skb1001", "veth1")
		right(20 * time.Millisecond)

		plane.Fail(errors.New("no buffer space available"))
		plane.Connect("skb1001", "veth2")
		time.Sleep(time.Minute)
		if len(carried) > 0 {
			t.Errorf("it carries %q though nothing can be seen", carried)
		}
		plane.Fail(nil)
		right(6 * time.Second)
		want := []string{"list the kernel's networks: no buffer space available", ""}
		if !slices.Equal(problems, want) {
			t.Errorf("it told %q, want %q", problems, want)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// stubborn refuses one step for ever, and tells of each attempt as of a change: a link of which not
// all can be set is one.
type stubborn struct {
	*simulate.Plane
	tries int
}

func (p *stubborn) Apply(ctx context.Context, steps []network.Step) error {
	p.tries++
	_ = p.Plane.Apply(ctx, nil) // tells
	return errors.New("invalid argument")
}

// TestRun_IsntDrivenByItsOwnFailures has each attempt that fails be news: they are no reason to
// try again sooner. A new account is one.
func TestRun_IsntDrivenByItsOwnFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		prefix := netip.MustParsePrefix("10.0.1.0/24")
		w := &network.Wanted{Cluster: "c", Networks: []network.Network{{ID: "web", VNI: 4097, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}}}}}
		plane, changed := &stubborn{Plane: simulate.New()}, make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- network.Run(ctx, network.Config{Plane: plane, Wanted: func() (*network.Wanted, bool) { return w, true }, Changed: changed, Log: slog.New(slog.DiscardHandler)})
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if plane.tries < 10 || plane.tries > 25 {
			t.Errorf("%d attempts in a minute", plane.tries)
		}
		before := plane.tries
		changed <- struct{}{}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if plane.tries != before+1 {
			t.Error("a new account has to wait")
		}
		cancel()
		<-ended
	})
}

// lacking refuses all of one kind of steps.
type lacking struct {
	*simulate.Plane
	refuses func(network.Object) bool
}

func (p *lacking) Apply(ctx context.Context, steps []network.Step) error {
	rest := slices.DeleteFunc(slices.Clone(steps), func(s network.Step) bool { return p.refuses(s.Object) })
	err := p.Plane.Apply(ctx, rest)
	if len(rest) < len(steps) {
		err = errors.Join(err, errors.New("invalid argument"))
	}
	return err
}

// TestRun_TellsWhichNetworksItCarries has a kernel refuse a chain, which keeps no network from
// being carried, and one network's tunnel, which does.
func TestRun_TellsWhichNetworksItCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &network.Wanted{Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789}
		for i, id := range []string{"db", "web"} {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(1 + i), 0}), 24)
			w.Networks = append(w.Networks, network.Network{
				ID: id, VNI: uint32(4097 + i), MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}},
				Services: []network.Service{{VIP: prefix.Addr().Next().Next()}},
			})
		}
		var carried []string
		plane := &lacking{Plane: simulate.New(), refuses: func(o network.Object) bool {
			switch o := o.(type) {
			case network.Chain:
				return true
			case network.Element:
				return o.Value != ""
			case network.Tunnel:
				return o.VNI == 4098
			case network.Neighbour, network.BridgeEntry, network.Forward:
				return true
			}
			return false
		}}
		// A bridge that another network had before is not this one's.
		other := network.Bridge{Name: "skb1001", Alias: "skep/c/gone", MTU: 1450}
		if err := plane.Plane.Apply(t.Context(), []network.Step{{Do: network.Add, Object: other}}); err != nil {
			t.Fatal(err)
		}
		changed, complete := make(chan struct{}, 1), false
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- network.Run(ctx, network.Config{
				Plane: plane, Wanted: func() (*network.Wanted, bool) { return w, complete }, Changed: changed,
				Carried: func(ids []string) { carried = ids }, Log: slog.New(slog.DiscardHandler),
			})
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(carried) > 0 {
			t.Errorf("it carries %q on another's bridge", carried)
		}
		complete = true
		changed <- struct{}{}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !slices.Equal(carried, []string{"db"}) {
			t.Errorf("it carries %q", carried)
		}
		cancel()
		<-ended
	})
}

// TestClear_LeavesNothing removes all that there is of a cluster.
func TestClear_LeavesNothing(t *testing.T) {
	prefix := netip.MustParsePrefix("10.0.1.0/24")
	w := &network.Wanted{Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789, Networks: []network.Network{{
		ID: "web", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}},
		Services: []network.Service{{VIP: prefix.Addr().Next().Next()}},
	}}}
	plane := simulate.New()
	if err := plane.Apply(t.Context(), network.Plan(network.Desired(w, network.Existing{}), nil, true)); err != nil {
		t.Fatal(err)
	}
	if err := network.Clear(t.Context(), plane, "c"); err != nil {
		t.Fatal(err)
	}
	if existing, _ := plane.Dump(t.Context(), "c"); len(existing.Objects) > 0 {
		t.Errorf("there is still %v", lines(existing.Objects))
	}
}

// counting counts how often it is looked at.
type counting struct {
	*simulate.Plane
	looks int
}

func (p *counting) Dump(ctx context.Context, clusterID string) (network.Existing, error) {
	p.looks++
	return p.Plane.Dump(ctx, clusterID)
}

// Watch tells nothing, as of the caller's own changes.
func (p *counting) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestRun_FollowsWithoutLooking has endpoints, services and ports come, go and change: after each change there
// is what is desired, and nobody looked.
func TestRun_FollowsWithoutLooking(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := networktest.Wanted(rt)
		part := func() *network.Wanted {
			w := *all
			some := func() bool { return rapid.IntRange(0, 2).Draw(rt, "keep") > 0 }
			backends := func(list []netip.Addr) []netip.Addr {
				return slices.DeleteFunc(slices.Clone(list), func(netip.Addr) bool { return !some() })
			}
			w.Networks, w.Ports = slices.Clone(w.Networks), nil
			for i := range w.Networks {
				n := &w.Networks[i]
				n.Endpoints = slices.DeleteFunc(slices.Clone(n.Endpoints), func(network.Endpoint) bool { return !some() })
				for k := range n.Endpoints {
					if some() {
						n.Endpoints[k].Node = uint16(rapid.IntRange(1, 4).Draw(rt, "at"))
					}
				}
				n.Services = slices.DeleteFunc(slices.Clone(n.Services), func(network.Service) bool { return !some() })
				for k := range n.Services {
					n.Services[k].Backends, n.Services[k].Affinity = backends(n.Services[k].Backends), some()
				}
			}
			for _, p := range all.Ports {
				if p.Backends = backends(p.Backends); some() {
					w.Ports = append(w.Ports, p)
				}
			}
			return &w
		}
		steps := []*network.Wanted{part(), part(), part(), part()}
		synctest.Test(t, func(t *testing.T) {
			known, changed, plane := steps[0], make(chan struct{}, 1), &counting{Plane: simulate.New()}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- network.Run(ctx, network.Config{Plane: plane, Wanted: func() (*network.Wanted, bool) { return known, true }, Changed: changed, Log: slog.New(slog.DiscardHandler)})
			}()
			synctest.Wait()
			looks := plane.looks
			for i, w := range steps {
				known = w
				changed <- struct{}{}
				synctest.Wait()
				existing, _ := plane.Plane.Dump(ctx, "c")
				if got, want := lines(existing.Objects), lines(network.Desired(w, existing)); !slices.Equal(got, want) {
					t.Errorf("after change %d there is\n%v\nwant\n%v", i, got, want)
				}
			}
			if plane.looks != looks {
				t.Errorf("it looked %d times", plane.looks-looks)
			}
			// What others do is found by the minute, however often the account changes.
			_ = plane.Apply(ctx, []network.Step{{Do: network.Remove, Object: network.Bridge{Name: "skb1001"}}})
			for i := range 70 {
				known = steps[i%len(steps)]
				changed <- struct{}{}
				time.Sleep(time.Second)
			}
			synctest.Wait()
			existing, _ := plane.Plane.Dump(ctx, "c")
			if got, want := lines(existing.Objects), lines(network.Desired(known, existing)); !slices.Equal(got, want) {
				t.Errorf("after a minute there is\n%v\nwant\n%v", got, want)
			}
			cancel()
			<-ended
		})
	})
}
