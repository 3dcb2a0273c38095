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

	"skep/agent/network"
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
		known, changed, plane := (*network.Wanted)(nil), make(chan struct{}, 1), simulate.New()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- network.Run(ctx, network.Config{
				Plane: plane, Wanted: func() (*network.Wanted, bool) { return known, true }, Changed: changed,
				Problem: func(reason string) { problems = append(problems, reason) }, Log: slog.New(slog.DiscardHandler),
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
			if got, want := lines(existing.Objects), lines(network.Desired(w, existing.Ports)); !slices.Equal(got, want) {
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
		plane.Connect("skb1001", "veth1")
		right(20 * time.Millisecond)
		_ = plane.Apply(ctx, []network.Step{{Do: network.Remove, Object: network.Bridge{Name: "skb1001"}}})
		plane.Connect("skb1001", "veth1")
		right(20 * time.Millisecond)

		plane.Fail(errors.New("no buffer space available"))
		changed <- struct{}{}
		time.Sleep(time.Minute)
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
