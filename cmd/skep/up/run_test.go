package up

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// Digests of two binaries, which simulated machines have for versions, too.
const (
	v1 = "v1aaaaaaaaaaaaaaaaaaaa"
	v2 = "v2bbbbbbbbbbbbbbbbbbbb"
)

// aims is what a test wants of machines.
type aims struct {
	list   List
	digest string
	remove []string
	down   bool
}

// attempt is one run of the command, by a new process.
func (a aims) attempt(ctx context.Context, s *simulated) error {
	u := &Up{
		Runner: s, Binaries: map[string]Binary{"amd64": {a.digest, func() ([]byte, error) { return []byte("binary"), nil }}},
		Options: Options{Version: a.digest[:2], Digests: map[string]string{"amd64": a.digest}, Remove: a.remove},
		Say:     func(string, string) {}, Nonce: func() string { return "0123456789abcdef0123" }, Now: func() time.Time { return s.now },
	}
	hosts := slices.Concat(a.list.Hosts(), a.remove)
	plan := func(w World) Todo {
		if a.down {
			return PlanDown(a.list, w)
		}
		return Plan(a.list, w, u.Options)
	}
	if err := u.Connect(ctx, hosts); err != nil {
		return err
	}
	world, err := u.Look(ctx, hosts)
	if err != nil {
		return err
	}
	if !a.down {
		if err := u.TryPorts(ctx, a.list, world); err != nil {
			return err
		}
	}
	_, _, err = u.Carry(ctx, hosts, world, plan)
	return errors.Join(err, u.Unstage(ctx))
}

func list(t *testing.T, text string) List {
	t.Helper()
	l, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const fourMachines = `machines:
- {host: a}
- {host: b}
- {host: c, availability: drain}
- {host: d, role: worker, labels: {zone: x}}
`

// reach has machines as wanted, without anything going wrong.
func reach(t *testing.T, s *simulated, a aims) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if err := a.attempt(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		orders := len(s.history)
		if err := a.attempt(t.Context(), s); err != nil {
			t.Fatalf("again: %v", err)
		}
		if changed := slices.DeleteFunc(slices.Clone(s.history[orders:]), func(o string) bool { return strings.Contains(o, "stage") }); len(changed) > 0 {
			t.Errorf("run again, it changed something: %q", changed)
		}
		if len(s.wrong) > 0 {
			t.Error(s.wrong)
		}
	})
}

