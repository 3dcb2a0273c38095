package scheduler

import (
	"cmp"
	"slices"

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
	// stored is the rollout to current as the plan finds it, nil when there is none.
	stored *cluster.Rollout
	same   map[uint64]sameness
	wake   cluster.Time
}

// servicePlan is the planning of one service.
type servicePlan struct {
	serviceView
	// slots are those with tasks, in the order of their numbers or nodes.
	slots []slot
	// referred are the numbers of the revisions that tasks refer to.
	referred []uint64
	// waiting is set when a task found no node; noRoomReason is why no further task of the
	// current revision finds one either.
	waiting      bool
	noRoomReason string
}

// slot is the tasks of one slot, and what planning finds out about them. In a
// global service each node is a slot.
type slot struct {
	number uint32
	node   string // empty unless the service is global
	// idle is set when the node is to have no task; held when it keeps what it has but
	// takes no new task for now.
	idle, held bool
	// tasks are all of the slot, the oldest first; live those wanted so far. Tasks
	// that this plan stops leave live.
	tasks, live []*cluster.Task
	// newest is the youngest one that isn't being removed, nil if there is none: then
	// the slot is free.
	newest *cluster.Task
	// rolling are the tasks that the running rollout made here.
	rolling []*cluster.Task
	// dirty is set when the slot has no wanted task that is up to date, or when it is
	// finished with one that isn't.
	dirty bool
	// retry is set when the slot is dirty though it is at the current revision: what a
	// resumed update is to try again first.
	retry bool
	// created is set when this plan makes a task here.
	created bool
}

// sameness is what comparing a revision with the current one gave.
type sameness struct{ same, exceptPlacement bool }

