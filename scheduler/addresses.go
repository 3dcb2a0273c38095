package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
)

// networking is the networks that tasks of a revision have an address in: the overlay networks
// that it names, and the ingress network if its service publishes ports on all nodes.
type networking struct {
	supplies []*address.Supply
	// networks are those of supplies, and those of the cluster that each engine makes by itself.
	networks []*cluster.Network
	// ingress is the ingress network's, nil if the tasks aren't in it.
	ingress *address.Supply
	// missing says which network isn't there, so that no task can run.
	missing string
	// static is set when each slot keeps its addresses.
	static bool
}

// publishes tells whether a service publishes ports on all nodes.
func publishes(s *cluster.Service) bool {
	return s.Spec.EndpointSpec != nil && slices.ContainsFunc(s.Spec.EndpointSpec.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode != swarm.PortConfigPublishModeHost
	})
}

// networkingOf finds out about the networks of a service's revision.
func (p *planner) networkingOf(s *cluster.Service, r *cluster.Revision) (n networking) {
	if len(r.Spec.Networks) == 0 && s.Spec.EndpointSpec == nil {
		return n
	}
	n.supplies = p.together[:0]
	var local []*cluster.Network
	for _, attachment := range r.Spec.Networks {
		if _, engines := cluster.PredefinedNetwork(attachment.Target); engines {
			continue
		}
		network := p.View.Network(attachment.Target)
		switch {
		case network == nil:
			n.missing = fmt.Sprintf("network %s was removed: update the service without it", attachment.Target)
		case network.Spans():
			n.add(p.supplyOf(network))
		default:
			local = append(local, network)
		}
	}
	if publishes(s) {
		if ingress := p.ingressNetwork(); ingress != nil {
			n.ingress = p.supplyOf(ingress)
			n.add(n.ingress)
		} else {
			n.missing = "there is no ingress network, by which published ports are carried: create one with docker network create --driver overlay --ingress NAME"
		}
	}
	p.together = n.supplies
	// Most services are on the networks that the one before is on.
	if !slices.Equal(n.supplies, p.supplied) {
		p.supplied, p.supplying = slices.Clone(n.supplies), make([]*cluster.Network, len(n.supplies))
		for i, s := range n.supplies {
			p.supplying[i] = s.Network
		}
	}
	n.supplies, n.networks = p.supplied, p.supplying
	if len(local) > 0 {
		n.networks = slices.Concat(n.networks, local)
	}
	n.static = len(n.supplies) > 0 && address.Static(s)
	return n
}

func (n *networking) add(s *address.Supply) {
	if !slices.Contains(n.supplies, s) {
		n.supplies = append(n.supplies, s)
	}
}

func (p *planner) supplyOf(n *cluster.Network) *address.Supply {
	s := p.supplies[n.ID]
	if s == nil {
		if p.supplies == nil {
			p.supplies = make(map[string]*address.Supply)
		}
		s = address.SupplyOf(p.View, n, p.now)
		p.supplies[n.ID] = s
	}
	return s
}

// ingressNetwork is looked for once: it isn't indexed.
func (p *planner) ingressNetwork() *cluster.Network {
	if !p.ingressKnown {
		p.ingress, p.ingressKnown = p.View.IngressNetwork(), true
	}
	return p.ingress
}

// given are the addresses that a task of a slot would get, as far as a plan decides about them:
// how many of which network, or why there are none.
type given struct {
	supplies []*address.Supply
	why      string
}

func (g given) take() {
	for _, s := range g.supplies {
		s.Take()
	}
}

// addresses says what a task of the slot, which may be nil, can be given. The number itself is
// chosen when the task is written.
func (v *serviceView) addresses(n *networking, s *slot) given {
	if n.missing != "" {
		return given{why: n.missing}
	}
	if !n.static {
		return v.free(n.supplies)
	}
	before := v.predecessor(s)
	if before == nil {
		return v.free(n.supplies)
	}
	if !v.stopped(before) {
		return given{why: awaitEnd(before)}
	}
	var others []*address.Supply
	for _, supply := range n.supplies {
		if cluster.AddressIn(before.Addresses, supply.Network.VNI) == 0 {
			others = append(others, supply)
		}
	}
	return v.free(others)
}

