package address

import (
	"time"

	"skep/cluster"
	"skep/store"
)

// Rest is how long the addresses of a task that has ended are given to nobody else. What still
// knows them then leads nowhere, and not to another task: names, which clients may keep for 5 s,
// and connections of UDP, which kernels keep for 30 s.
const Rest = 30 * time.Second

// RestsUntil is until when a task's addresses rest; 0 when it has none, or hasn't ended.
func RestsUntil(t *cluster.Task) cluster.Time {
	if len(t.Addresses) == 0 || !t.Status.State.Terminal() {
		return 0
	}
	return t.Status.Applied.Add(Rest)
}

// Kept tells whether the addresses of a task that has ended are for the next task of its slot:
// its service has static addresses, and no younger task of the slot got any.
func Kept(view store.View, t *cluster.Task) bool {
	if len(t.Addresses) == 0 || t.Desired == cluster.StateRemove {
		return false
	}
	s := view.Service(t.ServiceID)
	return s != nil && Static(s) && Predecessor(view, t).ID == t.ID
}

// Static tells whether the slots of a service keep their addresses over replacement.
func Static(s *cluster.Service) bool {
	static, _ := cluster.LabelStaticAddresses.Of(s.Spec.Labels)
	return static
}

// Predecessor finds the youngest task with addresses in the place of t: its slot, or in a global
// service its node.
func Predecessor(view store.View, t *cluster.Task) (found *cluster.Task) {
	tasks := view.TasksOfSlot(t.ServiceID, t.Slot)
	if t.Slot == 0 {
		tasks = view.TasksOfNode(t.NodeID)
	}
	for other := range tasks {
		if len(other.Addresses) == 0 || other.ServiceID != t.ServiceID || other.Slot != t.Slot {
			continue
		}
		if found == nil || younger(other, found) {
			found = other
		}
	}
	return found
}

// younger tells which of two tasks of a slot came later; where a clock stood still, the wanted
// one is younger.
func younger(a, b *cluster.Task) bool {
	if a.CreatedAt != b.CreatedAt {
		return a.CreatedAt > b.CreatedAt
	}
	if a.Live() != b.Live() {
		return a.Live()
	}
	return a.Version > b.Version
}

// inUse tells whether somebody has an address and keeps it for now. until is when it may be
// given to others, 0 when nobody knows.
func inUse(view store.View, h store.Holder, now cluster.Time) (used bool, until cluster.Time) {
	t := taskOf(view, h)
	if t == nil {
		return true, 0
	}
	if until = RestsUntil(t); until == 0 || Kept(view, t) {
		return true, 0
	}
	return until > now, until
}

// taskOf is nil when it is no task that has the address.
func taskOf(view store.View, h store.Holder) *cluster.Task {
	if h.Kind != taskKind {
		return nil
	}
	return view.Task(h.ID)
}

// taskKind is what the database calls tasks.
const taskKind = "task"

// Supply is what a network has of addresses, in one plan.
type Supply struct {
	Network *cluster.Network
	// Size is how many there are in all.
	Size  int
	given Range
	view  store.View
	now   cluster.Time
	// left is how many are free; at least so many, unless all were counted.
	left    int
	counted bool
	next    cluster.Time
	// behind is the number behind the last one that ForTask chose.
	behind cluster.Host
}

// SupplyOf is what a network has at a time, by a View.
func SupplyOf(view store.View, n *cluster.Network, now cluster.Time) *Supply {
	given := Of(n)
	s := &Supply{Network: n, Size: given.Size(), given: given, view: view, now: now}
	s.left = s.Size - view.AddressesIn(n.VNI)
	return s
}

// Left is how many addresses can be given, up to most.
func (s *Supply) Left(most int) int {
	if s.left < most && !s.counted {
		s.count()
	}
	return max(min(s.left, most), 0)
}

// Take counts one address as given.
func (s *Supply) Take() { s.left-- }

// Next is when the next address becomes free of which that is known; 0 for none.
func (s *Supply) Next() cluster.Time {
	if !s.counted {
		s.count()
	}
	return s.next
}

// count looks at each address that somebody has: those of tasks that ended are free after a
// while.
func (s *Supply) count() {
	// What was taken since SupplyOf isn't in the View.
	taken := s.Size - s.view.AddressesIn(s.Network.VNI) - s.left
	s.counted, s.left = true, s.Size-taken
	for host, holder := range s.view.AddressHolders(s.Network.VNI) {
		if !s.given.has(host) {
			continue
		}
		used, until := inUse(s.view, holder, s.now)
		if !used {
			continue
		}
		s.left--
		if until != 0 && (s.next == 0 || until < s.next) {
			s.next = until
		}
	}
}

// ForTask chooses an address for a task by the View of the transaction that writes it, and says
// which other task is to lose it; nil for none. It is false when there is none. For a service with
// static addresses it is the one of the task before it in its slot, once that has ended: the
// caller knows.
func (s *Supply) ForTask(view store.View, t *cluster.Task, before *cluster.Task, now cluster.Time) (a cluster.Address, from *cluster.Task, ok bool) {
	n := s.Network
	if before != nil {
		if host := cluster.AddressIn(before.Addresses, n.VNI); host != 0 {
			return cluster.Address{VNI: n.VNI, Host: host}, before, true
		}
	}
	taken := func(host cluster.Host) (used bool) {
		used, from = placeTaken(view, n, host, now)
		return used
	}
	// Numbers in a row are near one another in the database, too.
	host := s.behind
	if ok = s.given.has(host) && !taken(host); !ok {
		host, ok = s.given.Choose(t.ID, taken)
	}
	s.behind = host + 1
	return cluster.Address{VNI: n.VNI, Host: host}, from, ok
}

// placeTaken tells whether somebody has a place in a network and keeps it for now, or which task is to
// lose it; nil when nobody has it.
func placeTaken(view store.View, n *cluster.Network, host cluster.Host, now cluster.Time) (used bool, from *cluster.Task) {
	holder, held := view.Holder(cluster.UniqueAddress(cluster.Address{VNI: n.VNI, Host: host}))
	if !held {
		return false, nil
	}
	if used, _ = inUse(view, holder, now); used {
		return true, nil
	}
	return false, taskOf(view, holder)
}
