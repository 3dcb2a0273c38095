package cluster

import (
	"fmt"

	"github.com/docker/docker/api/types/swarm"
)

// State is where a task is, or is wanted. States are ordered, and a task's
// observed state only ever increases. Numbers are Swarm's; the gaps leave room.
type State uint16

// The states of a task. Managers write New to Assigned, and Orphaned; the agent
// writes Accepted to Rejected. Remove is only ever desired.
const (
	StateNew       State = 0
	StatePending   State = 64
	StateAssigned  State = 192
	StateAccepted  State = 256
	StatePreparing State = 320
	StateReady     State = 384
	StateStarting  State = 448
	StateRunning   State = 512
	StateComplete  State = 576
	StateShutdown  State = 640
	StateFailed    State = 704
	StateRejected  State = 768
	StateRemove    State = 800
	StateOrphaned  State = 832
)

var stateNames = map[State]swarm.TaskState{
	StateNew:       swarm.TaskStateNew,
	StatePending:   swarm.TaskStatePending,
	StateAssigned:  swarm.TaskStateAssigned,
	StateAccepted:  swarm.TaskStateAccepted,
	StatePreparing: swarm.TaskStatePreparing,
	StateReady:     swarm.TaskStateReady,
	StateStarting:  swarm.TaskStateStarting,
	StateRunning:   swarm.TaskStateRunning,
	StateComplete:  swarm.TaskStateComplete,
	StateShutdown:  swarm.TaskStateShutdown,
	StateFailed:    swarm.TaskStateFailed,
	StateRejected:  swarm.TaskStateRejected,
	StateRemove:    swarm.TaskStateRemove,
	StateOrphaned:  swarm.TaskStateOrphaned,
}

// Terminal tells whether a task in this state has ended and won't change again
// (but for Orphaned, which may follow). A task whose desired state is after Complete
// is to be stopped: see Task.Live.
func (s State) Terminal() bool { return s > StateRunning }

// String gives the API's word for the state.
func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return string(name)
	}
	return fmt.Sprintf("state(%d)", uint16(s))
}

// ParseState is the inverse of String.
func ParseState(text string) (State, error) {
	for s, name := range stateNames {
		if string(name) == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("parse task state %q: %w", text, ErrInvalid)
}

// NodeState is what managers believe of a node.
type NodeState uint8

// The states of a node. Only Ready nodes get tasks; only Down ones lose theirs.
const (
	NodeUnknown NodeState = iota
	NodeDown
	NodeReady
	NodeDisconnected
)

// String gives the API's word for the state.
func (s NodeState) String() string {
	switch s {
	case NodeDown:
		return string(swarm.NodeStateDown)
	case NodeReady:
		return string(swarm.NodeStateReady)
	case NodeDisconnected:
		return string(swarm.NodeStateDisconnected)
	default:
		return string(swarm.NodeStateUnknown)
	}
}

// MessageUnhealthy is what the status of a task says whose container is unhealthy, and so is
// about to be stopped.
const MessageUnhealthy = "stopping: unhealthy container"
