package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// nameTries is how many generated names are tried before a number is added.
const nameTries = 8

func (s *Server) listServices(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, "name", "id", "label", "mode", "runtime")
	if err != nil {
		return response{}, err
	}
	status := false
	if !r.before("1.41") {
		if status, err = r.strictFlag("status"); err != nil {
			return response{}, err
		}
	}
	names, ids, labels, modes := args.Get("name"), args.Get("id"), args.Get("label"), args.Get("mode")
	view := r.manager.Store().View()
	return response{list: listOf(view.Services(), func(service *cluster.Service) bool {
		return anyPrefix(service.Spec.Name, names) && anyPrefix(service.ID, ids) && hasLabels(service.Spec.Labels, labels) &&
			anyOf(modeName(service.Spec.Mode), modes) && anyOf(string(swarm.RuntimeContainer), args.Get("runtime"))
	}, func(service *cluster.Service) swarm.Service {
		shown := renderService(view, service, false)
		if status {
			shown.ServiceStatus = renderStatus(view, service)
		}
		return shown
	})}, nil
}

func (s *Server) inspectService(ctx context.Context, r *request) (response, error) {
	defaults, err := r.strictFlag("insertDefaults")
	if err != nil {
		return response{}, err
	}
	view := r.manager.Store().View()
	service, err := findService(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	return response{body: renderService(view, service, defaults)}, nil
}

// readSpec reads and checks the service spec of a request; what is stored is what
// the client sent, but for the defaults that clients count on.
func (s *Server) readSpec(r *request) (swarm.ServiceSpec, error) {
	var spec swarm.ServiceSpec
	if err := r.decodeStrict(&spec); err != nil {
		return spec, err
	}
	adjustForVersion(r, &spec)
	normalize(&spec)
	return spec, nil
}

// readAuth gives the credentials to pull the image with. Some clients send
// nonsense when there are none: it is passed on as it is, as Swarm does.
func (s *Server) readAuth(r *request) string {
	auth := r.http.Header.Get(registry.AuthHeader)
	if auth == "" {
		return ""
	}
	var config registry.AuthConfig
	if err := json.NewDecoder(base64.NewDecoder(base64.URLEncoding, strings.NewReader(auth))).Decode(&config); err != nil {
		if unsaid, due := s.odd.Due(s.Now(), "credentials"); due {
			s.Log.Warn("registry credentials can't be read", "route", brief(r.http.URL.Path), "unsaid", unsaid)
		}
	}
	return auth
}

func (s *Server) createService(ctx context.Context, r *request) (response, error) {
	spec, err := s.readSpec(r)
	if err != nil {
		return response{}, err
	}
	generate := spec.Name == ""
	if generate {
		spec.Name = randomName(s.Random)
	}
	if err := checkServiceSpec(&spec); err != nil {
		return response{}, err
	}
	auth := s.readAuth(r)
	message, err := readMessage(r)
	if err != nil {
		return response{}, err
	}
	id := cluster.NewID(s.Random)
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		if err := fit(tx, nil, &spec); err != nil {
			return err
		}
		for try := 0; generate && tx.ServiceNamed(spec.Name) != nil; try++ {
			spec.Name = randomName(s.Random)
			if try > nameTries {
				spec.Name += "_" + cluster.NewID(s.Random)[:6]
			}
		}
		if same := tx.ServiceNamed(spec.Name); same != nil {
			return fail(cluster.ErrNameTaken, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service %s already exists", spec.Name)
		}
		change := cluster.CreateService(id, spec, auth)
		change.Revision.By, change.Revision.Message = cluster.Actor(ctx), message
		return apply(tx, nil, change)
	})
	if err != nil {
		return response{}, err
	}
	return response{status: http.StatusCreated, body: swarm.ServiceCreateResponse{ID: id}}, nil
}

// fit refuses a spec that doesn't go with what else the database has, and has it refer to
// networks by their IDs. old is the service as it is, nil when it is to be made. It is called
// in the transaction that writes the spec.
func fit(tx *store.Tx, old *cluster.Service, spec *swarm.ServiceSpec) error {
	if err := checkAllowed(tx, spec.Labels); err != nil {
		return err
	}
	if err := attach(tx.View, spec); err != nil {
		return err
	}
	if err := checkPresent(tx.View, spec); err != nil {
		return err
	}
	if err := checkDependencies(tx.View, spec); err != nil {
		return err
	}
	return checkNeighbours(tx.View, old, spec)
}

// apply writes what a request makes of a service: of old, or of none.
func apply(tx *store.Tx, old *cluster.Service, change cluster.Change) error {
	if err := address.Provide(tx.View, old, change.Service); err != nil {
		return err
	}
	if change.Revision != nil {
		if err := tx.Put(change.Revision); err != nil {
			return err
		}
	}
	if err := tx.Put(change.Service); err != nil {
		return err
	}
	if change.Rollout != nil {
		return tx.Put(change.Rollout)
	}
	if old := tx.Rollout(change.Service.ID); old != nil {
		tx.Delete(old)
	}
	return nil
}

func (s *Server) updateService(ctx context.Context, r *request) (response, error) {
	index, err := r.index("service")
	if err != nil {
		return response{}, err
	}
	var change changing
	switch rollback := r.query.Get("rollback"); rollback {
	case "", "none":
		if change, err = s.newSpec(r); err != nil {
			return response{}, err
		}
	case "previous":
		auth := s.readAuth(r)
		change = func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
			if old.Previous == nil {
				return cluster.Change{}, fail(cluster.ErrPrecondition, "service %s does not have a previous spec", old.ID)
			}
			previous := *old.Previous
			if err := fit(tx, old, &previous); errors.Is(err, cluster.ErrDenied) {
				return cluster.Change{}, err
			} else if err != nil {
				return cluster.Change{}, fail(cluster.ErrPrecondition, "service %s can't go back to its previous spec: %v", old.Spec.Name, err)
			}
			return cluster.RollbackService(old, tx.Revision(old.ID, old.PreviousRevision), auth, tx.Now())
		}
	default:
		return response{}, fail(cluster.ErrInvalid, "unrecognized rollback option %s", rollback)
	}
	return changeService(ctx, r, ifAt(index, "update", change))
}

