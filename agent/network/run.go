package network

import (
	"context"
	"fmt"
	"log/slog"
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
	Log     *slog.Logger
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
	for pause := tryFirst; ; {
		wait, news := lookAgain, changed
		if w, complete := cfg.Wanted(); w != nil {
			err := settle(ctx, cfg.Plane, w, complete)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				// What was tried is among the news: it would have it tried at once, for ever.
				news = nil
				wait, pause = pause, min(2*pause, tryLast)
				tell(err.Error())
			} else {
				pause = tryFirst
				tell("")
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cfg.Changed:
		case <-news:
			cluster.Sleep(ctx, burst)
		case <-time.After(wait):
		}
	}
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

// settle plans and applies until nothing is left to do.
func settle(ctx context.Context, plane Plane, w *Wanted, complete bool) error {
	for round := 0; ; round++ {
		existing, err := plane.Dump(ctx, w.Cluster)
		if err != nil {
			return fmt.Errorf("list the kernel's networks: %w", err)
		}
		steps := Plan(Desired(w, existing.Ports), existing.Objects, complete)
		if len(steps) == 0 {
			return nil
		}
		if round == settling {
			return fmt.Errorf("change the kernel's networks: %d steps are left after %d rounds, such as: %s", len(steps), round, steps[0])
		}
		if err := plane.Apply(ctx, steps); err != nil {
			return fmt.Errorf("change the kernel's networks: %w", err)
		}
	}
}
