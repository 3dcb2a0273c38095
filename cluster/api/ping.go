package api

import (
	"context"
	"fmt"
	"net/http"
	"runtime"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// ping answers at once, whatever else works: clients negotiate with it.
func (s *Server) ping(ctx context.Context, r *request) (response, error) {
	info := s.Node.Info()
	state := string(info.LocalNodeState)
	if info.LocalNodeState == swarm.LocalNodeStateActive {
		state += "/worker"
		if info.ControlAvailable {
			state = "active/manager"
		}
	}
	return response{stream: func(ctx context.Context, w http.ResponseWriter) {
		header := w.Header()
		header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
		header.Set("Pragma", "no-cache")
		header.Set("Docker-Experimental", "false")
		header.Set("Swarm", state)
		header.Set("Content-Type", "text/plain; charset=utf-8")
		if r.http.Method == http.MethodHead {
			header.Set("Content-Length", "0")
			w.WriteHeader(http.StatusOK)
			return
		}
		_, _ = w.Write([]byte("OK")) // the client may have gone
	}}, nil
}

// showVersion is the engine's account of itself, when there is one, with ours
// beside it. The API versions at the top are ours: clients talk to us.
func (s *Server) showVersion(ctx context.Context, r *request) (response, error) {
	own := types.ComponentVersion{Name: "skep", Version: s.Version, Details: map[string]string{
		"ApiVersion": APIVersion, "MinAPIVersion": MinAPIVersion,
		"GoVersion": runtime.Version(), "Os": runtime.GOOS, "Arch": runtime.GOARCH,
	}}
	var version types.Version
	if err := s.engine.get(ctx, "/version", nil, &version); err != nil {
		s.Log.Debug("version without the engine", "error", err)
		version = types.Version{Version: s.Version, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
		engine := own
		engine.Name = "Engine"
		version.Components = []types.ComponentVersion{engine}
	}
	version.Platform.Name = "skep"
	version.Components = append(version.Components, own)
	version.APIVersion, version.MinAPIVersion = APIVersion, MinAPIVersion
	return response{body: version}, nil
}

// showStatus is the health of the cluster, for `skep cluster status`. Without a
// leader the asked manager answers for itself: it is needed most then.
func (s *Server) showStatus(ctx context.Context, r *request) (response, error) {
	manager := s.Node.Manager()
	if manager == nil {
		return response{}, s.notManager()
	}
	ctx, cancel := context.WithTimeout(ctx, s.Hold)
	defer cancel()
	status, err := manager.Status(ctx, r.http.URL.Query().Get("digests") == "1")
	if err != nil {
		return response{}, fmt.Errorf("read cluster status: %w", err)
	}
	if status.Managers == nil {
		status.Managers = []cluster.ManagerHealth{}
	}
	if status.Nodes == nil {
		status.Nodes = []cluster.NodeHealth{}
	}
	if status.Problems == nil {
		status.Problems = []string{}
	}
	return response{body: status}, nil
}
