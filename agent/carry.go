package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/network"
	"skep/cluster"
)

// drainTime is how long after the agent has heard that a task is to stop its container gets the
// stop signal: until then other nodes may send it something new. They hear of it by the same
// commit, so each that has a session has taken the task out of its plane by then; one that is
// slower sends to a program that stops.
const drainTime = time.Second

// drain has the stop of a task wait until nothing new can be sent to it.
func (s *taskSet) drain(t *taskState) {
	task := t.assignment.Task
	if t.status.State != cluster.StateRunning || task.Status.State.Terminal() || t.disowned || !s.led(t) {
		return
	}
	wait := drainTime
	if t.assignment.Revision.Fenced() {
		wait = min(wait, s.lease.Sub(s.agent.cfg.Now())) // Managers count on its end.
	}
	t.draining = true
	taskID := task.ID
	time.AfterFunc(wait, func() {
		s.agent.post(func(s *taskSet) {
			if t := s.tasks[taskID]; t != nil {
				t.draining = false
				s.schedule(taskID)
			}
		})
	})
}

// led tells whether a virtual IP or a published port may lead others to a task. A job has
// neither in use: it works, and doesn't answer.
func (s *taskSet) led(t *taskState) bool {
	if r := t.assignment.Revision; r == nil || r.Job {
		return false
	}
	for _, address := range t.assignment.Task.Addresses {
		a := byVNI(s.networks.accounts, address.VNI)
		if a == nil {
			continue
		}
		if service := a.service(t.assignment.Task.ServiceID); service != nil && (service.VirtualIP != 0 || len(service.Ports) > 0) {
			return true
		}
	}
	return false
}

// attachNetworks puts into an assignment what the container needs to know of its networks.
func (s *taskSet) attachNetworks(t *taskState, a *Assignment) {
	if over(a.Task) || t.status.State > cluster.StateRunning {
		return
	}
	a.Networks, a.Lack = s.attachments(t)
	a.Await = s.awaited(t)
	a.Reconnect = t.status.State >= cluster.StateReady && a.Lack == "" && !slices.Equal(t.attached, a.Task.Addresses)
}

// attached notes the places in networks that a container has.
func (s *taskSet) attached(taskID string, addresses []cluster.Address) {
	if t := s.tasks[taskID]; t != nil {
		t.attached = addresses
		s.agent.touch()
	}
}

// reconnect connects a container that is there to its networks, and says what keeps it from
// that.
func (a *Agent) reconnect(ctx context.Context, assignment Assignment) (problem string) {
	if !assignment.Reconnect {
		return ""
	}
	if err := a.cfg.Driver.Connect(ctx, assignment); err != nil {
		if ctx.Err() != nil || isNotFound(err) {
			return "" // The look at the container that follows says more.
		}
		return err.Error()
	}
	a.post(func(s *taskSet) { s.attached(assignment.Task.ID, assignment.Task.Addresses) })
	return ""
}

// networksChanged says that the plane, the names and the engine's networks may have to change.
func (a *Agent) networksChanged() {
	cluster.Notify(a.plan)
	cluster.Notify(a.name)
	cluster.Notify(a.keep)
}

// networksNews has all looked at that networks matter to.
func (s *taskSet) networksNews() {
	s.agent.networkWarning.Store(s.networks.warning(s.agent.cfg.SlowEncryption))
	s.agent.carriesNetworks.Store(s.networks.index(s.agent.cfg.NodeID) != 0)
	if n := &s.networks; n.complete && n.index(s.agent.cfg.NodeID) == 0 {
		// Another node carries the engine's networks, and may have it know some that this one never hears of.
		maps.DeleteFunc(n.accounts, func(_ string, a *account) bool { return a.Dropped })
		n.engineTold = false
	}
	if s.networks.clashPasses(s.agent.cfg.NodeID) {
		s.agent.Describe()
	}
	s.agent.networksChanged()
	for taskID, t := range s.tasks {
		waits := t.status.State < cluster.StateReady || !slices.Equal(t.attached, t.assignment.Task.Addresses)
		if len(t.assignment.Task.Addresses) > 0 && waits && t.status.State < cluster.StateComplete && !t.removing && !over(t.assignment.Task) {
			s.schedule(taskID)
		}
	}
}

