package api

import (
	"context"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
)

// bridgeName is the option by which users name a bridge network's interface.
const bridgeName = "com.docker.network.bridge.name"

// EngineBridges names the machine's interfaces that are bridges of the engine's networks.
func (s *Server) EngineBridges(ctx context.Context) ([]string, error) {
	if s.engine.address == "" {
		return nil, nil
	}
	var networks []network.Summary
	if err := s.engine.get(ctx, "/networks", nil, &networks); err != nil {
		return nil, err
	}
	var names []string
	for _, n := range networks {
		switch name := n.Options[bridgeName]; {
		case n.Driver != "bridge":
		case name != "":
			names = append(names, name)
		case len(n.ID) >= 12:
			names = append(names, "br-"+n.ID[:12])
		}
	}
	return names, nil
}

// EngineSwarm is the ID of the node that the engine is in a swarm of its own; "" when it
// is in none. One that is locked, or can't go on, is in one too.
func (s *Server) EngineSwarm(ctx context.Context) (nodeID string, is bool, err error) {
	if s.engine.address == "" {
		return "", false, nil
	}
	var info system.Info
	if err := s.engine.get(ctx, "/info", nil, &info); err != nil {
		return "", false, err
	}
	state := info.Swarm.LocalNodeState
	return info.Swarm.NodeID, state != "" && state != "inactive", nil
}
