package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// listRevisions tells which revisions of a service are kept, the newest first.
func (s *Server) listRevisions(ctx context.Context, r *request) (response, error) {
	view := r.manager.Store().View()
	service, err := findService(view, r.vars["id"])
	if err != nil {
		return response{}, err
	}
	revisions := []cluster.KeptRevision{}
	for revision := range view.RevisionsOf(service.ID) {
		revisions = append([]cluster.KeptRevision{renderRevision(service, revision)}, revisions...)
	}
	return response{body: revisions}, nil
}

func renderRevision(service *cluster.Service, revision *cluster.Revision) cluster.KeptRevision {
	shown := cluster.KeptRevision{
		Number: revision.Number, CreatedAt: revision.CreatedAt.UTC(),
		Current: revision.Number == service.Revision, Previous: revision.Number == service.PreviousRevision,
		TaskTemplate: revision.Spec, EndpointSpec: revision.Endpoint, Labels: orEmpty(revision.ServiceLabels),
	}
	if container := revision.Spec.ContainerSpec; container != nil {
		shown.Image = container.Image
	}
	return shown
}

// rollbackService goes back to the revision that the query names, whereas
// Docker's own route knows the previous one only.
func (s *Server) rollbackService(ctx context.Context, r *request) (response, error) {
	index, err := r.index("service")
	if err != nil {
		return response{}, err
	}
	text := r.query.Get("to")
	to, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return response{}, fail(cluster.ErrInvalid, "invalid revision '%s': %v", text, errors.Unwrap(err))
	}
	auth := s.readAuth(r)
	service, err := findService(r.manager.Store().View(), r.vars["id"])
	if err != nil {
		return response{}, err
	}
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old := tx.Service(service.ID)
		if old == nil {
			return fail(cluster.ErrNotFound, "service %s not found", r.vars["id"])
		}
		if old.Version != index {
			return fmt.Errorf("roll back service %s: %w", old.Spec.Name, cluster.ErrConflict)
		}
		revision := tx.Revision(old.ID, to)
		if revision == nil {
			return fail(cluster.ErrNotFound, "revision %d of service %s not found: `skep service history %s` lists those that are kept", to, old.Spec.Name, old.Spec.Name)
		}
		change, err := cluster.RollbackServiceTo(old, revision, auth, tx.Now())
		if err != nil {
			return err
		}
		// What was right when the revision was made needn't be so with the rest of today's
		// spec, nor be allowed any more.
		if err := checkServiceSpec(&change.Service.Spec); err != nil {
			return err
		}
		if err := checkPresent(tx.View, &change.Service.Spec); err != nil {
			return err
		}
		if err := checkNeighbours(tx.View, old, &change.Service.Spec); err != nil {
			return err
		}
		if err := checkAllowed(tx, change.Service.Spec.Labels); err != nil {
			return err
		}
		return apply(tx, change)
	})
	if err != nil {
		return response{}, err
	}
	return response{body: swarm.ServiceUpdateResponse{}}, nil
}
