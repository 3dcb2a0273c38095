package api

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func jobSpec(name string, labels map[string]string) swarm.ServiceSpec {
	return spec(name, func(s *swarm.ServiceSpec) {
		one := uint64(1)
		s.Mode, s.UpdateConfig, s.RollbackConfig = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}, nil, nil
		s.Labels = labels
	})
}

func TestJobs(t *testing.T) {
	b := newBench(t)
	list := func() map[string]cluster.JobState {
		var jobs []cluster.JobState
		b.do("GET", "/skep/v1/jobs", nil).want(t, 200, "").into(t, &jobs)
		found := map[string]cluster.JobState{}
		for _, j := range jobs {
			found[j.Name] = j
		}
		return found
	}
	b.create(spec("web"))
	dump := b.create(jobSpec("dump", map[string]string{"skep.schedule": "30 3 * * *", "skep.schedule.tz": "Europe/Berlin"}))
	b.create(jobSpec("once", nil))

	// One with a schedule has no run yet, one without has begun.
	now := list()
	if j := now["dump"]; len(now) != 2 || j.Run != 0 || j.Next.IsZero() || j.Next.Minute() != 30 || j.Zone != "Europe/Berlin" || j.Schedule != "30 3 * * *" || j.Outcome != "" {
		t.Errorf("%+v", now)
	}
	if j := now["once"]; j.Run != 1 || !j.Next.IsZero() || j.Began.IsZero() || j.Outcome != "0 completed" {
		t.Errorf("%+v", j)
	}
	if status := b.inspect(dump).JobStatus; status == nil || status.JobIteration.Index != 1 {
		t.Errorf("%+v", status)
	}

	// A run is a revision of its own; two at a time are refused, but where they replace each other.
	b.do("POST", "/skep/v1/jobs/dump/run", nil).want(t, 200, "")
	if r := b.view().Revision(dump, 2); r == nil || r.Idle || b.view().Service(dump).Revision != 2 || !r.Due.IsZero() {
		t.Fatalf("%+v", r)
	}
	b.do("POST", "/skep/v1/jobs/dump/run", nil).want(t, 400, "job dump is running, since ")
	b.do("POST", "/skep/v1/jobs/once/run", nil).want(t, 200, "")
	b.update(func(tx *store.Tx) error {
		r := *tx.Revision(dump, 2)
		r.Ended, r.Outcome = time.Unix(1_700_000_000, 0), "1 completed"
		return tx.Put(&r)
	})
	if j := list()["dump"]; j.Run != 2 || j.Outcome != "1 completed" || j.Ended.Unix() != 1_700_000_000 {
		t.Errorf("%+v", j)
	}
	b.do("POST", "/skep/v1/jobs/dump/run", nil).want(t, 200, "")

	// An update ends the run and begins none; what ran is remembered.
	s := b.inspect(dump).Spec
	s.Labels["skep.schedule.concurrency"] = "replace"
	b.post(dump, "", s).want(t, 200, "")
	if r := b.view().Revision(dump, 4); r == nil || !r.Idle {
		t.Errorf("%+v", r)
	}
	if j := list()["dump"]; j.Run != 3 || j.Outcome != "ended by an update" {
		t.Errorf("%+v", j)
	}
	var kept []cluster.KeptRevision
	b.do("GET", "/skep/v1/services/dump/revisions", nil).want(t, 200, "").into(t, &kept)
	if len(kept) != 4 || kept[2].Message != "1 completed" {
		t.Errorf("%+v", kept)
	}
	b.do("POST", "/skep/v1/jobs/dump/run", nil).want(t, 200, "")
	b.do("POST", "/skep/v1/jobs/dump/run", nil).want(t, 200, "")

	var why cluster.Why
	b.do("GET", "/skep/v1/services/dump/why", nil).want(t, 200, "").into(t, &why)
	if text := why.String(); !strings.Contains(text, "\nSchedule: 30 3 * * *, in Europe/Berlin; it runs next at "+why.Job.Next.Format(time.RFC3339)+"; the last run, begun at ") || !strings.Contains(text, ": 0 completed.\n") {
		t.Errorf("%s", text)
	}

	// Paused, there is no next time; an update doesn't change that.
	b.do("POST", "/skep/v1/jobs/dump/pause", nil).want(t, 200, "")
	b.do("GET", "/skep/v1/services/dump/why", nil).want(t, 200, "").into(t, &why)
	if text := why.String(); !strings.Contains(text, "it is paused: `skep job resume dump` goes on") || strings.Contains(text, "Nothing is in its way") {
		t.Errorf("%s", text)
	}
	if j := list()["dump"]; !j.Paused || !j.Next.IsZero() {
		t.Errorf("%+v", j)
	}
	b.post(dump, "", s).want(t, 200, "")
	if j := list()["dump"]; !j.Paused {
		t.Errorf("%+v", j)
	}
	before := b.view().Service(dump).Revision
	b.do("POST", "/skep/v1/jobs/dump/resume", nil).want(t, 200, "")
	if now := b.view().Service(dump); now.ScheduledSince.IsZero() || now.SchedulePaused || now.Revision != before {
		t.Errorf("%+v", now)
	}

	b.do("POST", "/skep/v1/jobs/once/pause", nil).want(t, 400, "job once has no schedule")
	b.do("POST", "/skep/v1/jobs/web/run", nil).want(t, 400, "service web is no job: it is replicated")
	b.do("POST", "/skep/v1/jobs/none/run", nil).want(t, 404, "service none not found")
	b.do("POST", "/services/create", spec("other", func(s *swarm.ServiceSpec) { s.Labels["skep.schedule"] = "@daily" })).want(t, 400, "label skep.schedule: it is for jobs: use --mode replicated-job or global-job")
	for label, value := range map[string]string{"skep.schedule.tz": "UTC", "skep.schedule.deadline": "1m", "skep.schedule.concurrency": "forbid", "skep.schedule.keep": "3"} {
		b.do("POST", "/services/create", jobSpec("other", map[string]string{label: value})).want(t, 400, "label "+label+": it has no meaning without skep.schedule")
	}
}
