package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// listJobs tells of all jobs, by name: when they run, and how they did.
func (s *Server) listJobs(ctx context.Context, r *request) (response, error) {
	view := r.manager.Store().View()
	found := slices.DeleteFunc(slices.Collect(view.Services()), func(s *cluster.Service) bool { return !s.Job() })
	slices.SortFunc(found, func(a, b *cluster.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	now := s.Now()
	return response{list: listOf(slices.Values(found), func(*cluster.Service) bool { return true }, func(service *cluster.Service) cluster.JobState {
		return jobState(view, service, now)
	})}, nil
}

// jobState is how a job stands at now.
func jobState(view store.View, service *cluster.Service, now time.Time) cluster.JobState {
	labels := service.Spec.Labels
	state := cluster.JobState{
		ID: service.ID, Name: service.Spec.Name, Mode: modeName(service.Spec.Mode), Paused: service.SchedulePaused,
		Schedule: labels[cluster.LabelSchedule.Name], Zone: labels[cluster.LabelScheduleZone.Name],
	}
	current := view.Revision(service.ID, service.Revision)
	if current == nil {
		return state
	}
	if schedule, scheduled := cluster.ScheduleOf(labels); scheduled && !service.SchedulePaused {
		state.Next = schedule.Next(now).UTC()
	}
	last := current
	if current.Idle { // The last run is of an earlier spec.
		last = nil
		for revision := range view.RevisionsOf(service.ID) {
			if !revision.Idle {
				last = revision
			}
		}
	}
	if last == nil {
		return state
	}
	state.Run, state.Due, state.Began, state.Ended, state.Outcome = last.Number, orZero(last.Due), last.CreatedAt.UTC(), orZero(last.Ended), last.Outcome
	switch {
	case state.Outcome != "":
	case last != current:
		state.Outcome = "ended by an update"
	default:
		state.Outcome = running(view, service)
	}
	return state
}

// running says how far the present run of a job is.
func running(view store.View, service *cluster.Service) string {
	status := renderStatus(view, service)
	text := cluster.RunOutcome(int(status.CompletedTasks), 0)
	if status.RunningTasks > 0 {
		text = fmt.Sprintf("%d running, %s", status.RunningTasks, text)
	}
	return text
}

func orZero(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// runJob runs a job now, besides its schedule if it has one.
func (s *Server) runJob(ctx context.Context, r *request) (response, error) {
	return changeJob(ctx, r, func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		current := tx.Revision(old.ID, old.Revision)
		schedule, scheduled := cluster.ScheduleOf(old.Spec.Labels)
		if scheduled && schedule.Concurrency == cluster.ConcurrencyForbid && current != nil && !current.Idle && current.Ended.IsZero() {
			return cluster.Change{}, fail(cluster.ErrPrecondition, "job %s is running, since %s: wait for its end, or set label %s=%s", old.Spec.Name,
				current.CreatedAt.UTC().Format(time.RFC3339), cluster.LabelScheduleConcurrency.Name, cluster.ConcurrencyReplace)
		}
		// What the spec refers to may be gone since, or not be allowed any more.
		if err := fit(tx, old, &old.Spec); err != nil {
			return cluster.Change{}, err
		}
		return cluster.RunJob(old, current, time.Time{}), nil
	})
}

// pauseJob has a scheduled job not run by itself any more.
func (s *Server) pauseJob(ctx context.Context, r *request) (response, error) {
	return changeJob(ctx, r, pausing(true))
}

// resumeJob has a scheduled job run by itself again, from its next time on.
func (s *Server) resumeJob(ctx context.Context, r *request) (response, error) {
	return changeJob(ctx, r, pausing(false))
}

func pausing(paused bool) changing {
	return func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		if _, scheduled := cluster.ScheduleOf(old.Spec.Labels); !scheduled {
			return cluster.Change{}, fail(cluster.ErrPrecondition, "job %s has no schedule: give it label %s", old.Spec.Name, cluster.LabelSchedule.Name)
		}
		next := *old
		if next.SchedulePaused != paused && !paused {
			next.ScheduledSince = tx.Now()
		}
		next.SchedulePaused = paused
		return cluster.Change{Service: &next}, nil
	}
}

// changeJob changes the job that the path names.
func changeJob(ctx context.Context, r *request, change changing) (response, error) {
	return changeService(ctx, r, func(tx *store.Tx, old *cluster.Service) (cluster.Change, error) {
		if !old.Job() {
			return cluster.Change{}, fail(cluster.ErrInvalid, "service %s is no job: it is %s", old.Spec.Name, modeName(old.Spec.Mode))
		}
		return change(tx, old)
	})
}

// checkSchedule refuses a schedule of what is no job, and labels about a schedule that there isn't.
func checkSchedule(spec *swarm.ServiceSpec) error {
	_, scheduled := cluster.LabelSchedule.Of(spec.Labels)
	if scheduled && spec.Mode.ReplicatedJob == nil && spec.Mode.GlobalJob == nil {
		return fail(cluster.ErrInvalid, "label %s: it is for jobs: use --mode replicated-job or global-job", cluster.LabelSchedule.Name)
	}
	for _, name := range []string{cluster.LabelScheduleConcurrency.Name, cluster.LabelScheduleDeadline.Name, cluster.LabelScheduleKeep.Name, cluster.LabelScheduleZone.Name} {
		if _, set := spec.Labels[name]; set && !scheduled {
			return fail(cluster.ErrInvalid, "label %s: it has no meaning without %s", name, cluster.LabelSchedule.Name)
		}
	}
	return nil
}
