package scheduler

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// hive is a cluster without managers and agents: a database in memory, a clock
// that stands still, and Run's loop taken apart, so that a test makes each step.
type hive struct {
	t    testing.TB
	db   *store.Memory
	now  time.Time
	loop *loop
	ids  int
	// owners had the addresses when a property looked last.
	owners map[cluster.Address]*cluster.Task
	// indexes is how many node indexes were given out.
	indexes uint16
	// forgetful makes each plan one of a new leader, who lists everything anew.
	forgetful bool
}

var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newHive(t testing.TB) *hive {
	h := &hive{t: t, now: epoch}
	h.db = store.NewMemory(func() time.Time { return h.now })
	h.elect()
	return h
}

// elect starts the loop as a new leader does.
func (h *hive) elect() {
	if h.loop != nil {
		h.loop.subscription.Close()
	}
	h.loop = newLoop(Config{Store: h.db, Now: func() time.Time { return h.now }, NewID: h.newID})
	_, view, _ := h.loop.subscription.Take()
	h.loop.relist(view)
}

func (h *hive) newID() string {
	h.ids++
	return fmt.Sprintf("t%02d", h.ids)
}

func (h *hive) update(fn func(tx *store.Tx) error) {
	h.t.Helper()
	if err := h.db.Update(context.Background(), fn); err != nil {
		h.t.Fatal(err)
	}
}

// plan makes and writes one plan.
func (h *hive) plan() []Intent {
	h.t.Helper()
	if h.forgetful {
		h.elect()
	}
	h.loop.refresh()
	before := h.db.View()
	result, _ := h.loop.plan()
	if _, err := Write(context.Background(), h.db, result.Intents); err != nil {
		h.t.Fatal(err)
	}
	h.dependenciesHeld(before, result.Intents)
	return result.Intents
}

// dependenciesHeld checks that no task of a revision gets a node before what the revision depends on
// is so, by a rule of its own for a global service that is to be healthy.
func (h *hive) dependenciesHeld(before store.View, intents []Intent) {
	h.t.Helper()
	after := h.db.View()
	for _, intent := range intents {
		var t *cluster.Task
		switch i := intent.(type) {
		case *create:
			t = after.Task(i.Task.ID)
		case *assign:
			t = after.Task(i.TaskID)
		case *meet:
			s := after.Service(i.ServiceID)
			if s == nil || s.Spec.Labels[cluster.LabelDependsOn.Name] != "global:healthy" {
				continue
			}
			had, runs := false, 0
			for t := range before.TasksOfService(s.ID) {
				had = had || t.Revision == i.Number && t.Assigned()
			}
			for t := range before.TasksOfService("global") {
				if t.Live() && t.Status.State != cluster.StateRunning && !had {
					h.t.Fatalf("%v, but %s is %s\n%s", i, t.ID, t.Status.State, h.describe(""))
				}
				if t.Live() {
					runs++
				}
			}
			if runs == 0 && !had {
				h.t.Fatalf("%v, but nothing of it runs\n%s", i, h.describe(""))
			}
		}
		if t == nil || !t.Assigned() {
			continue
		}
		s := after.Service(t.ServiceID)
		if _, depends := s.Spec.Labels[cluster.LabelDependsOn.Name]; depends && t.Revision == s.Revision && after.Revision(s.ID, s.Revision).DependsMet.IsZero() {
			h.t.Fatalf("%v gives a node to %s, which depends on others\n%s", intent, t.ID, h.describe(""))
		}
	}
}

// settle plans until nothing more comes of it.
func (h *hive) settle() []Intent {
	h.t.Helper()
	var all []Intent
	for range 50 {
		h.loop.refresh()
		if !h.loop.dirty.any() && !h.forgetful {
			return all
		}
		intents := h.plan()
		all = append(all, intents...)
		if len(intents) == 0 {
			return all
		}
	}
	h.t.Fatalf("planning comes to no end; the last intents: %v", all[max(0, len(all)-5):])
	return nil
}

func (h *hive) put(object any) {
	h.t.Helper()
	h.update(func(tx *store.Tx) error { return tx.Put(object) })
}

func (h *hive) node(id string) *cluster.Node {
	n := &cluster.Node{ID: id, Role: swarm.NodeRoleWorker}
	n.Spec.Availability = swarm.NodeAvailabilityActive
	n.Description.Hostname = id
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
	n.Description.Resources = swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 4 << 30}
	n.Status.State = cluster.NodeReady
	n.Status.Since = h.now
	n.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Network", Name: "overlay"}}
	if old := h.db.View().Node(id); old != nil {
		*n = *old
		return n
	}
	h.indexes++
	n.Index = h.indexes
	return n
}

