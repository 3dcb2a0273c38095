package api

import (
	"context"

	"github.com/docker/docker/api/types/registry"

	"skep/cluster"
	"skep/cluster/imagewatch"
	"skep/store"
)

// newImageWatch makes what looks after the images of services, by the local engine and with the
// checks of an update that a client asks for.
func (s *Server) newImageWatch() *imagewatch.Watcher {
	ask := s.Registry
	if ask == nil {
		ask = func(ctx context.Context, image, auth string) (registry.DistributionInspect, error) {
			return s.distribution(ctx, APIVersion, image, auth)
		}
	}
	return imagewatch.New(imagewatch.Config{
		Ask: ask, Log: s.Log,
		Write: func(tx *store.Tx, old *cluster.Service, change cluster.Change) error {
			if err := fit(tx, old, &change.Service.Spec); err != nil {
				return err
			}
			return apply(tx, old, change)
		},
	})
}

// WatchImages looks after the images of services until ctx ends: it is what a leader does.
func (s *Server) WatchImages(ctx context.Context, database *store.Store) error {
	return s.images.Run(ctx, database)
}

// ImageProblems are the services of which WatchImages doesn't know what their image's tag names, and why.
func (s *Server) ImageProblems(view store.View) []string { return s.images.Problems(view, s.Now()) }
