package gossip

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/hashicorp/memberlist"
)

// states reads which members memberlist suspects. Its API doesn't tell: the State
// of the nodes that Members returns is never set, being shadowed by a private field
// of the same name (hashicorp/memberlist #266), and there is no event for it. So
// this reads the private field, under memberlist's own lock. statesOf checks the
// layout, and the tests check that a suspect is seen, so an upgrade that changes
// either can't go unnoticed.
type states struct {
	lock        *sync.RWMutex
	nodes       reflect.Value // []*nodeState, by reference
	name, state []int         // fields of nodeState
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
	if !hasName || name.Type.Kind() != reflect.String ||
		!hasState || state.Type != reflect.TypeFor[memberlist.NodeStateType]() || len(state.Index) != 1 {
		return states{}, fmt.Errorf("read states of members: memberlist keeps the state of a node in another way")
	}
	return states{
		lock:  (*sync.RWMutex)(lock.Addr().UnsafePointer()),
		nodes: nodes,
		name:  name.Index,
		state: state.Index,
	}, nil
}

// suspects gives the IDs of the members that are suspect now.
func (s states) suspects() map[string]bool {
	s.lock.RLock()
	defer s.lock.RUnlock()
	var suspects map[string]bool
	for i := range s.nodes.Len() {
		node := s.nodes.Index(i).Elem()
		if memberlist.NodeStateType(node.FieldByIndex(s.state).Int()) != memberlist.StateSuspect {
			continue
		}
		if suspects == nil {
			suspects = make(map[string]bool)
		}
		suspects[node.FieldByIndex(s.name).String()] = true
	}
	return suspects
}
