package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// errPlanned ends a transaction that is only to tell what it would do.
var errPlanned = errors.New("this was a plan")

// planServices tells what changes of services would do, by making them in a transaction that
// then isn't written: so the checks, the defaults and what counts as another revision are those
// of the requests themselves.
func (s *Server) planServices(ctx context.Context, r *request) (response, error) {
	var asked cluster.PlanRequest
	if err := r.decodeStrict(&asked); err != nil {
		return response{}, err
	}
	for i := range asked.Services {
		adjustForVersion(r, &asked.Services[i])
		normalize(&asked.Services[i])
	}
	planned := make([]cluster.PlannedService, 0, len(asked.Services))
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		planned = planned[:0]
		if err := foresee(tx, &asked); err != nil {
			return err
		}
		for i := range asked.Services {
			planned = append(planned, planService(tx, &asked.Services[i]))
		}
		return errPlanned
	})
	if !errors.Is(err, errPlanned) {
		return response{}, err
	}
	return response{body: planned}, nil
}

// foresee does what a client would do before it changes services.
func foresee(tx *store.Tx, asked *cluster.PlanRequest) error {
	for _, name := range asked.Remove {
		if service := tx.ServiceNamed(name); service != nil {
			tx.Delete(service)
		}
	}
	for i, name := range asked.Networks {
		if tx.NetworkNamed(name) == nil {
			// On one without subnets services have no virtual IPs, which is all that it takes.
			n := &cluster.Network{ID: fmt.Sprint(cluster.PlannedID, i)}
			n.Spec.Name = name
			n.Spec.DriverConfiguration = &swarm.Driver{Name: "planned"}
			if err := tx.Put(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// planService changes one service as its own request would, and tells what that is.
func planService(tx *store.Tx, spec *swarm.ServiceSpec) cluster.PlannedService {
	planned := cluster.PlannedService{Name: spec.Name, Action: cluster.PlanCreate}
	old := tx.ServiceNamed(spec.Name)
	before := swarm.ServiceSpec{}
	if old != nil {
		planned.Action, before = cluster.PlanUpdate, old.Spec
	}
	refuse := func(err error) cluster.PlannedService {
		planned.Refused = err.Error()
		return planned
	}
	// References to what isn't there yet are checked as all others, but for being there.
	if err := checkServiceSpec(spec); err != nil {
		return refuse(err)
	}
	if old != nil && modeName(spec.Mode) != modeName(old.Spec.Mode) {
		return refuse(fail(cluster.ErrUnsupported, "service mode change is not allowed: remove the service first"))
	}
	present := withoutPlanned(*spec)
	if err := fit(tx, old, &present); err != nil {
		return refuse(err)
	}
	spec.TaskTemplate.Networks = present.TaskTemplate.Networks
	if old != nil {
		planned.Differences = diffSpecs(tx.View, &before, spec)
	}
	var change cluster.Change
	if old == nil {
		change = cluster.CreateService(cluster.PlannedID+spec.Name, *spec, "")
	} else {
		if cluster.SameSpec(&old.Spec, spec) {
			planned.Action = cluster.PlanUnchanged
			return planned
		}
		current := tx.Revision(old.ID, old.Revision)
		auth := ""
		if current != nil {
			auth = current.Auth
		}
		change = cluster.UpdateService(old, current, tx.Rollout(old.ID), *spec, auth)
		planned.Restarts = change.Service.Revision != old.Revision && (old.Job() || replaces(tx.View, old, change.Revision))
	}
	if change.Revision != nil {
		kept := *change.Revision
		kept.Spec = present.TaskTemplate // The database takes no reference to what it doesn't have.
		change.Revision = &kept
	}
	service := *change.Service
	service.Spec.TaskTemplate = present.TaskTemplate
	change.Service = &service
	if err := apply(tx, old, change); err != nil {
		return refuse(err)
	}
	return planned
}

// withoutPlanned is the spec without the references to what isn't there yet.
func withoutPlanned(spec swarm.ServiceSpec) swarm.ServiceSpec {
	if spec.TaskTemplate.ContainerSpec == nil {
		return spec
	}
	container := *spec.TaskTemplate.ContainerSpec
	container.Secrets = slices.DeleteFunc(slices.Clone(container.Secrets), func(ref *swarm.SecretReference) bool { return ref.SecretID == cluster.PlannedID })
	container.Configs = slices.DeleteFunc(slices.Clone(container.Configs), func(ref *swarm.ConfigReference) bool { return ref.ConfigID == cluster.PlannedID })
	spec.TaskTemplate.ContainerSpec = &container
	return spec
}

// diffSpecs is cluster.DiffSpecs, with networks by name, and without the IDs of secrets and configs
// that their names say.
func diffSpecs(view store.View, from, to *swarm.ServiceSpec) []cluster.Difference {
	before, after := byName(view, *from), byName(view, *to)
	return cluster.DiffSpecs(&before, &after)
}

func byName(view store.View, spec swarm.ServiceSpec) swarm.ServiceSpec {
	networks := slices.Clone(spec.TaskTemplate.Networks)
	for i, n := range networks {
		if found := view.Network(n.Target); found != nil {
			networks[i].Target = found.Spec.Name
		}
	}
	spec.TaskTemplate.Networks = networks
	if spec.TaskTemplate.ContainerSpec == nil {
		return spec
	}
	container := *spec.TaskTemplate.ContainerSpec
	container.Secrets, container.Configs = slices.Clone(container.Secrets), slices.Clone(container.Configs)
	for i, ref := range container.Secrets {
		if found := view.SecretNamed(ref.SecretName); found == nil || found.ID == ref.SecretID {
			same := *ref
			same.SecretID = ""
			container.Secrets[i] = &same
		}
	}
	for i, ref := range container.Configs {
		if found := view.ConfigNamed(ref.ConfigName); found == nil || found.ID == ref.ConfigID {
			same := *ref
			same.ConfigID = ""
			container.Configs[i] = &same
		}
	}
	spec.TaskTemplate.ContainerSpec = &container
	return spec
}

// replaces tells whether the service has tasks that another revision has in their place.
func replaces(view store.View, service *cluster.Service, revision *cluster.Revision) bool {
	for task := range view.TasksOfService(service.ID) {
		var node *cluster.Node
		if task.NodeID != "" {
			node = view.Node(task.NodeID)
		}
		if task.Live() && !cluster.UpToDate(view.Revision(service.ID, task.Revision), revision, node) {
			return true
		}
	}
	return false
}