// carry keeps the plane as managers want it, until ctx ends.
func (a *Agent) carry(ctx context.Context) {
	complete := false
	again := time.AfterFunc(retryReserve, func() { cluster.Notify(a.plan) })
	defer again.Stop()
	if reserver, is := a.cfg.Plane.(network.Reserver); is {
		defer reserver.Reserve(nil)
	}
	_ = network.Run(ctx, network.Config{
		Plane: a.cfg.Plane, Changed: a.plan, Log: a.log,
		Wanted: func() (*network.Wanted, bool) {
			var f *facts
			if !a.call(func(s *taskSet) { f = s.facts() }) {
				return nil, false
			}
			complete = f.Complete
			w := f.wanted()
			if complete {
				a.reserve(w, again)
			}
			return w, complete
		},
		Problem: func(reason string) {
			a.post(func(s *taskSet) {
				s.networks.problem = reason
				s.networksNews()
			})
		},
		Keys: func(keys cluster.WireKeys) {
			a.post(func(s *taskSet) { s.wireKeys(keys) })
		},
		Carried: func(ids []string) {
			if complete {
				a.post(func(s *taskSet) { s.carried(ids) })
			}
		},
	})
}

// retryReserve is after how long ports that others have are tried again: one may be of a task that stops.
const retryReserve = 5 * time.Second

// reserve keeps the published ports from programs of the machine. The timer has it called again.
func (a *Agent) reserve(w *network.Wanted, again *time.Timer) {
	reserver, is := a.cfg.Plane.(network.Reserver)
	if !is {
		return
	}
	var ports []network.Port
	if w != nil {
		ports = w.Ports
	}
	taken := reserver.Reserve(ports)
	if len(taken) > 0 {
		again.Reset(retryReserve)
	}
	a.post(func(s *taskSet) {
		if !slices.Equal(taken, s.networks.taken) {
			s.networks.taken = taken
			s.networksNews()
		}
	})
}

// takenPorts says which published ports others have; "" for none.
func (n *networkSet) takenPorts() string {
	const most = 8
	switch taken := n.taken; {
	case len(taken) == 0:
		return ""
	case len(taken) > most:
		return fmt.Sprintf("other programs have the published ports %s and %d more: what comes for them goes to the services", strings.Join(taken[:most], ", "), len(taken)-most)
	default:
		return fmt.Sprintf("other programs have the published ports %s: what comes for them goes to the services", strings.Join(taken, ", "))
	}
}

// wireKeys takes in the keys that encrypted networks are to be sent to this node under.
func (s *taskSet) wireKeys(keys cluster.WireKeys) {
	if keys == s.networks.keys {
		return
	}
	s.networks.keys = keys
	if s.outbox != nil {
		s.outbox.describe(s.description, keys, s.networks.uses)
	}
}

// carried takes in which networks the plane has. Only rounds that knew everything count.
func (s *taskSet) carried(ids []string) {
	n := &s.networks
	now := make(map[string]bool, len(ids))
	for _, id := range ids {
		now[id] = true
	}
	if n.looked && maps.Equal(now, n.carried) {
		return
	}
	n.carried, n.looked = now, true
	s.networksNews()
}

