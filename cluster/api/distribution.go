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
	inspect, err := s.distribution(ctx, r.version, r.vars("name"), r.http.Header.Get(registry.AuthHeader))
	if err != nil {
		if ctx.Err() != nil {
			return response{}, fail(cluster.ErrUnavailable, "the registry of %s didn't answer within %s", r.vars("name"), distributionTimeout)
		}
		return response{}, err
	}
	return response{body: inspect}, nil
}

// distribution asks a registry through the local engine, in an API version as close to the one
// given as the engine has, with an X-Registry-Auth value if there is one.
func (s *Server) distribution(ctx context.Context, version, name, auth string) (inspect registry.DistributionInspect, err error) {
	header := http.Header{}
	if auth != "" {
		header.Set(registry.AuthHeader, auth)
	}
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	answer, err := s.engine.open(ctx, "/v"+s.engine.negotiateVersion(ctx, version)+"/distribution/"+strings.Join(parts, "/")+"/json", header)
	if err != nil {
		return inspect, err
	}
	defer answer.Body.Close()
	return inspect, decodeAnswer(answer, &inspect)
}
