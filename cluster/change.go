package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// Change is what a request makes of a service: the objects to write, all in one
// transaction. Its functions are pure, so whoever calls them has read the
// service inside that transaction and has checked the version the client gave.
type Change struct {
	// Service is to be put.
	Service *Service
	// Revision is to be put, before the service's tasks can refer to it; nil when
	// there is nothing to change about the revisions.
	Revision *Revision
	// Rollout is to be put. When it is nil, the service's rollout is to be deleted,
	// if there is one.
	Rollout *Rollout
}

// CreateService makes a new service. auth is the X-Registry-Auth value, if any.
func CreateService(id string, spec swarm.ServiceSpec, auth string) Change {
	service := &Service{ID: id, Spec: spec, Revision: 1, LastRevision: 1}
	return Change{Service: service, Revision: newRevision(service, auth)}
}

// UpdateService makes spec the spec of old, whose revision is current. auth is
// the X-Registry-Auth value that tasks pull with from now on: the client's, or
// the one of whichever revision the client named, or current.Auth.
//
// A spec that runs the same (see CompareRevisions) keeps the revision, so that no task
// restarts; a changed auth, label or port that all nodes publish is then put into that same
// revision. A change of nothing but the number of replicas is also
// made in the spec that a rollback goes back to, and so is no new rollback
// target; nor is a request that changes nothing, by which users resume a paused
// update. The rollout ends and the scheduler begins a new one if there is need,
// but one that is under way to the same revision goes on, and a paused one stays
// paused unless it is to be resumed; a rebalance ends.
//
// A job has a new revision whatever the spec, since each update runs it anew.
func UpdateService(old *Service, current *Revision, rollout *Rollout, spec swarm.ServiceSpec, auth string) Change {
	next := *old
	next.Spec = spec
	leaveImage(old, &next)
	change := Change{Service: &next}

	scaled := old.Spec
	scaled.Mode = spec.Mode
	onlyScaled := sameJSON(scaled, spec) && replicated(old.Spec.Mode) && replicated(spec.Mode)
	switch {
	case sameJSON(old.Spec, spec):
	case onlyScaled:
		if old.Previous != nil && replicated(old.Previous.Mode) {
			previous := *old.Previous
			previous.Mode = spec.Mode
			next.Previous = &previous
		}
	default:
		previous := old.Spec
		next.Previous, next.PreviousRevision = &previous, old.Revision
	}

	if current != nil && !next.Job() && runs(current, &spec) {
		change.Revision = adjusted(current, &spec, auth)
		if rollout != nil && rollout.Revision == next.Revision && !rollout.Done() && !rollout.Rebalance &&
			(!rollout.Paused() || !resumes(&old.Spec, &spec)) {
			kept := *rollout
			change.Rollout = &kept
		}
		return change
	}
	next.LastRevision++
	next.Revision = next.LastRevision
	change.Revision = newRevision(&next, auth)
	return change
}

// resumes tells whether an update that changes no task resumes one that is paused:
// one that changes nothing at all, as Docker's manual says, or how to update. A label
// or a number of replicas says nothing of the spec that failed.
func resumes(old, next *swarm.ServiceSpec) bool {
	return sameJSON(old, next) || !sameJSON(old.UpdateConfig, next.UpdateConfig) || !sameJSON(old.RollbackConfig, next.RollbackConfig) ||
		old.Labels[LabelPauseAfter.Name] != next.Labels[LabelPauseAfter.Name]
}

// RestartService replaces all tasks by others that run the same: an update to a spec that
// differs only by ForceUpdate, as a client would make it. With atOnce the update doesn't heed
// the service's parallelism and delay; it may still fail, and then does what the spec says.
func RestartService(old *Service, current *Revision, rollout *Rollout, atOnce bool, now time.Time) (Change, error) {
	if atOnce && old.Job() {
		return Change{}, Errorf(ErrUnsupported, "service %s is a job, and a job's update is done at once anyway, with as many tasks at a time as the job may have: leave out --now", old.Spec.Name)
	}
	spec := old.Spec
	spec.TaskTemplate.ForceUpdate++
	auth := ""
	if current != nil {
		auth = current.Auth
	}
	change := UpdateService(old, current, rollout, spec, auth)
	if atOnce {
		change.Rollout = &Rollout{
			ServiceID: old.ID, State: swarm.UpdateStateUpdating, Revision: change.Service.Revision,
			AtOnce: true, StartedAt: now, Message: "update in progress",
		}
	}
	return change, nil
}

