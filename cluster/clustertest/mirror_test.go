package clustertest

import (
	"fmt"
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
}

func newMirror(of Manager) *mirror {
	m := &mirror{of: of, sub: of.Store().Subscribe()}
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
	return objects
}

// onlooker watches all managers, and notes what must never be.
type onlooker struct {
	c       *Cluster
	mirrors map[*Machine]*mirror
	// digests has the state at each index, whoever had it; leaders who led in a term.
	digests map[uint64][32]byte
	leaders map[uint64]string
	wrong   map[string]bool
}

func look(c *Cluster) *onlooker {
	return &onlooker{c: c, mirrors: map[*Machine]*mirror{}, digests: map[uint64][32]byte{}, leaders: map[uint64]string{}, wrong: map[string]bool{}}
}

func (o *onlooker) look() {
	for _, m := range o.c.Machines {
		running := m.manager()
		if running == nil {
			delete(o.mirrors, m)
			continue
		}
		seen := o.mirrors[m]
		if seen == nil || seen.of != running {
			o.mirrors[m] = newMirror(running)
		} else if err := seen.follow(); err != nil {
			o.wrong[fmt.Sprintf("%s: %v", m.Name, err)] = true
			seen.relist(running.Store().View())
		}
		view := running.Store().View()
		digest := view.Digest()
		if other, known := o.digests[view.Index()]; known && other != digest {
			o.wrong[fmt.Sprintf("%s: another state at index %d than somebody had before", m.Name, view.Index())] = true
		}
		o.digests[view.Index()] = digest
		if health := running.Health(); health.Leader {
			if other := o.leaders[health.Term]; other != "" && other != m.Name {
				o.wrong[fmt.Sprintf("%s and %s lead in term %d", other, m.Name, health.Term)] = true
			}
			o.leaders[health.Term] = m.Name
		}
	}
}
