package api

import (
	"context"
	"strconv"
	"time"

	timetypes "github.com/docker/docker/api/types/time"

	"skep/cluster"
	"skep/store"
)

// noTail asks for all lines.
const noTail = -1

// logQuery is what a client wants of logs.
type logQuery struct {
	options             cluster.LogOptions
	timestamps, details bool
	tty                 bool
}

func (s *Server) serviceLogs(ctx context.Context, r *request) (response, error) {
	query, err := s.readLogQuery(r)
	if err != nil {
		return response{}, err
	}
	view := r.manager.Store().View()
	service, err := findService(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	query.tty = service.Spec.TaskTemplate.ContainerSpec != nil && service.Spec.TaskTemplate.ContainerSpec.TTY
	return s.streamLogs(r, query, func(task *cluster.Task) bool { return task.ServiceID == service.ID },
		func(view store.View) []*cluster.Task {
			var tasks []*cluster.Task
			for task := range view.TasksOfService(service.ID) {
				if !task.Gone() {
					tasks = append(tasks, task)
				}
			}
			return tasks
		}), nil
}

func (s *Server) taskLogs(ctx context.Context, r *request) (response, error) {
	query, err := s.readLogQuery(r)
	if err != nil {
		return response{}, err
	}
	view := r.manager.Store().View()
	task, err := findTask(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	if revision := view.Revision(task.ServiceID, task.Revision); revision != nil && revision.Spec.ContainerSpec != nil {
		query.tty = revision.Spec.ContainerSpec.TTY
	}
	id := task.ID
	return s.streamLogs(r, query, func(task *cluster.Task) bool { return task.ID == id },
		func(view store.View) []*cluster.Task {
			if task := view.Task(id); task != nil {
				return []*cluster.Task{task}
			}
			return nil
		}), nil
}

// readLogQuery reads the query of a logs route.
func (s *Server) readLogQuery(r *request) (logQuery, error) {
	query := logQuery{timestamps: r.flag("timestamps"), details: r.flag("details")}
	query.options = cluster.LogOptions{Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Follow: r.flag("follow"), Tail: noTail}
	if !query.options.Stdout && !query.options.Stderr {
		return query, fail(cluster.ErrInvalid, "Bad parameters: you must choose at least one stream")
	}
	if text := r.query.Get("tail"); text != "" && text != "all" {
		tail, err := strconv.Atoi(text)
		switch {
		case err != nil:
			return query, fail(cluster.ErrInvalid, `tail value must be a positive integer or "all"`)
		case tail < 0:
			return query, fail(cluster.ErrInvalid, "negative tail values not supported")
		}
		query.options.Tail = tail
	}
	since, err := readTime(r, "since", s.Now())
	if err != nil {
		return query, err
	}
	query.options.Since = cluster.At(since)
	return query, nil
}

// readTime reads a point in time: seconds with fraction, RFC 3339, or a duration
// before now. Empty gives the zero time, and 0 doesn't.
func readTime(r *request, name string, now time.Time) (time.Time, error) {
	text := r.query.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	stamp, err := timetypes.GetTimestamp(text, now)
	if err == nil {
		var seconds, nanos int64
		if seconds, nanos, err = timetypes.ParseTimestamps(stamp, 0); err == nil {
			return time.Unix(seconds, nanos), nil
		}
	}
	return time.Time{}, fail(cluster.ErrInvalid, "invalid %s: %q is no time", name, text)
}
