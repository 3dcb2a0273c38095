package simulate_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/agent/network/networktest"
	"skep/agent/network/simulate"
)

// refusals are what kernels say.
var refusals = []syscall.Errno{syscall.EEXIST, syscall.ENOBUFS, syscall.EBUSY, syscall.EPERM, syscall.ENOSPC, syscall.EINVAL, syscall.EINTR}

// faulty is a plane whose kernel refuses steps, and listings, or carries them out and says that it didn't,
// while others change what is there.
type faulty struct {
	*simulate.Plane
	mu     sync.Mutex // guards the fields below
	random *rand.Rand
	// faults is how many of ten tries have a fault.
	faults int
	tries  int
}

func (p *faulty) set(faults int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = faults
}

// roll decides what comes of a try: it is refused, or said to be, by an error.
func (p *faulty) roll() (refused bool, said error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	errno := refusals[p.random.IntN(len(refusals))]
	switch n := p.random.IntN(10); {
	case n >= p.faults:
		return false, nil
	case n == 0 && p.faults < 10:
		return false, syscall.ENOBUFS
	default:
		return true, errno
	}
}

func (p *faulty) Dump(ctx context.Context, clusterID string) (network.Existing, error) {
	p.mu.Lock()
	rolls := p.faults < 10 && p.random.IntN(3) == 0 // A listing isn't news, and so ends what a tight loop would be.
	p.mu.Unlock()
	if rolls {
		if refused, said := p.roll(); refused {
			return network.Existing{}, said
		}
	}
	return p.Plane.Dump(ctx, clusterID)
}

// Apply carries out what nftables has in one transaction, as a kernel does, and the rest step by step.
func (p *faulty) Apply(ctx context.Context, steps []network.Step) error {
	p.mu.Lock()
	p.tries++
	p.mu.Unlock()
	_ = p.Plane.Apply(ctx, nil) // What is tried is news.
	var failed []string
	for len(steps) > 0 {
		n := 1
		for n < len(steps) && inTable(steps[0].Object) && inTable(steps[n].Object) {
			n++
		}
		refused, said := p.roll()
		if !refused {
			if err := p.Plane.Apply(ctx, steps[:n]); err != nil && said == nil {
				said = err
			}
		}
		if said != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", steps[0], said))
		}
		steps = steps[n:]
	}
	if len(failed) > 0 {
		return fmt.Errorf("%s", strings.Join(failed, "\n"))
	}
	return nil
}

func inTable(o network.Object) bool {
	switch o.(type) {
	case network.Table, network.Chain, network.Element:
		return true
	}
	return false
}

// TestRun_EndsAsWantedOnceFaultsStop has steps fail, come true though they are said to have failed, and
// listings fail, while accounts change and others remove objects. Run never tries without a pause, says
// what failed and why, in a few lines, and ends with what is desired.
func TestRun_EndsAsWantedOnceFaultsStop(t *testing.T) {
	wanted := rapid.Custom(networktest.Wanted)
	for seed := range 100 {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			plane := &faulty{Plane: simulate.New(), random: random}
			var mu sync.Mutex // guards w and problems
			w, problems := wanted.Example(random.Int()), []string{""}
			changed := make(chan struct{}, 1)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = network.Run(ctx, network.Config{
					Plane: plane, Changed: changed, Log: slog.New(slog.DiscardHandler),
					Wanted:  func() (*network.Wanted, bool) { mu.Lock(); defer mu.Unlock(); return w, true },
					Problem: func(reason string) { mu.Lock(); defer mu.Unlock(); problems = append(problems, reason) },
				})
			}()
			defer func() { cancel(); <-ended }()
			accounts := 1 + random.IntN(4)
			for range accounts {
				next := wanted.Example(random.Int())
				mu.Lock()
				w = next
				mu.Unlock()
				plane.set(10)
				changed <- struct{}{}
				time.Sleep(time.Minute)
				plane.set(4)
				time.Sleep(30 * time.Second)
				existing, _ := plane.Plane.Dump(ctx, "c")
				if n := len(existing.Objects); n > 0 {
					o := existing.Objects[random.IntN(n)]
					_ = plane.Plane.Apply(ctx, []network.Step{{Do: network.Remove, Object: o}})
				}
				time.Sleep(30 * time.Second)
			}
			plane.set(0)
			time.Sleep(time.Minute + 10*time.Second) // What others removed unheard is found by the minute.
			synctest.Wait()
			existing, err := plane.Plane.Dump(ctx, "c")
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if got, want := lines(existing.Objects), lines(network.Desired(w, existing)); !slices.Equal(got, want) {
				t.Fatalf("seed %d: there is\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if last := problems[len(problems)-1]; last != "" {
				t.Fatalf("seed %d: it still says: %s", seed, last)
			}
			for _, reason := range problems {
				errnoSaid := slices.ContainsFunc(refusals, func(e syscall.Errno) bool { return strings.Contains(reason, e.Error()) })
				if reason != "" && !errnoSaid && !strings.Contains(reason, "steps are left") || strings.Count(reason, "\n") > 5 {
					t.Fatalf("seed %d: it said: %s", seed, reason)
				}
			}
			// A minute of nothing but faults has some 18, one of some has few in each of its rounds.
			if most := 100 * accounts; plane.tries > most {
				t.Fatalf("seed %d: %d tries in %d minutes", seed, plane.tries, 2*accounts)
			}
		})
	}
}
