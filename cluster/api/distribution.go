package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/docker/api/types/registry"

	"skep/cluster"
)

// distributionTimeout is how long a registry may take. The answer only pins the
// image to a digest; for a client that gets an error it is a warning, and it
// waits for us without a limit of its own.
const distributionTimeout = 5 * time.Second

// inspectDistribution asks a registry, through the local engine, for an image's
// digest and platforms, with the client's credentials.
func (s *Server) inspectDistribution(ctx context.Context, r *request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, distributionTimeout)
	defer cancel()
	header := http.Header{}
	if auth := r.http.Header.Get(registry.AuthHeader); auth != "" {
		header.Set(registry.AuthHeader, auth)
	}
	parts := strings.Split(r.vars("name"), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	answer, err := s.engine.open(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/distribution/"+strings.Join(parts, "/")+"/json", header)
	if err != nil {
		if ctx.Err() != nil {
			return response{}, fail(cluster.ErrUnavailable, "the registry of %s didn't answer within %s", r.vars("name"), distributionTimeout)
		}
		return response{}, err
	}
	defer answer.Body.Close()
	var inspect registry.DistributionInspect
	if err := decodeAnswer(answer, &inspect); err != nil {
		return response{}, err
	}
	return response{body: inspect}, nil
}
