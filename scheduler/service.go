package scheduler

import (
	"skep/cluster"
	"skep/scheduler/placement"
)

// serviceView is what a plan is given of one service, and what follows from it for one
// task. Nothing in it changes while the service is planned, but for when to look again.
type serviceView struct {
	*planner
	id      string
	service *cluster.Service
	// global is set when the service has one task per node, job when its tasks are to
	// complete; wanted is the desired state of those that may run.
	global, job bool
	wanted      cluster.State
	// current is the revision that the service wants.
	current     *cluster.Revision
	requirement placement.Requirement
	networking  networking
	// stored is the rollout to current as the plan finds it, nil when there is none.
	stored *cluster.Rollout
	same   map[uint64]sameness
	// depends is what the service's tasks wait for.
	depends dependencies
	wake    cluster.Time
}

// servicePlan is the planning of one service.
type servicePlan struct {
	serviceView
	placer
	slots []slot
	// filled is set when this plan makes a task for a node that had none.
	filled bool
}

// sameness is what comparing a revision with the current one gave.
type sameness struct{ same, exceptPlacement bool }

// viewOf reads what there is of a service; without current there is nothing to plan.
func (p *planner) viewOf(id string) serviceView {
	v := serviceView{planner: p, id: id, service: p.View.Service(id), wanted: cluster.StateRunning}
	if v.service == nil || v.service.Spec.Mode.Replicated == nil && !v.service.Global() && !v.service.Job() {
		return v
	}
	if v.current = p.View.Revision(id, v.service.Revision); v.current == nil {
		return v // The API puts both in one transaction, so this is a database that was tampered with.
	}
	v.requirement, v.networking = p.ask(v.service, v.current)
	v.global, v.job = v.service.Global(), v.service.Job()
	if v.job {
		v.wanted = cluster.StateComplete
	}
	if rollout := p.View.Rollout(id); rollout != nil && rollout.Revision == v.service.Revision {
		v.stored = rollout
	}
	return v
}

// ask reads what a revision asks of nodes and networks.
func (p *planner) ask(s *cluster.Service, r *cluster.Revision) (placement.Requirement, networking) {
	n, around := p.networkingOf(s, r), p.around
	around.Networks = n.networks
	return p.Ledger.Require(r, around), n
}

// planService compares one service with its tasks.
func (p *planner) planService(id string) {
	w := &p.reused
	*w = servicePlan{
		serviceView: p.viewOf(id),
		placer:      placer{view: &w.serviceView},
		slots:       p.room.gather(p.View, id),
	}
	defer func() { p.room.clear(w.slots) }()
	waiting := false
	switch {
	case w.service == nil:
		w.removeAll()
	case w.current != nil:
		waiting = w.plan()
	}
	if w.wake != 0 {
		p.result.Wakes = append(p.result.Wakes, Wake{ServiceID: id, At: w.wake.Std()})
	}
	if waiting {
		p.result.Waiting = append(p.result.Waiting, id)
	}
}

// plan is the order in which a service is looked at. A job has no rollouts and no
// order in draining: its tasks are in nobody's service. It tells whether the service waits
// for what others take or leave.
func (w *servicePlan) plan() (waiting bool) {
	w.reapRemoved()
	if w.job {
		w.endIterations()
	}
	switch {
	case w.global:
		w.clearUnfitNodes()
	case !w.job:
		w.scaleDown()
	}
	r := openRollout(&w.serviceView, w.slots)
	w.openReturn(&r)
	w.openAuto(&r)
	w.awaitDependencies(&r)
	r.tellDependencies()
	pause, abandoned := r.checkFailures(w.slots)
	if abandoned {
		return false
	}
	r.paused = r.paused || pause != nil
	for i := range w.slots {
		w.reconcileSlot(&w.slots[i], &r)
	}
	w.update(&r)
	if !w.job {
		w.drain(r.policy)
	}
	switch {
	case !w.runs():
	case w.global:
		w.fillNodes()
	default:
		w.fillSlots()
	}
	balanced := w.rebalance(&r)
	w.leave()
	w.publish()
	for i := range w.slots {
		w.unblockOrExplain(&w.slots[i])
	}
	switch {
	case pause != nil:
		// It is written after what is done about the failures: they are found again by a
		// leader that finds the rollout still running, but not by one that finds it paused.
		r.write(*pause)
	case balanced:
		r.pauseAfter(w.slots)
		r.close(w.slots)
	}
	w.schedule()
	w.reapHistory(&r)
	w.reapRevisions()
	return w.waiting || r.rebalancing()
}

// revision finds the revision of a task; nil when it is gone.
func (v *serviceView) revision(t *cluster.Task) *cluster.Revision {
	if v.current != nil && t.Revision == v.current.Number {
		return v.current
	}
	return v.View.Revision(v.id, t.Revision)
}

// upToDate tells whether the task needs no replacement to be at the current
// revision: what cluster.UpToDate says, comparing each two revisions once.
func (v *serviceView) upToDate(t *cluster.Task) bool {
	if t.Revision == v.current.Number {
		return true
	}
	s := v.compare(t)
	if s.exceptPlacement && t.NodeID != "" {
		n := v.Ledger.Node(t.NodeID)
		return n != nil && v.requirement.Meets(n)
	}
	return s.same
}

// compare compares the revision of a task with the current one.
func (v *serviceView) compare(t *cluster.Task) sameness {
	s, known := v.same[t.Revision]
	if !known {
		if r := v.revision(t); r != nil {
			s.same, s.exceptPlacement = cluster.CompareRevisions(r, v.current)
		}
		if v.same == nil {
			v.same = make(map[uint64]sameness)
		}
		v.same[t.Revision] = s
	}
	return s
}

// wakeAt asks to plan the service again at the latest then.
func (v *serviceView) wakeAt(at cluster.Time) {
	if v.wake == 0 || at < v.wake {
		v.wake = at
	}
}
