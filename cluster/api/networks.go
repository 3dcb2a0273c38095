package api

import (
	"github.com/docker/docker/api/types/network"

	"skep/cluster"
)

// Services refer to the networks that each engine has by objects of the cluster
// (cluster.PredefinedNetworks). As with Swarm they can be inspected but aren't listed: the
// engine's of the same names are.

// shortID is how long an ID is in the tables of Docker's command.
const shortID = 12

func noNetwork(ref string) error {
	return fail(cluster.ErrNotFound, "network %s not found", ref)
}

func renderPredefined(n cluster.EngineNetwork) network.Inspect {
	return network.Inspect{
		Name: n.Name, ID: n.ID, Scope: "swarm", Driver: n.Driver, IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Labels: map[string]string{cluster.LabelPredefined: "true"},
	}
}