// engineNetworks are those that the engine should know: those that are carried, and those that it
// knows already. ok is false before that is known: others would be removed.
func (s *taskSet) engineNetworks() (list []*cluster.Network, ok bool) {
	n := &s.networks
	if !n.complete || !n.looked || n.index(s.agent.cfg.NodeID) == 0 {
		return nil, false
	}
	for id, a := range n.accounts {
		if a.Network != nil && (n.carried[id] || n.kept[id]) && (!a.Dropped || s.usesNetwork(a)) {
			list = append(list, a.Network)
		}
	}
	for _, t := range s.tasks {
		if t.assignment.Revision != nil && !t.status.State.Terminal() {
			list = append(list, t.assignment.Revision.LocalNetworks...)
		}
	}
	slices.SortFunc(list, func(a, b *cluster.Network) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(list, func(a, b *cluster.Network) bool { return a.ID == b.ID }), true
}

// engineKeeps takes in that the engine knows these networks, and others only that containers are on.
// Now the bridges of those that aren't needed may go, but for these.
func (s *taskSet) engineKeeps(list []*cluster.Network, used []string) {
	n := &s.networks
	kept := make(map[string]bool, len(list))
	for _, network := range list {
		kept[network.ID] = true
	}
	dropped, told := false, true
	for _, id := range used {
		told = told && n.accounts[id] != nil
	}
	for id, a := range n.accounts {
		if a.Dropped && !kept[id] && !slices.Contains(used, id) {
			delete(n.accounts, id)
			dropped = true
		}
	}
	if !dropped && maps.Equal(kept, n.kept) && n.engineProblem == "" && n.engineTold == told {
		return
	}
	n.kept, n.engineProblem, n.engineTold = kept, "", told
	s.agent.touch()
	s.networksNews()
}

// keepNetworks has the engine know the cluster's networks that the plane carries, until ctx
// ends.
func (a *Agent) keepNetworks(ctx context.Context) {
	var last []*cluster.Network
	for attempts, again := 0, true; ; {
		wait := lookAtNetworks
		var list []*cluster.Network
		known := false
		a.call(func(s *taskSet) {
			list, known = s.engineNetworks()
			again = again || s.networks.lookAgain
			s.networks.lookAgain = false
		})
		if known && (again || !slices.Equal(list, last)) {
			used, err := a.cfg.Driver.KeepNetworks(ctx, a.cfg.NodeID, list)
			if attempts, again = attempts+1, err != nil || len(used) > 0; again {
				wait = a.jitter(min(retryFirst<<min(attempts-1, 10), retryLast))
			} else {
				attempts = 0
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				a.post(func(s *taskSet) { s.engineFails(err) })
			default:
				last = list
				a.post(func(s *taskSet) { s.engineKeeps(list, used) })
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-a.keep:
		case <-timer.C:
			again = true
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// retryNames is the pause before names are told again to whom couldn't take them.
const retryNames = time.Second

// All names are written again after each change, which is tens of milliseconds' work for 10,000 of them. Changes
// that follow one another share it: the next are told after namesRest times as long as these took, or mostNamesRest.
const (
	namesRest     = 4
	mostNamesRest = 100 * time.Millisecond
)

// lookAtNetworks is how often the engine's networks are looked at though nothing is known to have
// changed: users can remove them.
const lookAtNetworks = time.Minute

// engineFails takes in why the engine's networks aren't as they should be. That an engine is away the
// log has from who watches it.
func (s *taskSet) engineFails(err error) {
	reason := err.Error()
	if reason == s.networks.engineProblem {
		return
	}
	if s.watching && !s.eventsLost && !s.describeFailed {
		s.agent.log.Warn("the engine's networks aren't as they should be; trying again", "err", err)
	}
	s.agent.Describe() // Others may have taken their addresses: then they are waited for.
	s.networks.engineProblem = reason
	s.networksNews()
}

// tellNames tells of names after each change, until ctx ends, while the node carries networks. What a start remembers isn't told:
// whoever answers has what the run before knew last.
func (a *Agent) tellNames(ctx context.Context) {
	failing := cluster.Complaint{Log: a.log, Now: a.cfg.Now}
	for {
		wait := lookAtNetworks
		var f *facts
		a.call(func(s *taskSet) { f = s.facts() })
		began := a.cfg.Now()
		// Of several nodes on an engine one tells of names, and that file is for all of them.
		if f != nil && f.Complete && f.self().Index != 0 {
			names := f.names()
			if len(names.Listen) == 0 {
				names = nil // Nobody asks: no process is needed.
			}
			err := a.cfg.Names(names)
			if err != nil {
				wait = retryNames
			}
			failing.About(err, "what names there are isn't passed on; trying again", "names are passed on again")
		}
		cluster.Sleep(ctx, min(namesRest*a.cfg.Now().Sub(began), mostNamesRest))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-a.name:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// warning is what is wrong with the node though it works.
func (a *Agent) warning() string {
	own, _ := a.networkWarning.Load().(string)
	return cluster.Sentences(a.cfg.Warning(), own)
}

// warning is what is wrong with networks; slow is why encrypted ones are.
func (n *networkSet) warning(slow string) string {
	var all []string
	if reason := cmp.Or(n.problem, n.engineProblem); reason != "" {
		all = append(all, "networks: "+reason)
	}
	if slow != "" {
		for _, a := range n.accounts {
			if a.Network != nil && a.Network.Encrypted() && !a.Dropped {
				all = append(all, "encrypted networks are slow here: "+slow)
				break
			}
		}
	}
	return cluster.Sentences(append(all, n.takenPorts())...)
}

// carries are the engine's plugins, and those for the cluster's networks, if the node carries them, and
// for encrypted ones: what the engine calls so is Swarm's own.
func (a *Agent) carries(plugins []swarm.PluginDescription) []swarm.PluginDescription {
	const kind = "Network"
	plugins = slices.DeleteFunc(slices.Clone(plugins), func(p swarm.PluginDescription) bool {
		return p.Type == kind && (p.Name == cluster.OverlayDriver || p.Name == cluster.EncryptedOverlay)
	})
	if a.cfg.Plane == nil {
		return plugins
	}
	plugins = append(plugins, swarm.PluginDescription{Type: kind, Name: cluster.OverlayDriver})
	if a.cfg.NoEncryption == "" {
		plugins = append(plugins, swarm.PluginDescription{Type: kind, Name: cluster.EncryptedOverlay})
	}
	slices.SortStableFunc(plugins, func(a, b swarm.PluginDescription) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
	})
	return plugins
}
