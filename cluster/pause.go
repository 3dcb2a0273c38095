package cluster

import (
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// PauseService pauses the service's rollout, which is nil when there is none. What has begun goes on
// to its end. One that is paused stays so.
func PauseService(s *Service, rollout *Rollout, _ time.Time) (*Rollout, error) {
	switch {
	case rollout == nil || rollout.Done():
		return nil, Errorf(ErrPrecondition, "service %s isn't being updated: there is nothing to pause", s.Spec.Name)
	case rollout.Paused():
		return rollout, nil
	}
	next := *rollout
	what := "update"
	next.State, next.Asked = swarm.UpdateStatePaused, true
	if rollout.RollingBack() {
		what, next.State = "rollback", swarm.UpdateStateRollbackPaused
	}
	if rollout.Rebalance {
		what = "rebalance"
	}
	next.Message = what + " paused by hand: `skep service resume " + s.Spec.Name + "` goes on"
	return &next, nil
}

// ResumeService goes on with the service's rollout that is paused, for whatever reason: it begins one
// to the same revision, which tries anew what had failed and doesn't pause after the first tasks.
// One that is under way goes on.
func ResumeService(s *Service, rollout *Rollout, now time.Time) (*Rollout, error) {
	switch {
	case rollout == nil || rollout.Done():
		return nil, Errorf(ErrPrecondition, "the update of service %s isn't paused: there is nothing to resume", s.Spec.Name)
	case !rollout.Paused():
		return rollout, nil
	case rollout.Rebalance:
		return RebalanceService(s, rollout, now)
	}
	next := Rollout{
		ServiceID: s.ID, State: swarm.UpdateStateUpdating, Revision: rollout.Revision, AtOnce: rollout.AtOnce, Resumed: true,
		StartedAt: now, Message: "update in progress",
	}
	if rollout.RollingBack() {
		next.State, next.Message = swarm.UpdateStateRollbackStarted, "rollback in progress"
	}
	return &next, nil
}
