package scheduler

import (
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
)

// progress writes a service's rollout.
type progress struct {
	Rollout *cluster.Rollout
	// Seen is the version of the rollout that the plan knew; 0 for none.
	Seen uint64
}

// Apply does it unless somebody else wrote the rollout or the service wants
// another revision by now.
func (p *progress) Apply(tx *Tx) error {
	s, old := tx.Service(p.Rollout.ServiceID), tx.Rollout(p.Rollout.ServiceID)
	if s == nil || s.Revision != p.Rollout.Revision || version(old) != p.Seen {
		return nil
	}
	if err := tx.Put(p.Rollout); err != nil {
		return fmt.Errorf("write rollout of service %s: %w", p.Rollout.ServiceID, err)
	}
	return nil
}

func version(r *cluster.Rollout) uint64 {
	if r == nil {
		return 0
	}
	return r.Version
}

func (p *progress) String() string {
	return fmt.Sprintf("rollout %s: %s rev=%d total=%d (%s)", p.Rollout.ServiceID, p.Rollout.State, p.Rollout.Revision, p.Rollout.Total, p.Rollout.Message)
}

// abandon rolls a failed update back.
type abandon struct {
	ServiceID string
	// ServiceSeen and RolloutSeen are the versions that the plan knew.
	ServiceSeen, RolloutSeen uint64
	// Because says which failure it is for.
	Because string
}

func (a *abandon) message() string { return "update rolled back " + a.Because }

// Apply does it unless a user changed the service, or its update, in between, or
// removed a secret or config that the previous spec needs.
func (a *abandon) Apply(tx *Tx) error {
	s, rollout := tx.Service(a.ServiceID), tx.Rollout(a.ServiceID)
	if s == nil || s.Version != a.ServiceSeen || version(rollout) != a.RolloutSeen || missing(tx.View, s.Previous) != "" {
		return nil
	}
	change, err := cluster.AbandonUpdate(s, a.message(), tx.Now())
	if err != nil {
		return nil // There is nothing to go back to any more; the next plan pauses.
	}
	if err := address.Provide(tx.View, s, change.Service); err != nil {
		return a.pause(tx, rollout, err)
	}
	if err := tx.Put(change.Service); err != nil {
		return fmt.Errorf("roll back service %s: %w", a.ServiceID, err)
	}
	if err := tx.Put(change.Rollout); err != nil {
		return fmt.Errorf("roll back service %s: %w", a.ServiceID, err)
	}
	return nil
}

// pause leaves the update where it is, since the service can't go back: others have its
// previous ports or addresses by now. Whether they do only the transaction knows.
func (a *abandon) pause(tx *Tx, rollout *cluster.Rollout, why error) error {
	if rollout == nil {
		return nil
	}
	next := *rollout
	next.State = swarm.UpdateStatePaused
	next.Message = fmt.Sprintf("update paused %s; it isn't rolled back: %v", a.Because, why)
	if err := tx.Put(&next); err != nil {
		return fmt.Errorf("pause the update of service %s: %w", a.ServiceID, err)
	}
	return nil
}

func (a *abandon) String() string {
	return fmt.Sprintf("rollout %s: %s (%s)", a.ServiceID, swarm.UpdateStateRollbackStarted, a.message())
}