// free tells whether each network has an address, and looks again when the next one comes free.
func (v *serviceView) free(supplies []*address.Supply) given {
	for _, s := range supplies {
		if s.Left(1) > 0 {
			continue
		}
		if next := s.Next(); next != 0 {
			v.wakeAt(next)
		}
		return given{why: noAddress(s.Network, s.Size)}
	}
	return given{supplies: supplies}
}

// left is how many tasks can be given addresses, of so many.
func (n *networking) left(most int) int {
	if n.missing != "" {
		return 0
	}
	for _, s := range n.supplies {
		most = s.Left(most)
	}
	return most
}

func awaitEnd(before *cluster.Task) string {
	return fmt.Sprintf("waiting for task %s to stop, whose addresses it gets", before.ID)
}

const noFreeAddress = "no free address in network "

func noAddress(n *cluster.Network, size int) string {
	return fmt.Sprintf("%s%s (%d in use)", noFreeAddress, n.Spec.Name, size)
}

// predecessor finds the task whose static addresses the next one of the slot gets: the youngest
// that has any, unless it goes on.
func (v *serviceView) predecessor(s *slot) (before *cluster.Task) {
	if s == nil {
		return nil
	}
	for _, t := range s.tasks {
		if len(t.Addresses) > 0 {
			before = t
		}
	}
	if before != nil && slices.Contains(s.live, before) && !before.Status.State.Terminal() {
		return nil
	}
	return before
}

// resting tells whether a task's record stays for its addresses: until they have rested, or for
// the next task of its slot.
func (v *serviceView) resting(t *cluster.Task) bool {
	until := address.RestsUntil(t)
	switch {
	case until == 0:
		return false
	case until > v.now:
		v.wakeAt(until)
		return true
	}
	return address.Kept(v.View, t)
}

// publish gives addresses in the ingress network to tasks that have none, since their service
// publishes ports only since they run.
func (w *servicePlan) publish() {
	ingress := w.networking.ingress
	if ingress == nil {
		w.waiting = w.waiting || w.networking.missing != "" && len(w.slots) > 0
		return
	}
	for i := range w.slots {
		for _, t := range w.slots[i].live {
			if !t.Assigned() || t.Status.State.Terminal() || cluster.AddressIn(t.Addresses, ingress.Network.VNI) != 0 {
				continue
			}
			if g := w.free([]*address.Supply{ingress}); g.why != "" {
				w.waiting = true
				if t.Status.Err != g.why {
					w.intend(&explain{TaskID: t.ID, State: t.Status.State, Err: g.why})
				}
				continue
			}
			ingress.Take()
			w.intend(&join{TaskID: t.ID, Network: ingress})
		}
	}
}

// leave takes addresses in an ingress network that is gone from tasks that go on: it may be removed once
// nothing is published, though tasks that were published before are still in it.
func (w *servicePlan) leave() {
	for i := range w.slots {
		for _, t := range w.slots[i].live {
			if slices.ContainsFunc(t.Addresses, w.networkGone) && !t.Status.State.Terminal() && w.hasNetworks(w.revision(t)) {
				w.intend(&leave{TaskID: t.ID})
			}
		}
	}
}

// hasNetworks tells whether all networks that a revision names are there.
func (w *servicePlan) hasNetworks(r *cluster.Revision) bool {
	return r != nil && !slices.ContainsFunc(r.Spec.Networks, func(c swarm.NetworkAttachmentConfig) bool {
		_, engines := cluster.PredefinedNetwork(c.Target)
		return !engines && w.View.Network(c.Target) == nil
	})
}

