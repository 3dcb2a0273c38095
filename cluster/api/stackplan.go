package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/placement"
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
	planned := make([]plannedService, 0, len(asked.Services))
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
	foreseeWaits(r.manager.Store().View(), s.Now(), asked.Remove, planned)
	shown := make([]cluster.PlannedService, 0, len(planned))
	for _, p := range planned {
		shown = append(shown, p.PlannedService)
	}
	return response{body: shown}, nil
}

// plannedService is what would become of a service, with the objects that it would be.
type plannedService struct {
	cluster.PlannedService
	service  *cluster.Service
	revision *cluster.Revision
	networks []*cluster.Network
}

// driverPlanned is that of networks which a plan has for those to be created.
const driverPlanned = "planned"

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
			n.Spec.DriverConfiguration = &swarm.Driver{Name: driverPlanned}
			if err := tx.Put(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// planService changes one service as its own request would, and tells what that is.
func planService(tx *store.Tx, spec *swarm.ServiceSpec) plannedService {
	planned := plannedService{PlannedService: cluster.PlannedService{Name: spec.Name, Action: cluster.PlanCreate}}
	old := tx.ServiceNamed(spec.Name)
	before := swarm.ServiceSpec{}
	if old != nil {
		planned.Action, before = cluster.PlanUpdate, old.Spec
	}
	refuse := func(err error) plannedService {
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
	planned.service, planned.revision = change.Service, change.Revision
	if planned.revision == nil {
		planned.revision = tx.Revision(change.Service.ID, change.Service.Revision)
	}
	for _, n := range present.TaskTemplate.Networks {
		found := tx.Network(n.Target)
		if found != nil && found.Driver() == driverPlanned {
			found = &cluster.Network{ID: found.ID, VNI: 1} // One that spans nodes, as nearly all that are created do.
		}
		if found != nil {
			planned.networks = append(planned.networks, found)
		}
	}
	return planned
}

// maxForeseen bounds for how many tasks nodes are looked for.
const maxForeseen = 10_000

// foreseeWaits says of services which of their tasks would find no node, by the scheduler's own
// placement, once the tasks that they replace have ended and the services to remove are gone.
func foreseeWaits(view store.View, now time.Time, removed []string, planned []plannedService) {
	ledger := placement.New()
	for node := range view.Nodes() {
		ledger.ChangeNode(nil, node)
	}
	next := map[string]*plannedService{}
	for i := range planned {
		if p := &planned[i]; p.service != nil {
			next[p.service.ID] = p
			ledger.ChangeService(nil, p.service)
		}
	}
	gone := map[string]bool{}
	for service := range view.Services() {
		if slices.Contains(removed, service.Spec.Name) {
			gone[service.ID] = true
		} else if next[service.ID] == nil {
			ledger.ChangeService(nil, service)
		}
	}
	for revision := range view.Revisions() {
		ledger.ChangeRevision(nil, revision)
	}
	kept := map[string]map[string]int{} // of each service that changes, how many tasks stay on which node
	for task := range view.Tasks() {
		p := next[task.ServiceID]
		if p != nil && p.Restarts {
			if service := p.service; service.Job() || !cluster.UpToDate(view.Revision(service.ID, task.Revision), p.revision, view.Node(task.NodeID)) {
				continue
			}
		}
		if gone[task.ServiceID] {
			continue
		}
		ledger.ChangeTask(nil, task)
		if p != nil && task.Live() {
			if kept[task.ServiceID] == nil {
				kept[task.ServiceID] = map[string]int{}
			}
			kept[task.ServiceID][task.NodeID]++
		}
	}
	around := placement.Surroundings{ServiceID: func(name string) string {
		for _, p := range next {
			if p.Name == name || p.service.ID == name {
				return p.service.ID
			}
		}
		if service, err := findService(view, name); err == nil {
			return service.ID
		}
		return ""
	}}
	if driver := view.Cluster().DefaultLogDriver(); driver != nil {
		around.LogDriver = driver.Name
	}
	left := maxForeseen
	for i := range planned {
		p := &planned[i]
		if p.service == nil || p.revision == nil {
			continue
		}
		ledger.ChangeRevision(nil, p.revision)
		around.Networks = p.networks
		requirement := ledger.Require(p.revision, around)
		stay := kept[p.service.ID]
		if p.service.Global() {
			p.Waits = globalWaits(view, ledger, &requirement, stay)
			continue
		}
		wanted := p.service.Replicas()
		if job := p.service.Spec.Mode.ReplicatedJob; job != nil {
			wanted = int(min(*job.MaxConcurrent, *job.TotalCompletions, maxForeseen))
		}
		for _, n := range stay {
			wanted -= n
		}
		wanted = min(wanted, left)
		if wanted <= 0 {
			continue
		}
		left -= wanted
		if found := len(ledger.Place(&requirement, wanted, now)); found < wanted {
			p.Waits = fmt.Sprintf("%d of %d tasks: %s", wanted-found, wanted, ledger.Explain(&requirement))
		}
	}
}

// globalWaits is foreseeWaits for the tasks of a service that has one on each node.
func globalWaits(view store.View, ledger *placement.Ledger, requirement *placement.Requirement, stay map[string]int) string {
	waits, wanted, last := 0, 0, ""
	for node := range view.Nodes() {
		if stay[node.ID] > 0 || !requirement.Meets(node) || !node.Schedulable() {
			continue
		}
		wanted++
		if _, why := ledger.PlaceOn(requirement, node.ID); why != "" {
			waits, last = waits+1, why
		}
	}
	if waits == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d tasks: %s", waits, wanted, last)
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