// TestCarry_KilledAnywhereGoesOn has whoever orders killed before and after each order, and run again.
func TestCarry_KilledAnywhereGoesOn(t *testing.T) {
	four := list(t, fourMachines)
	three := List{Machines: four.Machines[:3]}
	more := List{Machines: append(slices.Clone(four.Machines), Machine{Host: "e", Role: swarm.NodeRoleManager}, Machine{Host: "f", Role: swarm.NodeRoleWorker})}
	without := List{Machines: slices.Concat(four.Machines[:1], four.Machines[2:])}
	for _, c := range []struct {
		name       string
		from, to   aims
		fromNought bool
	}{
		{"first", aims{}, aims{list: four, digest: v1}, true},
		{"more", aims{list: four, digest: v1}, aims{list: more, digest: v1}, false},
		{"labels", aims{list: list(t, "machines: [{host: a, labels: {old: x, zone: a}}, {host: b, labels: {other: x}}]"), digest: v1},
			aims{list: list(t, "machines: [{host: a, labels: {old: null, zone: b}}, {host: b, labels: {old: null}}, {host: c, role: worker, labels: {old: null, zone: c}}]"), digest: v1}, false},
		{"upgrade", aims{list: four, digest: v1}, aims{list: four, digest: v2}, false},
		{"remove a worker", aims{list: four, digest: v1}, aims{list: three, digest: v1, remove: []string{"d"}}, false},
		{"remove a manager", aims{list: more, digest: v1}, aims{list: without, digest: v1, remove: []string{"b"}}, false},
		{"roles", aims{list: four, digest: v1}, aims{list: list(t, "machines: [{host: a}, {host: b, role: worker}, {host: c}, {host: d}]"), digest: v1}, false},
		{"down", aims{list: four, digest: v1}, aims{list: four, digest: v1, down: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := func() *simulated {
				s := newSimulated("a", "b", "c", "d", "e", "f")
				if !c.fromNought {
					synctest.Test(t, func(t *testing.T) {
						if err := c.from.attempt(t.Context(), s); err != nil {
							t.Fatal(err)
						}
					})
					s.orders, s.history = 0, nil
				}
				return s
			}
			whole := begin()
			if c.name == "remove a manager" { // e and f stay as strangers.
				c.to.list = List{Machines: append(slices.Clone(without.Machines), more.Machines[4:]...)}
			}
			synctest.Test(t, func(t *testing.T) {
				if err := c.to.attempt(t.Context(), whole); err != nil {
					t.Fatal(err)
				}
			})
			want, orders := whole.String(), whole.orders
			reach(t, begin(), c.to)
			t.Logf("%d orders", orders)
			if orders < 10 {
				t.Fatalf("only %d orders", orders)
			}
			step := 1
			if testing.Short() {
				step = 5
			}
			for at := 1; at <= orders; at += step {
				for _, after := range []bool{false, true} {
					s := begin()
					s.killAt, s.after = at, after
					synctest.Test(t, func(t *testing.T) {
						if err := c.to.attempt(t.Context(), s); err == nil && s.killed {
							t.Errorf("killed at order %d, and no error", at)
						}
						s.killed, s.killAt = false, 0
						if err := c.to.attempt(t.Context(), s); err != nil {
							t.Errorf("killed at order %d (after it: %v), and run again: %v", at, after, err)
						}
					})
					if got := s.String(); got != want || len(s.wrong) > 0 {
						t.Errorf("killed at order %d (after it: %v): wrong: %v\nit ends with\n%s\nand should with\n%s\n%s", at, after, s.wrong, got, want, strings.Join(s.history, "\n"))
					}
				}
			}
		})
	}
}

// meeting is a Runner whose machines that ask nothing answer when all of them have been called.
type meeting struct {
	Runner
	quiet sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	asking int
	asked  []string
}

func (m *meeting) Connect(ctx context.Context, host string, mayAsk bool) (Hello, error) {
	switch {
	case mayAsk:
		m.mu.Lock()
		m.asking++
		if m.asked = append(m.asked, host); m.asking > 1 {
			m.asked = append(m.asked, "at once")
		}
		m.mu.Unlock()
		time.Sleep(time.Second)
		m.mu.Lock()
		m.asking--
		m.mu.Unlock()
		if host == "denied" {
			return Hello{}, errors.New("permission denied")
		}
	case strings.HasPrefix(host, "m"):
		m.quiet.Done()
		m.quiet.Wait()
	case host == "away":
		return Hello{}, errors.New("no route to host")
	default:
		return Hello{}, ErrAsks
	}
	return Hello{Arch: "amd64"}, ctx.Err()
}

// TestConnect_AtOnceUnlessItAsks has machines connected that wait for each other.
func TestConnect_AtOnceUnlessItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &meeting{}
		r.quiet.Add(3)
		u := &Up{Runner: r, Say: func(string, string) {}}
		if err := u.Connect(t.Context(), []string{"m1", "x", "away", "m2", "denied", "y", "m3"}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.asked, " "); got != "x denied y" {
			t.Errorf("asked %s", got)
		}
		if len(u.hello) != 5 || len(u.failed) != 2 || u.failed["denied"] == nil || u.failed["away"] == nil {
			t.Errorf("%v, %v", u.hello, u.failed)
		}
	})
}

// TestCarry_UpgradesInOrder looks at who is restarted when.
func TestCarry_UpgradesInOrder(t *testing.T) {
	s := newSimulated("a", "b", "c", "d")
	l := list(t, fourMachines)
	reach(t, s, aims{list: l, digest: v1})
	s.history, s.leader = nil, "b"
	reach(t, s, aims{list: l, digest: v2})
	var order []string
	for _, o := range s.history {
		if host, rest, _ := strings.Cut(o, ": "); strings.HasPrefix(rest, "install") {
			order = append(order, host)
		}
	}
	if got := strings.Join(order, " "); got != "a c b d" {
		t.Errorf("upgraded %s; b led, d is a worker", got)
	}
}

