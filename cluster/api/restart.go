package api

import (
	"context"

	"skep/cluster"
	"skep/store"
)

// restartService replaces a service's tasks by others that run the same, as an update does
// or, with now=1, all at once.
func (s *Server) restartService(ctx context.Context, r *request) (response, error) {
	atOnce, err := r.strictFlag("now")
	if err != nil {
		return response{}, err
	}
	return changeService(ctx, r, func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		change, err := cluster.RestartService(old, tx.Revision(old.ID, old.Revision), tx.Rollout(old.ID), atOnce, tx.Now())
		if err != nil {
			return cluster.Change{}, err
		}
		// What the spec refers to may be gone since, or not be allowed any more.
		return change, fit(tx, old, &change.Service.Spec)
	})
}
