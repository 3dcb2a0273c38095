package api

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
)

// showInfo is the engine's /info with our swarm in the place of its own. It works
// without an engine and without a leader.
func (s *Server) showInfo(ctx context.Context, r *request) (response, error) {
	own := s.swarmInfo()
	var info map[string]json.RawMessage
	err := s.engine.get(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/info", nil, &info)
	if err != nil {
		s.Log.Debug("info without the engine", "error", err)
		bare := system.Info{
			ID: own.NodeID, Name: s.Hostname, ServerVersion: s.Version, OSType: runtime.GOOS, Architecture: runtime.GOARCH,
			NCPU: runtime.NumCPU(), Swarm: own, RegistryConfig: &registry.ServiceConfig{},
			SystemTime: s.Now().UTC().Format("2006-01-02T15:04:05.999999999Z07:00"),
			Warnings:   append([]string{"WARNING: " + err.Error()}, own.Warnings...),
		}
		return response{body: bare}, nil
	}
	if info == nil {
		info = map[string]json.RawMessage{}
	}
	if info["Swarm"], err = json.Marshal(own); err != nil {
		return response{}, fmt.Errorf("encode swarm info: %w", err)
	}
	if len(own.Warnings) > 0 {
		var warnings []string
		if raw, ok := info["Warnings"]; ok {
			// What the engine sent was JSON; if it isn't a list, ours replace it.
			_ = json.Unmarshal(raw, &warnings)
		}
		if info["Warnings"], err = json.Marshal(append(warnings, own.Warnings...)); err != nil {
			return response{}, fmt.Errorf("encode warnings: %w", err)
		}
	}
	return response{body: info}, nil
}

// swarmInfo is the node's account of itself and, on a manager, what its own copy
// of the database says of the cluster. Join tokens are never part of it.
func (s *Server) swarmInfo() swarm.Info {
	info := s.Node.Info()
	if info.LocalNodeState == "" {
		info.LocalNodeState = swarm.LocalNodeStateInactive
	}
	manager := s.Node.Manager()
	if manager == nil {
		return info
	}
	if manager.LeaderID() == "" && info.Error == "" {
		info.Error = textNoLeader
	}
	view := manager.Store().View()
	record := view.Cluster()
	if record == nil {
		return info
	}
	shown := renderCluster(record)
	info.Cluster = &shown
	info.Nodes, info.Managers = 0, 0
	addManagers := len(info.RemoteManagers) == 0
	for node := range view.Nodes() {
		info.Nodes++
		if node.Role != swarm.NodeRoleManager {
			continue
		}
		info.Managers++
		if addManagers {
			info.RemoteManagers = append(info.RemoteManagers, swarm.Peer{NodeID: node.ID, Addr: node.ManagerAddr})
		}
	}
	return info
}