// RollbackService goes back to the previous spec, as a user asks for it; asked
// again, it returns. A job runs anew, as in any update. previous is the revision old.PreviousRevision; auth is a new
// X-Registry-Auth value for it, or empty to keep the one it has.
func RollbackService(old *Service, previous *Revision, auth string, now time.Time) (Change, error) {
	if old.Previous == nil || previous == nil {
		return Change{}, fmt.Errorf("service %s does not have a previous spec: %w", old.ID, ErrPrecondition)
	}
	next := *old
	current := old.Spec
	next.Spec, next.Previous = *old.Previous, &current
	// The name isn't part of what is rolled back, since clients found the service by it.
	next.Spec.Name = old.Spec.Name
	next.Revision, next.PreviousRevision = old.PreviousRevision, old.Revision
	leaveImage(old, &next)
	if auth == "" {
		auth = previous.Auth
	}
	if next.Job() {
		next.LastRevision++
		next.Revision = next.LastRevision
		return Change{Service: &next, Revision: newRevision(&next, auth)}, nil
	}
	return Change{
		Service:  &next,
		Revision: adjusted(previous, &next.Spec, auth), // It may be the present one, with other labels or ports.
		Rollout: &Rollout{
			ServiceID: old.ID,
			State:     swarm.UpdateStateRollbackStarted,
			Revision:  next.Revision,
			StartedAt: now,
			Message:   "manually requested rollback",
		},
	}, nil
}

// AbandonUpdate goes back to the previous spec because the update to the present
// one failed; message says how. There is nothing to roll back to afterwards, so
// that two bad specs don't alternate. The scheduler calls it.
func AbandonUpdate(old *Service, message string, now time.Time) (Change, error) {
	if old.Previous == nil {
		return Change{}, fmt.Errorf("service %s does not have a previous spec: %w", old.ID, ErrPrecondition)
	}
	next := *old
	next.Spec = *old.Previous
	next.Spec.Name = old.Spec.Name
	next.Revision = old.PreviousRevision
	next.Previous, next.PreviousRevision = nil, 0
	leaveImage(old, &next)
	return Change{
		Service: &next,
		Rollout: &Rollout{
			ServiceID: old.ID,
			State:     swarm.UpdateStateRollbackStarted,
			Revision:  next.Revision,
			StartedAt: now,
			Message:   message,
		},
	}, nil
}

// RebalanceService begins to move the service's tasks to where they would be placed
// now. rollout is the service's present one. A rebalance that is under way goes on.
func RebalanceService(s *Service, rollout *Rollout, now time.Time) (*Rollout, error) {
	switch {
	case !replicated(s.Spec.Mode):
		return nil, Errorf(ErrInvalid, "service %s can't be rebalanced: only replicated services can, in others it is the node or the job that says where a task runs", s.Spec.Name)
	case rollout == nil || rollout.Done() || rollout.Rebalance && (rollout.Paused() || rollout.Return):
	case rollout.Rebalance:
		return rollout, nil
	case rollout.Paused():
		return nil, Errorf(ErrPrecondition, "service %s can't be rebalanced while its update is paused: update it or roll it back first", s.Spec.Name)
	default:
		return nil, Errorf(ErrPrecondition, "service %s can't be rebalanced while it is being updated: wait for the end of the update", s.Spec.Name)
	}
	return &Rollout{
		ServiceID: s.ID, State: swarm.UpdateStateUpdating, Revision: s.Revision, Rebalance: true,
		Total: uint32(max(s.Replicas(), 1)), StartedAt: now, Message: "rebalance in progress",
	}, nil
}

func newRevision(s *Service, auth string) *Revision {
	_, scheduled := s.Spec.Labels[LabelSchedule.Name]
	return &Revision{
		Idle:          s.Job() && scheduled,
		ServiceID:     s.ID,
		Number:        s.Revision,
		ServiceName:   s.Spec.Name,
		ServiceLabels: s.Spec.Labels,
		Spec:          s.Spec.TaskTemplate,
		Endpoint:      s.Spec.EndpointSpec,
		Job:           s.Job(),
		Auth:          auth,
	}
}

// runs tells whether a revision runs what spec asks for.
func runs(r *Revision, spec *swarm.ServiceSpec) bool {
	same, _ := CompareRevisions(r, &Revision{Spec: spec.TaskTemplate, Endpoint: spec.EndpointSpec, ServiceLabels: spec.Labels})
	return same
}

// adjusted is the revision with what is spec's and makes no other one of it; nil when it
// has all that.
func adjusted(r *Revision, spec *swarm.ServiceSpec, auth string) *Revision {
	if auth == r.Auth && spec.Name == r.ServiceName && sameJSON(spec.Labels, r.ServiceLabels) && sameJSON(spec.EndpointSpec, r.Endpoint) {
		return nil
	}
	same := *r
	same.Auth, same.ServiceName, same.ServiceLabels, same.Endpoint = auth, spec.Name, spec.Labels, spec.EndpointSpec
	return &same
}

func replicated(m swarm.ServiceMode) bool { return m.Replicated != nil }

// SameSpec tells whether two specs say the same.
func SameSpec(a, b *swarm.ServiceSpec) bool { return sameJSON(a, b) }

// sameJSON compares as clients do: an absent list and an empty one are the same,
// whichever of the two an encoding left behind.
func sameJSON(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	left, err := json.Marshal(a)
	if err != nil {
		return false
	}
	right, err := json.Marshal(b)
	return err == nil && bytes.Equal(left, right)
}
