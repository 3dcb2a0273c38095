package networks

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestCarrierOf_StaysOverARestart has the first of two that share an engine be in each state: it goes
// on to carry networks for both unless it is down, or has never come.
func TestCarrierOf_StaysOverARestart(t *testing.T) {
	for _, c := range []struct {
		name    string
		state   cluster.NodeState
		awaited bool
		stays   bool
	}{
		{"ready", cluster.NodeReady, false, true},
		{"without a session", cluster.NodeDisconnected, false, true},
		{"stopped in order", cluster.NodeUnknown, false, true},
		{"down", cluster.NodeDown, false, false},
		{"not yet here", cluster.NodeUnknown, true, false},
	} {
		first, second := &cluster.Node{ID: "a", Index: 1, Awaited: c.awaited}, &cluster.Node{ID: "b", Index: 2}
		for _, n := range []*cluster.Node{first, second} {
			n.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Network", Name: cluster.OverlayDriver}}
		}
		first.Status.State, second.Status.State = c.state, cluster.NodeReady
		if carrier := carrierOf([]*cluster.Node{first, second}); (carrier == first) != c.stays {
			t.Errorf("%s: %s carries", c.name, carrier.ID)
		}
	}
}