func (h *hive) holds(u cluster.Unique) bool {
	_, held := h.db.View().Holder(u)
	return held
}

// network makes a network that spans nodes.
func (h *hive) network(id, subnet string, ingress bool) {
	h.t.Helper()
	prefix := netip.MustParsePrefix(subnet)
	n := &cluster.Network{ID: id, VNI: cluster.FirstVNI, Subnets: []cluster.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}}}
	n.Spec.Name, n.Spec.Ingress = id, ingress
	for h.holds(cluster.UniqueVNI(n.VNI)) {
		n.VNI++
	}
	h.put(n)
}

// holder gives addresses of a network to a service without tasks, as virtual IPs are.
func (h *hive) holder(id, network string, first, last int64) {
	h.t.Helper()
	s := &cluster.Service{ID: id}
	s.Spec.Name = id
	for host := first; host <= last; host++ {
		s.VirtualIPs = append(s.VirtualIPs, cluster.Address{VNI: h.db.View().Network(network).VNI, Host: cluster.Host(host)})
	}
	h.put(s)
}

func (h *hive) apply(change cluster.Change) {
	h.t.Helper()
	h.update(func(tx *store.Tx) error {
		if err := address.Provide(tx.View, tx.Service(change.Service.ID), change.Service); err != nil {
			return err
		}
		if change.Revision != nil {
			if err := tx.Put(change.Revision); err != nil {
				return err
			}
		}
		if change.Rollout != nil {
			if err := tx.Put(change.Rollout); err != nil {
				return err
			}
		} else if old := tx.Rollout(change.Service.ID); old != nil {
			tx.Delete(old)
		}
		return tx.Put(change.Service)
	})
}

// service creates or updates a service, by its name, which is its ID too.
func (h *hive) service(name string, set func(*swarm.ServiceSpec)) {
	h.t.Helper()
	v := h.db.View()
	old := v.Service(name)
	if old == nil {
		spec := serviceSpec(name)
		set(&spec)
		h.apply(cluster.CreateService(name, spec, ""))
		return
	}
	spec := copySpec(h.t, old.Spec)
	set(&spec)
	h.apply(cluster.UpdateService(old, v.Revision(name, old.Revision), v.Rollout(name), spec, ""))
}

func serviceSpec(name string) swarm.ServiceSpec {
	one := uint64(1)
	spec := swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: name},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "app:1"}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
	}
	return spec
}

// copySpec copies deeply, as a client does that reads a spec and sends it back.
func copySpec(t testing.TB, spec swarm.ServiceSpec) swarm.ServiceSpec {
	t.Helper()
	data, err := cluster.Encode(spec)
	if err != nil {
		t.Fatal(err)
	}
	var next swarm.ServiceSpec
	if err := cluster.Decode(data, &next); err != nil {
		t.Fatal(err)
	}
	return next
}

// rollback goes back to a revision, or to the previous spec when to is 0.
func (h *hive) rollback(name string, to uint64) error {
	v := h.db.View()
	s := v.Service(name)
	change, err := cluster.RollbackService(s, v.Revision(name, s.PreviousRevision), "", h.now)
	if to != 0 {
		revision := v.Revision(name, to)
		if revision == nil {
			return fmt.Errorf("revision %d: %w", to, cluster.ErrNotFound)
		}
		change, err = cluster.RollbackServiceTo(s, revision, "", h.now)
	}
	if err != nil {
		return err
	}
	h.apply(change)
	return nil
}

// rebalance moves a service's tasks to where they would be placed now.
func (h *hive) rebalance(name string) error {
	return h.rollout(name, cluster.RebalanceService)
}

// rollout changes a service's rollout.
func (h *hive) rollout(name string, change func(*cluster.Service, *cluster.Rollout, time.Time) (*cluster.Rollout, error)) error {
	v := h.db.View()
	rollout, err := change(v.Service(name), v.Rollout(name), h.now)
	if err == nil && rollout != v.Rollout(name) {
		h.put(rollout)
	}
	return err
}

func (h *hive) remove(name string) {
	h.t.Helper()
	h.update(func(tx *store.Tx) error {
		if r := tx.Rollout(name); r != nil {
			tx.Delete(r)
		}
		tx.Delete(tx.Service(name))
		return nil
	})
}

