package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"skep/cluster"
)

const (
	// lookAgain is how often the objects are looked at though nothing told of a change: engines,
	// firewalls and network managers change what isn't theirs.
	lookAgain = time.Minute
	// tryFirst and tryLast bound the pause before steps that failed are planned anew.
	tryFirst, tryLast = 50 * time.Millisecond, 5 * time.Second
	// settling is how often in a row there may be steps: what one round removed with a link the
	// next one puts back.
	settling = 3
	// burst is how long what follows the first of several changes by others is waited for.
	burst = 10 * time.Millisecond
	// large is how many objects leave so much memory behind, when they have been looked at, that it is given back
	// at once: with 10,000 endpoints it is up to 40 MB, and the next look is in a minute.
	large = 10_000
)

// Config is what Run needs.
type Config struct {
	// Plane has the objects.
	Plane Plane
	// Wanted is what the node knows now, nil while it knows nothing, and whether that is all.
	Wanted func() (w *Wanted, complete bool)
	// Changed has a signal when Wanted may say something else.
	Changed <-chan struct{}
	// Problem is told what keeps the objects from being as they should, and "" when they are.
	// It is told once as long as it is the same. Optional.
	Problem func(reason string)
	// Carried is told, after each round, the IDs of the networks of the last Wanted whose links
	// are there with their addresses, in order. What else is missing doesn't keep a network from
	// being among them. Optional.
	Carried func(networkIDs []string)
	// Keys is told, after each round, the public keys of the node's WireGuard devices. Optional.
	Keys func(cluster.WireKeys)
	Log  *slog.Logger
}

// Run keeps a Plane's objects as they should be until ctx ends. It leaves them as they are
// then: what flows goes on while nobody runs this.
func Run(ctx context.Context, cfg Config) error {
	changed, ended := make(chan struct{}, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		<-ended
	}()
	go func() {
		defer close(ended)
		watch(ctx, cfg, changed)
	}()
	said := ""
	tell := func(reason string) {
		if reason == said {
			return
		}
		if said = reason; reason != "" {
			cfg.Log.Warn("networks aren't as they should be; trying again", "err", reason)
		} else {
			cfg.Log.Info("networks are as they should be again")
		}
		if cfg.Problem != nil {
			cfg.Problem(reason)
		}
	}
	// settled is the account that the objects are as they should be for, as far as nobody told otherwise;
	// nil when that isn't known.
	var settled *Wanted
	wait, news := (<-chan time.Time)(nil), changed
	for pause := tryFirst; ; {
		if w, complete := cfg.Wanted(); w != nil {
			w = w.sound()
			if settled != nil && complete && follow(ctx, cfg.Plane, settled, w) {
				settled = w
			} else {
				existing, err := settle(ctx, cfg.Plane, w, complete)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if cfg.Carried != nil {
					cfg.Carried(carried(w, existing))
				}
				if cfg.Keys != nil {
					cfg.Keys(wireKeys(w, existing))
				}
				if len(existing.Objects) >= large {
					go debug.FreeOSMemory()
				}
				if settled, news = nil, changed; err != nil {
					// What was tried is among the news: it would have it tried at once, for ever.
					wait, news = time.After(pause), nil
					pause = min(2*pause, tryLast)
					tell(brief(err))
				} else {
					wait, pause = time.After(lookAgain), tryFirst
					tell("")
				}
				if err == nil && complete {
					settled = w
				}
			}
		} else {
			wait = time.After(lookAgain)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cfg.Changed:
		case <-news:
			cluster.Sleep(ctx, burst)
			settled = nil
		case <-wait:
			settled = nil
		}
	}
}

// brief is what an error says of the first steps that failed: a kernel that refuses one may refuse thousands.
func brief(err error) string {
	const most = 4
	lines := strings.Split(err.Error(), "\n")
	if len(lines) > most {
		lines = append(lines[:most:most], fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n")
}

// watch signals changed whenever somebody may have changed objects, until ctx ends.
func watch(ctx context.Context, cfg Config, changed chan<- struct{}) {
	for {
		err := cfg.Plane.Watch(ctx, func() { cluster.Notify(changed) })
		if ctx.Err() != nil {
			return
		}
		cfg.Log.Warn("watch the kernel's networks; changes by others are found by the minute", "err", err)
		cluster.Sleep(ctx, lookAgain)
	}
}

// Clear removes all of a cluster's objects: the node has left it.
func Clear(ctx context.Context, plane Plane, clusterID string) error {
	_, err := settle(ctx, plane, &Wanted{Cluster: clusterID}, true)
	return err
}

// settle plans and applies until nothing is left to do, and returns what is there then.
func settle(ctx context.Context, plane Plane, w *Wanted, complete bool) (existing Existing, err error) {
	for round := 0; ; round++ {
		existing, err := plane.Dump(ctx, w.Cluster)
		if err != nil {
			return Existing{}, fmt.Errorf("list the kernel's networks: %w", err)
		}
		steps := Plan(Desired(w, existing), existing.Objects, complete)
		if len(steps) == 0 {
			return existing, nil
		}
		if round == settling {
			return existing, fmt.Errorf("change the kernel's networks: %d steps are left after %d rounds, such as: %s", len(steps), round, steps[0])
		}
		if err := plane.Apply(ctx, steps); err != nil {
			err = fmt.Errorf("change the kernel's networks: %w", err)
			existing, again := plane.Dump(ctx, w.Cluster)
			return existing, errors.Join(err, again)
		}
	}
}

// carried lists the networks whose links are there with their addresses. Those whose links are
// of another form, which is yet to be replaced, are among them; but a bridge of another network
// that had the number before isn't this one's.
func carried(w *Wanted, existing Existing) (ids []string) {
	there, aliases := map[ObjectKey]bool{}, map[string]string{}
	for _, o := range existing.Objects {
		switch o.kind() {
		case kindBridge, kindTunnel, kindAddress, kindSecret: // There are thousands of others.
			there[KeyOf(o)] = true
		}
		if b, is := o.(Bridge); is {
			aliases[b.Name] = b.Alias
		}
	}
	w = w.sound()
	for _, n := range w.Networks {
		if aliases[n.Bridge()] != n.alias(w) {
			continue
		}
		var links []Object
		if w.carries() {
			links = append(links, Tunnel{Name: n.Tunnel()})
		}
		if n.Encrypted {
			links = append(links, n.secret(false)) // Containers come when nobody can forge what is for them.
		}
		for _, s := range n.Subnets {
			links = append(links, Address{Link: n.Bridge(), Prefix: netip.PrefixFrom(s.Gateway, s.Prefix.Bits())})
		}
		if !slices.ContainsFunc(links, func(o Object) bool { return !there[KeyOf(o)] }) {
			ids = append(ids, n.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