// changing makes a change of a service as it is in a transaction.
type changing func(*store.Tx, *cluster.Service) (cluster.Change, error)

// ifAt is change, if the service still is as the client saw it, at version index; verb is what
// the client does.
func ifAt(index uint64, verb string, change changing) changing {
	return func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		if old.Version != index {
			return cluster.Change{}, fmt.Errorf("%s service %s: %w", verb, old.Spec.Name, cluster.ErrConflict)
		}
		return change(tx, old)
	}
}

// changeService makes and writes the change of the service that the path names.
func changeService(ctx context.Context, r *request, change changing) (response, error) {
	service, err := findService(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	message, err := readMessage(r)
	if err != nil {
		return response{}, err
	}
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old := tx.Service(service.ID)
		if old == nil {
			return fail(cluster.ErrNotFound, "service %s not found", r.vars("id"))
		}
		made, err := change(tx, old)
		if err != nil {
			return err
		}
		if made.Service.LastRevision > old.LastRevision {
			made.Revision.By, made.Revision.Message = cluster.Actor(ctx), message
		} else if message != "" {
			return fail(cluster.ErrInvalid, "this makes no new revision of service %s that could keep the message: leave it out", old.Spec.Name)
		}
		return apply(tx, old, made)
	})
	if err != nil {
		return response{}, err
	}
	return response{body: swarm.ServiceUpdateResponse{}}, nil
}

// newSpec reads an update with a new spec.
func (s *Server) newSpec(r *request) (changing, error) {
	spec, err := s.readSpec(r)
	if err != nil {
		return nil, err
	}
	if err := checkServiceSpec(&spec); err != nil {
		return nil, err
	}
	header, from := s.readAuth(r), r.query.Get("registryAuthFrom")
	if header == "" && from != "" && from != swarm.RegistryAuthFromSpec && from != swarm.RegistryAuthFromPreviousSpec {
		return nil, fail(cluster.ErrInvalid, "unsupported registryAuthFrom value")
	}
	return func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		switch {
		case spec.Name != old.Spec.Name:
			return cluster.Change{}, fail(cluster.ErrUnsupported, "renaming services is not supported")
		case modeName(spec.Mode) != modeName(old.Spec.Mode):
			return cluster.Change{}, fail(cluster.ErrUnsupported, "service mode change is not allowed")
		}
		if err := fit(tx, old, &spec); err != nil {
			return cluster.Change{}, err
		}
		current, auth := tx.Revision(old.ID, old.Revision), header
		if auth == "" {
			source := current
			if from == swarm.RegistryAuthFromPreviousSpec {
				if old.Previous == nil {
					return cluster.Change{}, fail(cluster.ErrPrecondition, "service %s does not have a previous spec", old.ID)
				}
				source = tx.Revision(old.ID, old.PreviousRevision)
			}
			if source != nil {
				auth = source.Auth
			}
		}
		return cluster.UpdateService(old, current, tx.Rollout(old.ID), spec, auth), nil
	}, nil
}

// removeService removes a service and orders its tasks removed in the same write,
// so that nobody sees tasks that are wanted by a service that is gone.
func (s *Server) removeService(ctx context.Context, r *request) (response, error) {
	service, err := findService(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	var tasks []*cluster.Task
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		service := tx.Service(service.ID)
		if service == nil {
			return fail(cluster.ErrNotFound, "service %s not found", r.vars("id"))
		}
		tasks = nil
		for task := range tx.TasksOfService(service.ID) {
			if task.Desired < cluster.StateRemove {
				next := *task
				next.Desired = cluster.StateRemove
				tasks = append(tasks, &next)
			}
		}
		for _, task := range tasks {
			if err := tx.Put(task); err != nil {
				return err
			}
		}
		if rollout := tx.Rollout(service.ID); rollout != nil {
			tx.Delete(rollout)
		}
		tx.Delete(service)
		return nil
	})
	if errors.Is(err, store.ErrUpdateTooLarge) {
		return response{}, fail(cluster.ErrPrecondition, "service %s has %d tasks, too many to remove at once: scale it to 0 first", service.Spec.Name, len(tasks))
	}
	return response{}, err
}

// modeName is the word for a service's mode in filters.
func modeName(mode swarm.ServiceMode) string {
	switch {
	case mode.Global != nil:
		return "global"
	case mode.ReplicatedJob != nil:
		return "replicated-job"
	case mode.GlobalJob != nil:
		return "global-job"
	default:
		return "replicated"
	}
}

// upToDate tells whether a task runs what its service wants now.
func upToDate(view store.View, task *cluster.Task) bool {
	service := view.Service(task.ServiceID)
	if service == nil {
		return false
	}
	switch {
	case service.Job():
		return task.Revision == service.Revision
	case service.Global() && !task.Live():
		// Clients wait for all tasks of a global service that are up to date, and can't
		// know that a node was drained or is down.
		return false
	}
	var node *cluster.Node
	if task.NodeID != "" {
		node = view.Node(task.NodeID)
	}
	return cluster.UpToDate(view.Revision(service.ID, task.Revision), view.Revision(service.ID, service.Revision), node)
}
