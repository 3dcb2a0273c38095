package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/scheduler/placement"
	"skep/store"
)

// Intent is one thing a plan wants done, as a whole or not at all. Apply does it
// to the objects as they are in the transaction; where it no longer fits, it does
// nothing, and the change that made it unfit brings a new plan.
type Intent interface {
	Apply(tx *Tx) error
	fmt.Stringer
}

// Tx is a transaction that intents are applied in. None of them writes nodes, so
// it remembers which of them take new tasks.
type Tx struct {
	*store.Tx
	schedulable map[string]bool
}

func (tx *Tx) takesTasks(nodeID string) bool {
	takes, known := tx.schedulable[nodeID]
	if !known {
		n := tx.Node(nodeID)
		takes = n != nil && n.Schedulable()
		tx.schedulable[nodeID] = takes
	}
	return takes
}

// put writes a task; verb says in an error what for.
func (tx *Tx) put(verb string, t *cluster.Task) error {
	if err := tx.Put(t); err != nil {
		return fmt.Errorf("%s task %s: %w", verb, t.ID, err)
	}
	return nil
}

// create makes a task, perhaps in the place of others.
type create struct {
	Task *cluster.Task
	// Stop are wanted tasks of the slot that are to stop, in the same moment.
	Stop []stop
	// Beside are wanted tasks of the slot that go on for now.
	Beside []string
	// Networks are those that it gets addresses in when it has a node.
	Networks []*address.Supply
}

// taken tells whether there is a wanted task in the place of the new one that the plan
// didn't know of.
func (c *create) taken(tx *Tx) bool {
	unknown := func(t *cluster.Task) bool {
		return t.Live() && !slices.Contains(c.Beside, t.ID) && !slices.ContainsFunc(c.Stop, func(s stop) bool { return s.TaskID == t.ID })
	}
	if c.Task.Slot > 0 {
		for t := range tx.TasksOfSlot(c.Task.ServiceID, c.Task.Slot) {
			if unknown(t) {
				return true
			}
		}
		return false
	}
	for t := range tx.TasksOfNode(c.Task.NodeID) {
		if t.ServiceID == c.Task.ServiceID && unknown(t) {
			return true
		}
	}
	return false
}

// Apply does it while the service still wants this revision, no other wanted
// task has appeared in the slot and the node still takes tasks.
func (c *create) Apply(tx *Tx) error {
	s := tx.Service(c.Task.ServiceID)
	if s == nil || s.Revision != c.Task.Revision {
		return nil
	}
	if c.taken(tx) {
		return nil
	}
	if c.Task.NodeID != "" && !tx.takesTasks(c.Task.NodeID) {
		return nil
	}
	for i := range c.Stop {
		if err := c.Stop[i].Apply(tx); err != nil {
			return err
		}
	}
	t := c.Task
	if t.Assigned() && len(c.Networks) > 0 {
		t.Addresses = nil // It may be applied again.
		why, err := tx.give(t, s, c.Networks)
		if err != nil {
			return err
		}
		if why != "" {
			task := *t
			t = &task
			t.Generic = nil
			t.Status.State, t.Status.Message, t.Status.Err = cluster.StatePending, messagePending, why
			if t.Slot > 0 {
				t.NodeID = ""
			}
		}
	}
	return tx.put("create", t)
}

func (c *create) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "create %s", c.Task.ID)
	if c.Task.Slot > 0 {
		fmt.Fprintf(&b, " slot=%d", c.Task.Slot)
	}
	fmt.Fprintf(&b, " rev=%d %s", c.Task.Revision, c.Task.Desired)
	if c.Task.NodeID != "" {
		b.WriteString(" on " + c.Task.NodeID + claims(c.Task.Generic))
	}
	if !c.Task.Assigned() {
		b.WriteString(" (" + c.Task.Status.Err + ")")
	}
	if c.Task.Desired == cluster.StateReady && c.Task.NotBefore != 0 {
		b.WriteString(" not before " + c.Task.NotBefore.Std().Format(time.TimeOnly))
	}
	if len(c.Beside) > 0 {
		b.WriteString(" beside " + strings.Join(c.Beside, ","))
	}
	for i := range c.Stop {
		b.WriteString(", " + c.Stop[i].String())
	}
	return b.String()
}

// stop makes a task no longer wanted: Desired is Shutdown, to keep its record, or
// Remove.
type stop struct {
	TaskID  string
	Desired cluster.State
	// Err says why, when the task did something wrong.
	Err string
}

