package cluster

import "github.com/docker/docker/api/types/swarm"

// Network is one that services can be on.
type Network struct{ ID, Name, Driver string }

// predefined are the networks that each engine has of itself. As in Swarm, the cluster
// has one object for each kind, with an ID of its own, since those of the engines
// differ from node to node.
var predefined = []Network{
	{ID: "skepnetbridge000000000000", Name: "bridge", Driver: "bridge"},
	{ID: "skepnethost00000000000000", Name: "host", Driver: "host"},
	{ID: "skepnetnone00000000000000", Name: "none", Driver: "null"},
}

// LabelPredefined on a network says that it is each engine's own.
const LabelPredefined = "com.docker.swarm.predefined"

// PredefinedNetworks are the networks that each node has.
func PredefinedNetworks() []Network { return predefined }

// PredefinedNetwork finds a network that each node has, by its ID or name.
func PredefinedNetwork(ref string) (Network, bool) {
	for _, n := range predefined {
		if ref == n.ID || ref == n.Name {
			return n, true
		}
	}
	return Network{}, false
}

// NetworkMode is the name of the network that the tasks of a spec are on; empty means
// the engine's default.
func NetworkMode(task *swarm.TaskSpec) string {
	for _, attachment := range task.Networks {
		if n, ok := PredefinedNetwork(attachment.Target); ok {
			return n.Name
		}
	}
	return ""
}