// report is what an agent says, taken in as the leader does.
func (h *hive) report(taskID string, state cluster.State, err string) {
	h.t.Helper()
	h.update(func(tx *store.Tx) error {
		t := tx.Task(taskID)
		if t == nil {
			return nil
		}
		status := cluster.TaskStatus{State: state, Message: state.String(), Err: err, Since: cluster.At(h.now)}
		if state == cluster.StateStarting {
			status.PID = 1 // The container runs, and isn't healthy yet.
		}
		if next := t.Advance(status, cluster.At(h.now)); next != nil {
			return tx.Put(next)
		}
		return nil
	})
}

// obey lets the agents of all nodes that are up do what they are told; a task
// whose image is "bad" fails instead of running, one of "stuck" never starts. It
// tells whether there was anything to do.
func (h *hive) obey() bool {
	h.t.Helper()
	did := false
	v := h.db.View()
	for t := range v.Tasks() {
		if next, err := h.obedient(v, t); next != t.Status.State {
			h.report(t.ID, next, err)
			did = true
		}
	}
	return did
}

// obedient is the state that an agent would bring the task to.
func (h *hive) obedient(v store.View, t *cluster.Task) (cluster.State, string) {
	n := v.Node(t.NodeID)
	if n == nil || n.Status.State == cluster.NodeDown || t.Status.State.Terminal() || !t.Assigned() {
		return t.Status.State, ""
	}
	image := v.Revision(t.ServiceID, t.Revision).Spec.ContainerSpec.Image
	switch {
	case !t.Live():
		return cluster.StateShutdown, ""
	case t.Desired == cluster.StateReady:
		return cluster.StateReady, ""
	case image == "bad":
		return cluster.StateFailed, "task: non-zero exit (1)"
	case image == "stuck":
		return cluster.StateStarting, ""
	case t.Desired == cluster.StateComplete && t.Status.State == cluster.StateRunning:
		return cluster.StateComplete, "" // a job's task
	}
	return cluster.StateRunning, ""
}

// advance moves the clock to the next wake, if there is one within limit, else by
// limit.
func (h *hive) advance(limit time.Duration) {
	end := h.now.Add(limit)
	if at, ok := h.loop.wakes.next(); ok && at.Before(end) {
		end = at
	}
	if end.After(h.now) {
		h.now = end
	}
}

// kept lists a service's revisions with their images.
func (h *hive) kept(service string) string {
	var b strings.Builder
	v := h.db.View()
	for r := range v.RevisionsOf(service) {
		fmt.Fprintf(&b, "%d %s", r.Number, r.Spec.ContainerSpec.Image)
		if s := v.Service(service); s != nil && r.Number == s.Revision {
			b.WriteString(" current")
		} else if s != nil && r.Number == s.PreviousRevision {
			b.WriteString(" previous")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// describe lists the tasks of a service, or of all.
func (h *hive) describe(service string) string {
	var b strings.Builder
	v := h.db.View()
	var tasks []*cluster.Task
	for t := range v.TasksByService() {
		if service == "" || t.ServiceID == service {
			tasks = append(tasks, t)
		}
	}
	slices.SortStableFunc(tasks, func(a, b *cluster.Task) int {
		if a.ServiceID != b.ServiceID || a.Slot != b.Slot {
			return 0
		}
		if a.Slot == 0 && a.NodeID != b.NodeID {
			return strings.Compare(a.NodeID, b.NodeID)
		}
		return older(a, b)
	})
	for _, t := range tasks {
		node := t.NodeID
		if node == "" {
			node = "-"
		}
		b.WriteString(t.ServiceID)
		if t.Slot > 0 {
			fmt.Fprintf(&b, ".%d", t.Slot)
		}
		fmt.Fprintf(&b, " %s rev=%d %s %s/%s", t.ID, t.Revision, node, t.Desired, t.Status.State)
		if t.Desired == cluster.StateReady {
			fmt.Fprintf(&b, " [%s]", t.Status.Message)
		}
		if t.Status.Err != "" {
			fmt.Fprintf(&b, " (%s)", t.Status.Err)
		}
		for _, a := range t.Addresses {
			name := "?" // of a network that is gone
			if n := v.NetworkOfVNI(a.VNI); n != nil {
				name = n.Spec.Name
			}
			fmt.Fprintf(&b, " %s:%d", name, a.Host)
		}
		b.WriteString("\n")
	}
	if r := v.Rollout(service); r != nil {
		fmt.Fprintf(&b, "rollout: %s rev=%d (%s)\n", r.State, r.Revision, r.Message)
	}
	return b.String()
}
