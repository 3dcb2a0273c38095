package api

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// rebalanceService has the scheduler move tasks of a service to where they would be
// placed now. How it goes is in the service's update status.
func (s *Server) rebalanceService(ctx context.Context, r *request) (response, error) {
	return changeRollout(ctx, r, cluster.RebalanceService)
}

// pauseService pauses the update of a service that is under way.
func (s *Server) pauseService(ctx context.Context, r *request) (response, error) {
	return changeRollout(ctx, r, cluster.PauseService)
}

// resumeService goes on with the update of a service that is paused.
func (s *Server) resumeService(ctx context.Context, r *request) (response, error) {
	return changeRollout(ctx, r, cluster.ResumeService)
}

// changeRollout writes what change makes of the rollout of the service that the path names; change
// returns it as it is when there is nothing to do.
func changeRollout(ctx context.Context, r *request, change func(*cluster.Service, *cluster.Rollout, time.Time) (*cluster.Rollout, error)) (response, error) {
	service, err := findService(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		now := tx.Service(service.ID)
		if now == nil {
			return fail(cluster.ErrNotFound, "service %s not found", r.vars("id"))
		}
		old := tx.Rollout(now.ID)
		rollout, err := change(now, old, tx.Now())
		if err != nil || rollout == old {
			return err
		}
		return tx.Put(rollout)
	})
	if err != nil {
		return response{}, err
	}
	// A rollout has no name, and no version that users know.
	noteOf(ctx).name(cluster.AuditedObject{Kind: "service", ID: service.ID, Name: clean(service.Spec.Name)})
	return response{body: swarm.ServiceUpdateResponse{}}, nil
}
