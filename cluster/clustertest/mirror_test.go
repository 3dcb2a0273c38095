package clustertest

import (
	"fmt"
	"math/rand/v2"
	"reflect"

	"skep/cluster"
	"skep/store"
)

// mirror follows one manager's changes and has what it would have if none was
// missed, came twice, or came out of order: exactly what the database has.
type mirror struct {
	of      Manager
	sub     *store.Subscription
	objects map[string]any
	index   uint64
	updates *updates
	// lost takes the IDs of tasks whose node was called down.
	lost map[string]bool
	// told is what happened to services, in order; relisted is set when that has gaps.
	told     []string
	relisted bool
}

func newMirror(of Manager, lost map[string]bool) *mirror {
	m := &mirror{of: of, sub: of.Store().Subscribe(), lost: lost}
	_, view, _ := m.sub.Take()
	m.relist(view)
	return m
}

func (m *mirror) relist(view store.View) {
	m.objects, m.index = list(view), view.Index()
	m.updates = newUpdates()
}

// follow takes what has changed and tells what was wrong with it.
func (m *mirror) follow() error {
	changes, view, lost := m.sub.Take()
	if view.Index() < m.index {
		return fmt.Errorf("changes went back from index %d to %d", m.index, view.Index())
	}
	m.index = view.Index()
	if lost {
		m.relisted = true
		m.relist(view)
		return nil
	}
	entry := uint64(0)
	for _, change := range changes {
		// What comes in one entry comes at once, in whatever order it stands there.
		if next := versionOf(change.After); next != 0 && next != entry {
			if wrong := m.updates.check(m.objects); wrong != nil {
				return fmt.Errorf("at index %d: %v", entry, wrong)
			}
			entry = next
		}
		object := change.After
		if object == nil {
			object = change.Before
		}
		key := keyOf(object)
		if had := m.objects[key]; had != change.Before {
			return fmt.Errorf("%s changed from %+v at index %d, but what was told before is %+v", key, change.Before, m.index, had)
		}
		if m.objects[key] = change.After; change.After == nil {
			delete(m.objects, key)
		}
		m.updates.take(change.Before, change.After, m.objects)
		if node, is := change.After.(*cluster.Node); is && node.Status.State == cluster.NodeDown {
			for _, object := range m.objects {
				if t, is := object.(*cluster.Task); is && t.NodeID == node.ID {
					m.lost[t.ID] = true
				}
			}
		}
		m.tell(change)
	}
	if wrong := m.updates.check(m.objects); wrong != nil {
		return fmt.Errorf("at index %d: %v", m.index, wrong)
	}
	have := list(view)
	for key, object := range have {
		if m.objects[key] != object {
			return fmt.Errorf("at index %d %s is %+v, and the changes end with %+v", m.index, key, object, m.objects[key])
		}
	}
	if len(have) != len(m.objects) {
		return fmt.Errorf("at index %d there are %d objects, and the changes say %d", m.index, len(have), len(m.objects))
	}
	return nil
}

// tell notes what happened to a service, as events should tell it.
func (m *mirror) tell(change store.Change) {
	before, _ := change.Before.(*cluster.Service)
	after, _ := change.After.(*cluster.Service)
	switch {
	case before == nil && after != nil:
		m.told = append(m.told, "create "+after.ID)
	case before != nil && after != nil:
		m.told = append(m.told, "update "+after.ID)
	case before != nil:
		m.told = append(m.told, "remove "+before.ID)
	}
}

// versionOf is the index of the entry that wrote the object; 0 for none.
func versionOf(object any) uint64 {
	if object == nil {
		return 0
	}
	return reflect.ValueOf(object).Elem().FieldByName("Version").Uint()
}

// keyOf names an object: its type, and what makes it unique.
func keyOf(object any) string {
	switch o := object.(type) {
	case *cluster.Revision:
		return fmt.Sprintf("revision %s.%d", o.ServiceID, o.Number)
	case *cluster.Rollout:
		return "rollout " + o.ServiceID
	}
	return fmt.Sprintf("%T %s", object, reflect.ValueOf(object).Elem().FieldByName("ID"))
}

func list(view store.View) map[string]any {
	objects := map[string]any{}
	add := func(object any) { objects[keyOf(object)] = object }
	if c := view.Cluster(); c != nil {
		add(c)
	}
	for o := range view.Nodes() {
		add(o)
	}
	for o := range view.Services() {
		add(o)
	}
	for o := range view.Revisions() {
		add(o)
	}
	for o := range view.Rollouts() {
		add(o)
	}
	for o := range view.Tasks() {
		add(o)
	}
	for o := range view.Secrets() {
		add(o)
	}
	for o := range view.Configs() {
		add(o)
	}
	for o := range view.Networks() {
		add(o)
	}
	for o := range view.Attachments() {
		add(o)
	}
	return objects
}

// onlooker watches all managers, and notes what must never be.
type onlooker struct {
	c       *Cluster
	random  *rand.Rand
	mirrors map[*Machine]*mirror
	// audiences listen to the events of each manager.
	audiences map[*Machine]*audience
	// looks counts the looks, since some things are looked at less often.
	looks int
	// digests has the state at each index, whoever had it; leaders who led in a term.
	digests map[uint64][32]byte
	leaders map[uint64]string
	wrong   map[string]bool
	// lost are tasks whose node was called down.
	lost map[string]bool
}

func look(c *Cluster, random *rand.Rand) *onlooker {
	return &onlooker{c: c, random: random, mirrors: map[*Machine]*mirror{}, audiences: map[*Machine]*audience{}, digests: map[uint64][32]byte{}, leaders: map[uint64]string{}, wrong: map[string]bool{}, lost: map[string]bool{}}
}

func (o *onlooker) look() {
	o.looks++
	for _, m := range o.c.Machines {
		running := m.manager()
		seen := o.mirrors[m]
		if seen != nil && seen.of != running {
			o.turn(m)
			seen = nil
		}
		if running == nil {
			continue
		}
		if seen == nil {
			o.mirrors[m] = newMirror(running, o.lost)
			o.audiences[m] = attend(m, rand.New(rand.NewPCG(o.random.Uint64(), 0)))
		} else if err := seen.follow(); err != nil {
			o.wrong[fmt.Sprintf("%s: %v", m.Name, err)] = true
			seen.relist(running.Store().View())
		}
		if health := running.Health(); health.Leader {
			if other := o.leaders[health.Term]; other != "" && other != m.Name {
				o.wrong[fmt.Sprintf("%s and %s lead in term %d", other, m.Name, health.Term)] = true
			}
			o.leaders[health.Term] = m.Name
		}
		if o.looks%10 != 0 {
			continue // What differs stays so; and this costs most.
		}
		view := running.Store().View()
		digest := view.Digest()
		if other, known := o.digests[view.Index()]; known && other != digest {
			o.wrong[fmt.Sprintf("%s: another state at index %d than somebody had before", m.Name, view.Index())] = true
		}
		o.digests[view.Index()] = digest
	}
}

// turn ends with a manager whose daemon ended.
func (o *onlooker) turn(m *Machine) {
	seen := o.mirrors[m]
	told := seen.told
	if seen.relisted {
		told = nil
	}
	for _, wrong := range o.audiences[m].leave(told) {
		o.wrong[wrong] = true
	}
	delete(o.mirrors, m)
	delete(o.audiences, m)
}

// end looks for the last time.
func (o *onlooker) end() {
	o.look()
	for m := range o.mirrors {
		o.turn(m)
	}
}
