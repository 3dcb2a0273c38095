package scheduler

import (
	"slices"

	"skep/cluster"
)

// reapHistory deletes the oldest tasks of each slot that are over. As many stay
// as the cluster's limit says, the wanted one included; more where the restart
// policy counts attempts, the back-off ends in a row, or the running rollout
// failures; and the first task that the rollout made in the slot, whose outcome
// says how far it has come. A record stays while its addresses rest.
func (w *servicePlan) reapHistory(r *rollout) {
	if w.history < 0 {
		return
	}
	policy := restartPolicyOf(w.current)
	limit := max(w.history, policy.attempts+1, w.backoff().ends(policy.delay)+1)
	for i := range w.slots {
		s := &w.slots[i]
		if len(s.tasks) <= 1 {
			continue
		}
		keep := limit - len(s.live)
		if s.created {
			keep--
		}
		displaced := r.displaced(s)
		for i := len(s.tasks) - 1; i >= 0; i-- {
			t := s.tasks[i]
			if t.Live() || t.Desired == cluster.StateRemove || w.completed(t) {
				continue
			}
			keep--
			// The newest one stays in any case: it may stand for a slot that is finished.
			if keep >= 0 || t == s.newest || t == displaced || !t.Dead() || !w.stopped(t) || r.counts(s, t) || r.running && len(s.rolling) > 0 && t == s.rolling[0] || w.resting(t) {
				continue
			}
			w.intend(&reap{TaskID: t.ID})
		}
	}
}

// reapRevisions deletes revisions that neither the service nor any task refers
// to, but for the last ones: users may go back to those.
func (v *serviceView) reapRevisions() {
	keep := v.revisions
	if runs, ok := cluster.LabelScheduleKeep.Of(v.service.Spec.Labels); ok {
		keep = runs
	}
	if v.service.LastRevision <= uint64(max(keep, 1)) {
		return
	}
	surplus := -keep
	for range v.View.RevisionsOf(v.id) {
		surplus++
	}
	if surplus <= 0 {
		return
	}
	referred := []uint64{v.service.Revision, v.service.PreviousRevision}
	for t := range v.View.TasksOfService(v.id) {
		if !slices.Contains(referred, t.Revision) {
			referred = append(referred, t.Revision)
		}
	}
	for r := range v.View.RevisionsOf(v.id) {
		if surplus--; surplus < 0 {
			return
		}
		if !slices.Contains(referred, r.Number) {
			v.intend(&reapRevision{ServiceID: v.id, Number: r.Number})
		}
	}
}

// reap deletes the record of a task that has ended.
type reap struct{ TaskID string }

// Apply does it while the task is over and unwanted, which nothing ever undoes.
func (r *reap) Apply(tx *Tx) error {
	if t := tx.Task(r.TaskID); t != nil && t.Dead() && !t.Live() {
		tx.Delete(t)
	}
	return nil
}

func (r *reap) String() string { return "reap " + r.TaskID }

// reapRevision deletes a revision that nothing refers to.
type reapRevision struct {
	ServiceID string
	Number    uint64
}

// Apply does it while the service doesn't refer to it. Tasks can't have come to,
// since only the service's revision gets new ones.
func (r *reapRevision) Apply(tx *Tx) error {
	if s := tx.Service(r.ServiceID); s != nil && (s.Revision == r.Number || s.PreviousRevision == r.Number) {
		return nil
	}
	for t := range tx.TasksOfService(r.ServiceID) {
		if t.Revision == r.Number {
			return nil
		}
	}
	if revision := tx.Revision(r.ServiceID, r.Number); revision != nil {
		tx.Delete(revision)
	}
	return nil
}

func (r *reapRevision) String() string {
	return "reap revision " + cluster.RevisionID(r.ServiceID, r.Number)
}

// reapRollout deletes the rollout of a service that is gone.
type reapRollout struct{ ServiceID string }

// Apply does it while there is no such service.
func (r *reapRollout) Apply(tx *Tx) error {
	if rollout := tx.Rollout(r.ServiceID); rollout != nil && tx.Service(r.ServiceID) == nil {
		tx.Delete(rollout)
	}
	return nil
}

func (r *reapRollout) String() string { return "reap rollout of " + r.ServiceID }