// planService compares one service with its tasks.
func (p *planner) planService(id string) {
	w := &p.reused
	*w = servicePlan{
		serviceView: serviceView{planner: p, id: id, service: p.View.Service(id)},
		slots:       w.slots[:0], referred: w.referred[:0],
	}
	w.gather()
	waiting := false
	switch {
	case w.service == nil:
		w.removeAll()
	case w.service.Spec.Mode.Replicated != nil || w.service.Global() || w.service.Job():
		if w.current = p.View.Revision(id, w.service.Revision); w.current == nil {
			// The API puts both in one transaction, so this is a database that was tampered with.
			return
		}
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
	w.requirement = w.Ledger.Require(w.current, w.around)
	w.global, w.job, w.wanted = w.service.Global(), w.service.Job(), cluster.StateRunning
	if rollout := w.View.Rollout(w.id); rollout != nil && rollout.Revision == w.service.Revision {
		w.stored = rollout
	}
	w.reapRemoved()
	if w.job {
		w.wanted = cluster.StateComplete
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
	if w.global {
		w.fillNodes()
	} else {
		w.fillSlots()
	}
	balanced := w.rebalance(&r)
	for i := range w.slots {
		w.unblockOrExplain(&w.slots[i])
	}
	switch {
	case pause != nil:
		// It is written after what is done about the failures: they are found again by a
		// leader that finds the rollout still running, but not by one that finds it paused.
		r.write(*pause)
	case balanced:
		r.close(w.slots)
	}
	w.reapHistory(&r)
	w.reapRevisions()
	return w.waiting || r.rebalancing()
}

// gather sorts the service's tasks into slots.
func (w *servicePlan) gather() {
	var unnumbered []*cluster.Task
	for t := range w.View.TasksOfService(w.id) {
		if t.Slot == 0 {
			unnumbered = append(unnumbered, t)
			continue
		}
		w.sort(t)
	}
	slices.SortFunc(unnumbered, func(a, b *cluster.Task) int { return cmp.Compare(a.NodeID, b.NodeID) })
	for _, t := range unnumbered {
		w.sort(t)
	}
	for i := range w.slots {
		s := &w.slots[i]
		if len(s.tasks) > 1 {
			slices.SortFunc(s.tasks, older)
			slices.SortFunc(s.live, older)
		}
		for _, t := range s.tasks {
			if t.Desired != cluster.StateRemove {
				s.newest = t
			}
		}
	}
}

// sort puts a task into its slot: the last one so far, or a new one after it.
func (w *servicePlan) sort(t *cluster.Task) {
	at := slot{number: t.Slot}
	if t.Slot == 0 {
		at.node = t.NodeID
	}
	if n := len(w.slots); n == 0 || w.slots[n-1].number != at.number || w.slots[n-1].node != at.node {
		w.slots = append(w.slots, at)
	}
	if !slices.Contains(w.referred, t.Revision) {
		w.referred = append(w.referred, t.Revision)
	}
	s := &w.slots[len(w.slots)-1]
	s.tasks = append(s.tasks, t)
	if t.Live() {
		s.live = append(s.live, t)
	}
}

// older sorts tasks of a slot by age. Where a clock stood still, what is wanted
// is younger than what isn't, then what changed last is.
func older(a, b *cluster.Task) int {
	live := func(t *cluster.Task) int {
		if t.Live() {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(live(a), live(b)),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID))
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

// stop takes tasks out of the slot's live ones; they no longer count on their nodes.
func (w *servicePlan) stop(s *slot, desired cluster.State, err string, tasks ...*cluster.Task) []stop {
	var stops []stop
	for _, t := range tasks {
		stops = append(stops, stop{TaskID: t.ID, Desired: desired, Err: err})
		if i := slices.Index(s.live, t); i >= 0 {
			w.Ledger.Release(t)
			w.noRoomReason = ""
			s.live = slices.Delete(s.live, i, i+1)
		}
	}
	return stops
}

// drop stops tasks without a replacement.
func (w *servicePlan) drop(s *slot, err string, tasks ...*cluster.Task) {
	for _, one := range w.stop(s, cluster.StateShutdown, err, tasks...) {
		w.intend(&one)
	}
}

// replacement says how a slot gets a new task.
type replacement struct {
	// stop are live tasks that end in the same moment; stopErr says why, of the
	// last one.
	stop    []*cluster.Task
	stopErr string
	// beside are live tasks that go on until the new one runs, if it ever does.
	beside []*cluster.Task
	// notBefore is when the new one may start, at the earliest.
	notBefore cluster.Time
}

// replace makes a new task in the slot. Unless it runs beside them, it starts
// when the others have stopped, and is made ready in the meantime.
func (w *servicePlan) replace(s *slot, r replacement) *cluster.Task {
	c := &create{}
	for i, t := range r.stop {
		err := ""
		if i == len(r.stop)-1 {
			err = r.stopErr
		}
		c.Stop = append(c.Stop, w.stop(s, cluster.StateShutdown, err, t)...)
	}
	for _, t := range r.beside {
		c.Beside = append(c.Beside, t.ID)
	}
	desired := w.wanted
	if r.notBefore > w.now || len(r.beside) == 0 && w.blocker(s) != nil {
		desired = cluster.StateReady
	}
	c.Task = w.newTask(s, desired)
	// Whatever replaces another task has NotBefore, which tells it from the first task
	// of a new slot.
	c.Task.NotBefore = max(r.notBefore, w.now)
	w.intend(c)
	s.created = true
	return c.Task
}

// blocker finds a task of the slot that is to stop and hasn't yet.
func (v *serviceView) blocker(s *slot) *cluster.Task {
	for _, t := range s.tasks {
		if !v.stopped(t) && !slices.Contains(s.live, t) {
			return t
		}
	}
	return nil
}

const (
	messageAssigned = "scheduler assigned task to node"
	messagePending  = "pending task scheduling"
)

// place finds a node for one task of the current revision, or says why none can
// take it.
func (w *servicePlan) place() (c placement.Choice, why string) {
	if w.noRoomReason == "" {
		if c, ok := w.Ledger.PlaceOne(&w.requirement, w.Now); ok {
			return c, ""
		}
		w.noRoomReason = w.Ledger.Explain(&w.requirement)
	}
	w.waiting = true
	return c, w.noRoomReason
}

// newTask makes a task of the current revision, with a node if one has room; in a
// global service it is the slot's, and the task waits for it while there is no room.
func (w *servicePlan) newTask(s *slot, desired cluster.State) *cluster.Task {
	if !w.global {
		c, why := w.place()
		return w.taskOn(c, why, s.number, desired)
	}
	c, why := w.Ledger.PlaceOn(&w.requirement, s.node)
	c.NodeID = s.node
	w.waiting = w.waiting || why != ""
	return w.taskOn(c, why, 0, desired)
}

// taskOn makes a task that is assigned to the node, unless why says that there was
// no room.
func (w *servicePlan) taskOn(c placement.Choice, why string, number uint32, desired cluster.State) *cluster.Task {
	t := &cluster.Task{
		ID:        w.NewID(),
		ServiceID: w.id,
		Revision:  w.current.Number,
		Slot:      number,
		NodeID:    c.NodeID,
		Generic:   c.Generic,
		Desired:   desired,
		Status:    cluster.TaskStatus{State: cluster.StateAssigned, Since: w.now, Applied: w.now, Message: messageAssigned},
	}
	if why != "" {
		t.Status.State, t.Status.Message, t.Status.Err = cluster.StatePending, messagePending, why
	}
	return t
}
