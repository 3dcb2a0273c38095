package gossip

import (
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// states reads which members memberlist suspects. Its API doesn't tell: the State
// of the nodes that Members returns is never set, being shadowed by a private field
// of the same name (hashicorp/memberlist #266), and there is no event for it. So
// this reads the private field, under memberlist's own lock. statesOf checks the
// layout, and the tests check that a suspect is seen, so an upgrade that changes
// either can't go unnoticed.
type states struct {
	lock                *sync.RWMutex
	nodes               reflect.Value // []*nodeState, by reference
	name, state, number []int         // fields of nodeState
}

func statesOf(list *memberlist.Memberlist) (states, error) {
	private := reflect.ValueOf(list).Elem()
	lock, nodes := private.FieldByName("nodeLock"), private.FieldByName("nodes")
	if !lock.IsValid() || lock.Type() != reflect.TypeFor[sync.RWMutex]() ||
		!nodes.IsValid() || nodes.Kind() != reflect.Slice || nodes.Type().Elem().Kind() != reflect.Pointer ||
		nodes.Type().Elem().Elem().Kind() != reflect.Struct {
		return states{}, fmt.Errorf("read states of members: memberlist keeps its nodes in another way")
	}
	node := nodes.Type().Elem().Elem()
	name, hasName := node.FieldByName("Name")
	state, hasState := node.FieldByName("State")
	number, hasNumber := node.FieldByName("Incarnation")
	if !hasNumber || number.Type.Kind() != reflect.Uint32 || !hasName || name.Type.Kind() != reflect.String ||
		!hasState || state.Type != reflect.TypeFor[memberlist.NodeStateType]() || len(state.Index) != 1 {
		return states{}, fmt.Errorf("read states of members: memberlist keeps the state of a node in another way")
	}
	return states{
		lock:   (*sync.RWMutex)(lock.Addr().UnsafePointer()),
		nodes:  nodes,
		name:   name.Index,
		state:  state.Index,
		number: number.Index,
	}, nil
}

// newsTicker is what makes memberlist look for news to pass on: see calm.
func newsTicker(list *memberlist.Memberlist) (*time.Ticker, error) {
	// The first of the two is that of probes. Nobody changes them before the shutdown.
	tickers := reflect.ValueOf(list).Elem().FieldByName("tickers")
	if !tickers.IsValid() || tickers.Type() != reflect.TypeFor[[]*time.Ticker]() || tickers.Len() != 2 {
		return nil, fmt.Errorf("slow down gossip: memberlist keeps its tickers in another way")
	}
	return (*time.Ticker)(tickers.Index(1).UnsafePointer()), nil
}

// in gives the IDs of the members that are in a state now.
func (s states) in(state memberlist.NodeStateType) map[string]bool {
	s.lock.RLock()
	defer s.lock.RUnlock()
	var ids map[string]bool
	for i := range s.nodes.Len() {
		node := s.nodes.Index(i).Elem()
		if memberlist.NodeStateType(node.FieldByIndex(s.state).Int()) != state {
			continue
		}
		if ids == nil {
			ids = make(map[string]bool)
		}
		ids[node.FieldByIndex(s.name).String()] = true
	}
	return ids
}

// incarnation is the number of a node's last word about itself: whoever suspects it says
// which one it doubts.
func (s states) incarnation(nodeID string) (number uint32, here bool) {
	s.lock.RLock()
	defer s.lock.RUnlock()
	for i := range s.nodes.Len() {
		node := s.nodes.Index(i).Elem()
		if node.FieldByIndex(s.name).String() == nodeID {
			return uint32(node.FieldByIndex(s.number).Uint()), true
		}
	}
	return 0, false
}