// Apply does it unless the task is to stop already. What was never assigned has
// nothing to stop and nobody to report: it has ended, or disappears. What has ended stays while
// its addresses rest.
func (s *stop) Apply(tx *Tx) error {
	old := tx.Task(s.TaskID)
	if old == nil || old.Desired >= s.Desired {
		return nil
	}
	if s.Desired == cluster.StateRemove && (!old.Assigned() || old.Status.State.Terminal()) && address.RestsUntil(old) <= cluster.At(tx.Now()) {
		tx.Delete(old)
		return nil
	}
	t := *old
	t.Desired = s.Desired
	if s.Err != "" && !t.Status.State.Terminal() {
		t.Status.Err = s.Err
	}
	if !t.Assigned() && !t.Status.State.Terminal() {
		now := cluster.At(tx.Now())
		t.Status.State, t.Status.Since, t.Status.Applied, t.Status.Message = cluster.StateShutdown, now, now, "shutdown"
	}
	return tx.put("stop", &t)
}

func (s *stop) String() string {
	text := "stop " + s.TaskID
	if s.Desired == cluster.StateRemove {
		text = "remove " + s.TaskID
	}
	if s.Err != "" {
		text += " (" + s.Err + ")"
	}
	return text
}

// start lets a task run that was made ready and had to wait.
type start struct {
	TaskID  string
	Desired cluster.State // Running, or Complete in a job
}

// Apply also notes when, since that is what a start deadline counts from.
func (s *start) Apply(tx *Tx) error {
	old := tx.Task(s.TaskID)
	if old == nil || old.Desired >= cluster.StateRunning {
		return nil
	}
	t := *old
	t.Desired, t.NotBefore = s.Desired, cluster.At(tx.Now())
	return tx.put("start", &t)
}

func (s *start) String() string { return "start " + s.TaskID }

// assign gives a node to a task that waited for one.
type assign struct {
	TaskID string
	placement.Choice
	// Networks are those that it gets addresses in.
	Networks []*address.Supply
}

// Apply does it while the task still waits and the node still takes tasks.
func (a *assign) Apply(tx *Tx) error {
	old := tx.Task(a.TaskID)
	if old == nil || old.Assigned() || old.NodeID != "" && old.NodeID != a.NodeID || !old.Live() || !tx.takesTasks(a.NodeID) {
		return nil
	}
	t := *old
	now := cluster.At(tx.Now())
	if len(a.Networks) > 0 {
		why, err := tx.give(&t, tx.Service(t.ServiceID), a.Networks)
		if err != nil {
			return err
		}
		if why != "" {
			t.Status.Message, t.Status.Err = messagePending, why
			return tx.put("explain", &t)
		}
	}
	t.NodeID, t.Generic = a.NodeID, a.Generic
	t.Status = cluster.TaskStatus{State: cluster.StateAssigned, Since: now, Applied: now, Message: messageAssigned}
	return tx.put("assign", &t)
}

func (a *assign) String() string {
	return fmt.Sprintf("assign %s to %s%s", a.TaskID, a.NodeID, claims(a.Generic))
}

// claims lists generic resources as a container is told of them.
func claims(generic []cluster.Claim) string {
	var b strings.Builder
	for _, env := range (&cluster.Task{Generic: generic}).GenericEnv() {
		b.WriteString(" " + strings.TrimPrefix(env, "DOCKER_RESOURCE_"))
	}
	return b.String()
}

// explain says why a task waits (Message) or can't go on (Err).
type explain struct {
	TaskID       string
	State        cluster.State // where the task was
	Message, Err string
}

// Apply does it while the task is where it was.
func (e *explain) Apply(tx *Tx) error {
	old := tx.Task(e.TaskID)
	if old == nil || !old.Live() || old.Status.State != e.State {
		return nil
	}
	t := *old
	if e.Message != "" {
		t.Status.Message = e.Message
	}
	t.Status.Err = e.Err
	return tx.put("explain", &t)
}

func (e *explain) String() string {
	return fmt.Sprintf("explain %s: %s", e.TaskID, strings.Trim(e.Message+"; "+e.Err, "; "))
}

// orphan gives up a task whose node won't tell any more what became of it.
type orphan struct{ TaskID, NodeID, Reason string }

// Apply does it unless the node came back or the task has ended.
func (o *orphan) Apply(tx *Tx) error {
	old, n := tx.Task(o.TaskID), tx.Node(o.NodeID)
	if old == nil || old.Status.State.Terminal() || n != nil && n.Status.State != cluster.NodeDown {
		return nil
	}
	t := *old
	now := cluster.At(tx.Now())
	t.Status.State, t.Status.Since, t.Status.Applied = cluster.StateOrphaned, now, now
	t.Status.Message, t.Status.Err = "orphaned", o.Reason
	return tx.put("orphan", &t)
}

func (o *orphan) String() string { return fmt.Sprintf("orphan %s (%s)", o.TaskID, o.Reason) }
