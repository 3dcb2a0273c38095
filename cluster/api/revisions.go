package api

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"skep/cluster"
	"skep/store"
)

// listRevisions tells which revisions of a service are kept, the newest first.
func (s *Server) listRevisions(ctx context.Context, r *request) (response, error) {
	view := r.manager.Store().View()
	service, err := findService(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	kept := slices.Collect(view.RevisionsOf(service.ID))
	slices.Reverse(kept)
	return response{list: listOf(slices.Values(kept), func(*cluster.Revision) bool { return true },
		func(revision *cluster.Revision) cluster.KeptRevision { return renderRevision(service, revision) })}, nil
}

func renderRevision(service *cluster.Service, revision *cluster.Revision) cluster.KeptRevision {
	shown := cluster.KeptRevision{
		Number: revision.Number, CreatedAt: revision.CreatedAt.UTC(),
		Current: revision.Number == service.Revision, Previous: revision.Number == service.PreviousRevision,
		By: revision.By, Message: revision.Message,
		TaskTemplate: revision.Spec, EndpointSpec: revision.Endpoint, Labels: orEmpty(revision.ServiceLabels),
	}
	if container := revision.Spec.ContainerSpec; container != nil {
		shown.Image = container.Image
	}
	if revision.Outcome != "" {
		shown.Message = strings.TrimPrefix(shown.Message+": "+revision.Outcome, ": ")
	}
	return shown
}

// readMessage is why a service is changed, as far as the client says it.
func readMessage(r *request) (string, error) {
	message, err := url.QueryUnescape(r.http.Header.Get(cluster.HeaderMessage))
	if err != nil {
		return "", fail(cluster.ErrInvalid, "%s: %v", cluster.HeaderMessage, err)
	}
	return message, cluster.CheckMessage(message)
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
	return changeService(ctx, r, ifAt(index, "roll back", func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		revision := tx.Revision(old.ID, to)
		if revision == nil {
			return cluster.Change{}, fail(cluster.ErrNotFound, "revision %d of service %s not found: `skep service history %s` lists those that are kept", to, old.Spec.Name, old.Spec.Name)
		}
		change, err := cluster.RollbackServiceTo(old, revision, auth, tx.Now())
		if err != nil {
			return cluster.Change{}, err
		}
		// What was right when the revision was made needn't be so with the rest of today's
		// spec, nor be allowed any more.
		if err := checkServiceSpec(&change.Service.Spec); err != nil {
			return cluster.Change{}, err
		}
		if err := fit(tx, old, &change.Service.Spec); err != nil {
			return cluster.Change{}, err
		}
		return change, nil
	}))
}
