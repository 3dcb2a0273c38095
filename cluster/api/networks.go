package api

import (
	"context"
	"strings"

	"github.com/docker/docker/api/types/network"

	"skep/cluster"
)

// Networks are the local engine's: the cluster has none of its own yet. An engine
// that is in a swarm of its own must not have its networks taken for ours, so
// the swarm scope is answered here: it is empty.

func (s *Server) listNetworks(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r)
	if err != nil {
		return response{}, err
	}
	if scopes := args.Get("scope"); len(scopes) == 1 && scopes[0] == "swarm" {
		return response{body: []network.Summary{}}, nil
	}
	return response{engine: true}, nil
}

func (s *Server) inspectNetwork(ctx context.Context, r *request) (response, error) {
	if r.query.Get("scope") == "swarm" {
		return response{}, fail(cluster.ErrNotFound, "network %s not found: skep has no networks of swarm scope yet", r.vars["id"])
	}
	return response{engine: true}, nil
}

func (s *Server) createNetwork(ctx context.Context, r *request) (response, error) {
	var wanted network.CreateRequest
	if err := r.decode(&wanted); err != nil {
		return response{}, err
	}
	if wanted.Driver == "overlay" || strings.EqualFold(wanted.Scope, "swarm") || wanted.Ingress {
		return response{}, unsupported("networks that span nodes (driver overlay, scope swarm, ingress)", "use a bridge network on each node, or the host's network")
	}
	return response{engine: true}, nil
}
