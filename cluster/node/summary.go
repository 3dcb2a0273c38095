package node

import (
	"fmt"

	"github.com/docker/docker/api/types/swarm"
)

// Serving is closed when the API can be asked, whether or not the node is a member by then.
func (n *Node) Serving() <-chan struct{} { return n.serving }

// Summary says in a line how the node is, for whoever runs its daemon.
func (n *Node) Summary() string {
	info := n.Info()
	text := string(info.LocalNodeState)
	member := n.current()
	switch {
	case info.LocalNodeState == swarm.LocalNodeStateInactive:
		text = "in no cluster yet"
		select {
		case <-n.ready:
		default:
			text = "starting" // It may be a member, and hasn't looked yet.
		}
	case info.LocalNodeState != swarm.LocalNodeStateActive || member == nil:
	case member.manager.Load() != nil:
		manager := member.manager.Load()
		health := manager.Health()
		text = "follower"
		switch {
		case health.Leader:
			text = "leader"
		case manager.LeaderID() == "":
			text = "manager without a leader"
		}
		text += fmt.Sprintf(", term %d, nodes: %d", health.Term, manager.Store().View().NodeCount())
	default:
		text = "worker"
	}
	if info.Error != "" {
		text += ": " + info.Error
	}
	return text
}
