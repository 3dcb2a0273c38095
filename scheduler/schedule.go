package scheduler

import (
	"fmt"
	"time"

	"skep/cluster"
)

// schedule writes what a run of a scheduled job came to, and begins the next one when it is due. A
// revision is a run, so which times were dealt with follows from the present one.
func (w *servicePlan) schedule() {
	s, scheduled := cluster.ScheduleOf(w.service.Spec.Labels)
	if !w.job || !scheduled {
		return
	}
	over := w.current.Idle || !w.current.Ended.IsZero()
	if completed, failed, ended := w.runOver(); !over && ended {
		over = true
		w.intend(&endRun{ServiceID: w.id, Number: w.current.Number, Outcome: cluster.RunOutcome(completed, failed)})
	}
	if w.service.SchedulePaused {
		return
	}
	from := cluster.Scheduled(w.service, w.current)
	if earliest := w.Now.Add(-s.Deadline - time.Nanosecond); earliest.After(from) {
		from = earliest
	}
	if due := s.Latest(from, w.Now); !due.IsZero() && (over || s.Concurrency == cluster.ConcurrencyReplace) {
		w.intend(&run{ServiceID: w.id, Seen: w.service.Version, Due: due})
		return
	}
	if next := s.Next(w.Now); !next.IsZero() {
		w.wakeAt(cluster.At(next))
	}
}

// runs tells whether there is to be any task of a job's revision that there isn't yet.
func (v *serviceView) runs() bool { return !v.current.Idle && v.current.Ended.IsZero() }

// runOver counts the slots of a job's run, and tells whether nothing more comes of them.
func (w *servicePlan) runOver() (completed, failed int, over bool) {
	for i := range w.slots {
		s := &w.slots[i]
		done := false
		for _, t := range s.tasks {
			if t.Revision != w.current.Number || t.Desired == cluster.StateRemove {
				continue
			}
			done = done || w.completed(t)
			if t.Live() && !t.Status.State.Terminal() || !w.stopped(t) {
				return 0, 0, false
			}
		}
		switch {
		case s.created:
			return 0, 0, false
		case done:
			completed++
		case s.newest != nil && !s.idle:
			failed++
		}
	}
	if w.global {
		return completed, failed, completed+failed > 0 && !w.filled
	}
	total, _ := w.service.Completions()
	return completed, failed, completed+failed >= total
}

// run begins a job's next run.
type run struct {
	ServiceID string
	// Seen is the version of the service that the plan knew: whatever began another run since, or
	// updated the job, changed it.
	Seen uint64
	Due  time.Time
}

// Apply does it unless the service was changed.
func (r *run) Apply(tx *Tx) error {
	s := tx.Service(r.ServiceID)
	if s == nil || s.Version != r.Seen {
		return nil
	}
	change := cluster.RunJob(s, tx.Revision(s.ID, s.Revision), r.Due)
	if err := tx.Put(change.Revision); err != nil {
		return fmt.Errorf("run job %s: %w", r.ServiceID, err)
	}
	if err := tx.Put(change.Service); err != nil {
		return fmt.Errorf("run job %s: %w", r.ServiceID, err)
	}
	return nil
}

func (r *run) String() string {
	return fmt.Sprintf("run %s, due at %s", r.ServiceID, r.Due.UTC().Format(time.DateTime))
}

// endRun writes what a run came to.
type endRun struct {
	ServiceID string
	Number    uint64
	Outcome   string
}

// Apply does it once.
func (e *endRun) Apply(tx *Tx) error {
	old := tx.Revision(e.ServiceID, e.Number)
	if old == nil || !old.Ended.IsZero() {
		return nil
	}
	next := *old
	next.Ended, next.Outcome = tx.Now(), e.Outcome
	if err := tx.Put(&next); err != nil {
		return fmt.Errorf("end run %s: %w", cluster.RevisionID(e.ServiceID, e.Number), err)
	}
	return nil
}

func (e *endRun) String() string {
	return fmt.Sprintf("end run %s: %s", cluster.RevisionID(e.ServiceID, e.Number), e.Outcome)
}
