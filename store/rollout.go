package store

import (
	"iter"
	"time"

	"skep/cluster"
)

var rollouts = &kindOf[cluster.Rollout]{
	number: 5,
	word:   "rollout",
	key:    func(r *cluster.Rollout) string { return r.ServiceID },
	blank:  func(serviceID string) (*cluster.Rollout, error) { return &cluster.Rollout{ServiceID: serviceID}, nil },
	meta:   inMeta[cluster.Rollout](func(r *cluster.Rollout) *cluster.Meta { return &r.Meta }),
	times: func(r *cluster.Rollout) []time.Time {
		return []time.Time{r.CreatedAt, r.UpdatedAt, r.StartedAt, r.CompletedAt}
	},
	share: func(in *interner, r *cluster.Rollout) { in.share(&r.ServiceID) },
}

// Rollout finds the progress of a service's last update.
func (v View) Rollout(serviceID string) *cluster.Rollout { return rollouts.get(v, serviceID) }

// Rollouts lists all rollouts in the order of their services' IDs.
func (v View) Rollouts() iter.Seq[*cluster.Rollout] { return rollouts.list(v) }
