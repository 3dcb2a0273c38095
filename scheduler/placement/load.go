package placement

import "slices"

// manyShares is from how many nodes on a service's are found by a map.
const manyShares = 8

// load is where the tasks of one service are.
type load struct {
	service string
	shares  []share
	at      map[*Node]int // into shares; nil while they are few
	// idle is set while the ledger's row of idle loads has it.
	idle bool
	// floor is how many tasks every node that floorOf finds fit, and that has room, has at
	// least: else each replacement in a service that is on all nodes would look at all of them.
	floor   int32
	floorOf floorKey
	one     [1]share // room for the shares of a service that is on one node
}

// share is what one node has of a service.
type share struct {
	node *Node
	// wanted counts the tasks that are to go on; present also those that are to stop
	// and haven't yet.
	wanted, present int32
}

// loadOf finds the load of a service, or makes it.
func (l *Ledger) loadOf(service string) *load {
	s := l.loads[service]
	if s == nil {
		s = &load{service: service}
		s.shares = s.one[:0]
		l.loads[service] = s
		l.noteIdle(s)
	}
	return s
}

// noteIdle keeps an empty load for now: a service that is planned without a task gets
// some right after Settle, when the plan is written.
func (l *Ledger) noteIdle(s *load) {
	if !s.idle {
		s.idle = true
		l.idle = append(l.idle, s)
	}
}

// dropIdle drops the loads that were empty at the last Settle and still are.
func (l *Ledger) dropIdle() {
	for _, s := range l.idleBefore {
		if s.idle = false; len(s.shares) == 0 {
			delete(l.loads, s.service)
		}
	}
	clear(l.idleBefore)
	l.idleBefore, l.idle = l.idle, l.idleBefore[:0]
}

// on is the service's share on a node; zero when it has none. A nil load is one
// without tasks.
func (s *load) on(n *Node) share {
	if i := s.find(n); i >= 0 {
		return s.shares[i]
	}
	return share{}
}

func (s *load) find(n *Node) int {
	if s == nil {
		return -1
	}
	if s.at != nil {
		if i, ok := s.at[n]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(s.shares, func(s share) bool { return s.node == n })
}

func (s *load) add(n *Node, wanted, present int32) {
	i := s.find(n)
	if i < 0 {
		i = len(s.shares)
		s.shares = append(s.shares, share{node: n})
		switch {
		case s.at != nil:
			s.at[n] = i
		case len(s.shares) >= manyShares:
			s.at = make(map[*Node]int, 2*len(s.shares))
			for i, share := range s.shares {
				s.at[share.node] = i
			}
		}
	}
	one := &s.shares[i]
	one.wanted += wanted
	one.present += present
	s.floor = min(s.floor, one.wanted)
	if one.wanted != 0 || one.present != 0 {
		return
	}
	last := len(s.shares) - 1
	if s.at != nil {
		delete(s.at, n)
		if i != last {
			s.at[s.shares[last].node] = i
		}
	}
	s.shares[i] = s.shares[last]
	s.shares[last] = share{}
	s.shares = s.shares[:last]
}