// networkGone tells whether an address is of a network that isn't there any more.
func (w *servicePlan) networkGone(a cluster.Address) bool {
	return !slices.ContainsFunc(w.networking.supplies, func(s *address.Supply) bool { return s.Network.VNI == a.VNI }) && w.View.NetworkOfVNI(a.VNI) == nil
}

// give chooses the addresses of a service's task and takes them from tasks that have ended. Where there are none,
// which the plan can't have known, it says why and changes nothing.
func (tx *Tx) give(t *cluster.Task, s *cluster.Service, networks []*address.Supply) (why string, err error) {
	var before *cluster.Task
	if s != nil && address.Static(s) {
		before = address.Predecessor(tx.View, t)
		switch {
		case before == nil || tx.over(before):
		case before.Live():
			before = nil
		default:
			return awaitEnd(before), nil
		}
	}
	return tx.giveAfter(before, t, networks)
}

// giveAfter is give where it is known which task's static addresses this one gets: before's, which
// may be nil.
func (tx *Tx) giveAfter(before, t *cluster.Task, networks []*address.Supply) (why string, err error) {
	type taken struct {
		from string // a task's ID
		cluster.Address
	}
	now := cluster.At(tx.Now())
	addresses := append(make([]cluster.Address, 0, len(t.Addresses)+len(networks)), t.Addresses...)
	var others []taken
	for _, n := range networks {
		a, old, ok := n.ForTask(tx.View, t, before, now)
		if !ok {
			return noAddress(n.Network, n.Size), nil
		}
		addresses = append(addresses, a)
		if old != nil {
			others = append(others, taken{old.ID, a})
		}
	}
	for _, a := range others {
		old := *tx.Task(a.from)
		old.Addresses = slices.DeleteFunc(slices.Clone(old.Addresses), func(other cluster.Address) bool { return other == a.Address })
		if err := tx.put("take the address of", &old); err != nil {
			return "", err
		}
	}
	t.Addresses = addresses
	return "", nil
}

// over tells whether a task has ended, or its node won't say any more.
func (tx *Tx) over(t *cluster.Task) bool {
	if t.Status.State.Terminal() {
		return true
	}
	n := tx.Node(t.NodeID)
	return !t.Live() && (n == nil || n.Status.State == cluster.NodeDown)
}

// join gives an address in another network to a task that may run already, which is why it waits
// for no static address: the slot's task before may take long to stop.
type join struct {
	TaskID  string
	Network *address.Supply
}

// Apply does it while the task goes on and isn't in the network.
func (j *join) Apply(tx *Tx) error {
	old := tx.Task(j.TaskID)
	if old == nil || !old.Live() || !old.Assigned() || old.Status.State.Terminal() || cluster.AddressIn(old.Addresses, j.Network.Network.VNI) != 0 {
		return nil
	}
	t := *old
	why, err := tx.giveAfter(nil, &t, []*address.Supply{j.Network})
	if err != nil {
		return err
	}
	if why != "" || strings.HasPrefix(t.Status.Err, noFreeAddress) {
		t.Status.Err = why
	}
	return tx.put("join", &t)
}

func (j *join) String() string {
	return fmt.Sprintf("join %s to network %s", j.TaskID, j.Network.Network.Spec.Name)
}

// leave takes the addresses from a task that it has in networks that are gone.
type leave struct{ TaskID string }

// Apply does it, unless the task has ended.
func (l *leave) Apply(tx *Tx) error {
	old := tx.Task(l.TaskID)
	if old == nil || old.Status.State.Terminal() {
		return nil
	}
	t := *old
	t.Addresses = slices.DeleteFunc(slices.Clone(t.Addresses), func(a cluster.Address) bool { return tx.NetworkOfVNI(a.VNI) == nil })
	if len(t.Addresses) == len(old.Addresses) {
		return nil
	}
	return tx.put("leave a network that is gone", &t)
}

func (l *leave) String() string { return fmt.Sprintf("take %s off networks that are gone", l.TaskID) }
