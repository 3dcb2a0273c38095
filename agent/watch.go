package agent

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	// describeTimeout bounds one look at the machine.
	describeTimeout = 10 * time.Second
	// describeFirst is how long the first session may be held up for it.
	describeFirst = 3 * time.Second
	// awayAfter is how long the driver's stream may be lost before running tasks, and
	// the node, say so.
	awayAfter = 5 * time.Second
	// describeAttempts is after how many failed attempts to describe the machine in a row the
	// engine counts as away: one that hangs may keep its stream open.
	describeAttempts = 2
)

// watch follows what happens to containers, until ctx ends. When the stream is
// lost it is opened again, and then everything is looked at.
func (a *Agent) watch(ctx context.Context) {
	delay := reconnectFirst
	failing := cluster.Complaint{Log: a.log, Patience: engineSilence, Now: a.cfg.Now}
	var away *time.Timer
	defer func() {
		if away != nil {
			away.Stop()
		}
	}()
	for ctx.Err() == nil {
		err := a.cfg.Driver.Watch(ctx, a.cfg.NodeID, func(taskID string) {
			if taskID != "" {
				a.post(func(s *taskSet) { s.schedule(taskID) })
				return
			}
			delay = reconnectFirst
			failing.About(nil, "", "the engine answers again")
			if away != nil {
				away.Stop()
				away = nil
			}
			a.post(func(s *taskSet) {
				s.watching, s.eventsLost = true, false
				s.reportEngine()
			})
			a.resync(ctx)
		})
		if ctx.Err() != nil {
			return
		}
		failing.About(err, "the engine doesn't answer", "")
		if away == nil {
			a.post(func(s *taskSet) { s.watching = false })
			away = time.AfterFunc(awayAfter, func() {
				a.post(func(s *taskSet) {
					s.eventsLost = !s.watching
					s.reportEngine()
					s.scheduleAll()
				})
			})
		}
		cluster.Sleep(ctx, a.jitter(delay))
		delay = min(2*delay, reconnectLast)
	}
}

// engineSilence is how long the engine may be away before it is said: it may be restarted.
const engineSilence = 2 * time.Second

// resync looks at all tasks and at all containers.
func (a *Agent) resync(ctx context.Context) {
	a.post((*taskSet).scheduleAll)
	containers, err := a.driver.List(ctx, a.cfg.NodeID)
	if err != nil {
		// The stream is about to end too, which brings us here again.
		a.log.Debug("list containers", "error", err)
		return
	}
	a.post(func(s *taskSet) { s.found(containers) })
	a.post(func(s *taskSet) { s.networks.lookAgain = true }) // Networks may be missing, too.
	cluster.Notify(a.keep)
}

// engineAway tells whether the engine counts as away.
func (s *taskSet) engineAway() bool { return s.eventsLost || s.describeFailed }

// reportEngine passes on whether the engine is away.
func (s *taskSet) reportEngine() {
	if s.outbox != nil {
		s.outbox.setEngine(s.engineAway())
	}
}

// scheduleAll has every task looked at that hasn't ended.
func (s *taskSet) scheduleAll() {
	for taskID := range s.tasks {
		s.schedule(taskID)
	}
}

// describeFirst looks at the machine before the first session.
func (a *Agent) describeFirst(ctx context.Context) {
	looking, cancel := context.WithTimeout(ctx, describeFirst)
	defer cancel()
	a.describeOnce(looking)
	a.call(func(s *taskSet) {
		if s.described {
			return
		}
		// There is an engine that never answered: what Go knows must do for now.
		s.description = swarm.NodeDescription{
			Hostname: a.cfg.Hostname,
			Platform: swarm.Platform{Architecture: architecture(runtime.GOARCH), OS: runtime.GOOS},
		}
	})
}

// architecture gives the engine's word for Go's.
func architecture(goarch string) string {
	switch goarch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return goarch
}

// clashLook is how often the machine is looked at while a network waits for another one to go from it.
const clashLook = time.Second

// describe looks at the machine every so often, and more often while the engine
// doesn't answer, or a network waits for another one to go.
func (a *Agent) describe(ctx context.Context) {
	failed := 0
	for ctx.Err() == nil {
		looking, cancel := context.WithTimeout(ctx, describeTimeout)
		delay := a.cfg.DescribeEvery
		if a.describeOnce(looking) {
			failed = 0
		} else {
			failed++
			delay = min(delay, reconnectLast)
		}
		cancel()
		failing := failed >= describeAttempts && ctx.Err() == nil
		a.call(func(s *taskSet) {
			s.describeFailed = failing
			s.reportEngine()
			if s.networks.clashPasses(a.cfg.NodeID) {
				delay = min(delay, clashLook)
			}
		})
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-a.look:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// describeOnce looks at the machine and passes on what changed.
func (a *Agent) describeOnce(ctx context.Context) bool {
	description, err := a.cfg.Driver.Describe(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			a.log.Debug("describe the node", "error", err)
		}
		return false
	}
	if a.cfg.Hostname != "" {
		description.Hostname = a.cfg.Hostname
	}
	description.Engine.Plugins = a.carries(description.Engine.Plugins)
	if a.cfg.TLSInfo != nil {
		description.TLSInfo = a.cfg.TLSInfo()
	}
	uses, usesErr := a.addressUses(ctx)
	if usesErr != nil {
		a.log.Debug("look for addresses in use", "error", usesErr)
	}
	engine := ""
	if named, is := a.cfg.Driver.(NamedEngine); is {
		engine = named.EngineID()
	}
	a.call(func(s *taskSet) {
		if engine != "" {
			s.engine = engine
		}
		uses := s.networks.foreign(uses)
		used := usesErr == nil && !slices.Equal(uses, s.networks.uses)
		if used {
			s.networks.uses = uses
			s.networksNews()
		}
		if s.described && !used && reflect.DeepEqual(description, s.description) {
			return
		}
		s.described, s.description = true, description
		if s.outbox != nil {
			s.outbox.describe(description, s.networks.keys, s.networks.uses)
		}
		a.touch()
	})
	return true
}

// addressUses are the ranges of addresses that the machine has in use, where that matters: none on
// a node that carries no networks.
func (a *Agent) addressUses(ctx context.Context) (uses []cluster.AddressUse, err error) {
	if a.cfg.Plane == nil {
		return nil, nil
	}
	for _, one := range []any{a.cfg.Driver, a.cfg.Plane} {
		if user, is := one.(AddressUser); is {
			more, err := user.AddressUses(ctx)
			if err != nil {
				return nil, err
			}
			uses = append(uses, more...)
		}
	}
	return uses, nil
}

// isNotFound tells whether err says that something isn't there.
func isNotFound(err error) bool { return errors.Is(err, cluster.ErrNotFound) }