// TestCarry_StopsAtTheFirstFailureOfAnUpgrade leaves all others as they are, and says the way back.
func TestCarry_StopsAtTheFirstFailureOfAnUpgrade(t *testing.T) {
	s := newSimulated("a", "b", "c", "d")
	l := list(t, fourMachines)
	reach(t, s, aims{list: l, digest: v1})
	s.machines["b"].broken = v2
	synctest.Test(t, func(t *testing.T) {
		err := aims{list: l, digest: v2}.attempt(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), "the daemon ended") || !strings.Contains(err.Error(), "on b: mv /usr/local/bin/skep.before /usr/local/bin/skep") {
			t.Errorf("%v, want what went wrong, and the way back", err)
		}
	})
	for host, want := range map[string]string{"a": v1, "b": "", "c": v1, "d": v1} {
		if s.leader != "a" {
			t.Fatalf("leader %s", s.leader)
		}
		if got := s.machines[host].running; got != want {
			t.Errorf("%s runs %q, want %q", host, got, want)
		}
	}
}

// TestCarry_GivesUpWaiting says for what.
func TestCarry_GivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulated("a", "b")
		now := time.Now
		l := list(t, "machines: [{host: a}, {host: b}]")
		u := &Up{Runner: s, Say: func(string, string) {}, Now: now}
		u.Binaries = map[string]Binary{"amd64": {v1, func() ([]byte, error) { return nil, nil }}}
		u.Options = Options{Version: "v1aaaaaaaaaaaaaaaaaaaa", Digests: map[string]string{"amd64": v1}}
		if err := u.Connect(t.Context(), l.Hosts()); err != nil {
			t.Fatal(err)
		}
		s.machines["b"].change = func(f *Facts) {
			if f.Node.State == swarm.LocalNodeStateActive {
				f.Node = Node{State: swarm.LocalNodeStatePending, Error: "the manager doesn't answer"}
			}
		}
		s.now = now()
		world, err := u.Look(t.Context(), l.Hosts())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = u.Carry(t.Context(), l.Hosts(), world, func(w World) Todo {
			for _, s := range w {
				s.Ahead, s.Unsure = 0, 0
			}
			return Plan(l, w, u.Options)
		})
		if err == nil || !strings.Contains(err.Error(), "b: wait for the node to take up its part in the cluster: the manager doesn't answer: that has taken 2m0s") {
			t.Error(err)
		}
	})
}

// TestUp_TokensAreInNoOrder looks at everything that was ordered.
func TestUp_TokensAreInNoOrder(t *testing.T) {
	s := newSimulated("a", "b")
	var mu sync.Mutex
	var all []string
	r := recording{s, func(o Order) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprint(o.Verb, o.Args))
		if slices.Contains(o.Args, "join-token") && !o.Secret {
			t.Error("the log would have the token")
		}
	}}
	synctest.Test(t, func(t *testing.T) {
		u := &Up{Runner: r, Say: func(string, string) {}, Now: func() time.Time { return s.now }}
		l := list(t, "machines: [{host: a}, {host: b}]")
		u.Binaries = map[string]Binary{"amd64": {v1, func() ([]byte, error) { return nil, nil }}}
		u.Options = Options{Version: "v1aaaaaaaaaaaaaaaaaaaa", Digests: map[string]string{"amd64": v1}}
		_ = u.Connect(t.Context(), l.Hosts())
		world, _ := u.Look(t.Context(), l.Hosts())
		if _, _, err := u.Carry(t.Context(), l.Hosts(), world, func(w World) Todo { return Plan(l, w, u.Options) }); err != nil {
			t.Fatal(err)
		}
	})
	if text := strings.Join(all, "\n"); strings.Contains(text, simulatedToken) || !strings.Contains(text, "join-token") {
		t.Error(text)
	}
}

type recording struct {
	*simulated
	note func(Order)
}

func (r recording) Run(ctx context.Context, host string, o Order) error {
	r.note(o)
	return r.simulated.Run(ctx, host, o)
}
