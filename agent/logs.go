package agent

import (
	"context"
	"fmt"

	"skep/cluster"
)

const (
	// maxLogs is how many log requests one session may have open.
	maxLogs = 256
	// maxChunk is about how many bytes of lines go into one chunk, and maxLines how many
	// lines.
	maxChunk = 128 << 10
	maxLines = 1000
)

// reading is a request for a log that is being answered.
type reading struct {
	cluster.LogRequest
	cancel context.CancelFunc
	// underway is how many bytes were sent and not yet taken; credit receives when it
	// became less.
	underway int
	credit   chan struct{}
}

// startLogs answers a request for a log, in a goroutine of its own.
func (s *session) startLogs(inner context.Context, request cluster.LogRequest) {
	ctx, cancel := context.WithCancel(inner)
	r := &reading{LogRequest: request, cancel: cancel, credit: make(chan struct{}, 1)}
	s.logsMu.Lock()
	_, taken := s.logs[request.ID]
	full := taken || len(s.logs) >= maxLogs
	if !full {
		s.logs[request.ID] = r
	}
	s.logsMu.Unlock()
	s.reads.Go(func() {
		defer cancel()
		chunk := &cluster.LogChunk{ID: request.ID, Done: true}
		if full {
			chunk.Err = "too many logs are being read on this node; try again later"
			s.sendLogs(inner, chunk)
			return
		}
		err := s.readLogs(ctx, r)
		if ctx.Err() == nil {
			if err != nil {
				chunk.Err = err.Error()
			}
			s.sendLogs(ctx, chunk)
		}
		s.logsMu.Lock()
		delete(s.logs, request.ID)
		s.logsMu.Unlock()
	})
}

// cancelLogs ends a request.
func (s *session) cancelLogs(id uint64) {
	s.logsMu.Lock()
	defer s.logsMu.Unlock()
	if r := s.logs[id]; r != nil {
		r.cancel()
	}
}

// creditLogs notes that the manager has taken a part of an answer.
func (s *session) creditLogs(credit cluster.LogCredit) {
	s.logsMu.Lock()
	defer s.logsMu.Unlock()
	if r := s.logs[credit.ID]; r != nil {
		r.underway = max(r.underway-credit.Bytes, 0)
		cluster.Notify(r.credit)
	}
}

// awaitCredit waits until so many bytes more fit into the request's window; what is
// larger than the window goes alone.
func (s *session) awaitCredit(ctx context.Context, r *reading, size int) error {
	for {
		s.logsMu.Lock()
		fits := r.underway == 0 || r.underway+size <= r.Query.Window
		if fits {
			r.underway += size
		}
		s.logsMu.Unlock()
		if fits {
			return nil
		}
		select {
		case <-r.credit:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendLogs hands a chunk to the writer and waits until it takes it.
func (s *session) sendLogs(ctx context.Context, chunk *cluster.LogChunk) error {
	select {
	case s.outbox.logs <- chunk:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readLogs sends the lines of one request. When following, it waits for a
// container that hasn't been started yet, and ends when the task has.
func (s *session) readLogs(ctx context.Context, request *reading) error {
	limit := maxChunk
	if w := request.Query.Window; w > 0 {
		limit = min(limit, w/2)
	}
	emit := func(lines []cluster.LogLine) error {
		for len(lines) > 0 {
			var chunk []cluster.LogLine
			size := 0
			chunk, lines, size = cut(lines, limit)
			if request.Query.Window > 0 {
				if err := s.awaitCredit(ctx, request, size); err != nil {
					return err
				}
			}
			if err := s.sendLogs(ctx, &cluster.LogChunk{ID: request.ID, Lines: chunk}); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		var t task
		if !s.agent.call(func(held *taskSet) { t = held.look(request.TaskID) }) {
			return fmt.Errorf("read logs: the agent stops: %w", cluster.ErrUnavailable)
		}
		if !t.known {
			return fmt.Errorf("read logs: no such task: %s: %w", request.TaskID, cluster.ErrNotFound)
		}
		started := t.status.State >= cluster.StateRunning || t.status.PID != 0
		if started || !request.Query.Follow {
			if t.status.ContainerID == "" {
				return nil // it never wrote a line
			}
			return s.agent.cfg.Driver.Logs(ctx, request.TaskID, request.Query, emit)
		}
		select {
		case <-t.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// task is what a log request needs to know.
type task struct {
	known   bool
	status  cluster.TaskStatus
	changed <-chan struct{}
}

// look returns what is known of a task; changed is closed when that changes.
func (s *taskSet) look(taskID string) task {
	t := s.tasks[taskID]
	if t == nil || t.removing || t.tidied {
		return task{}
	}
	if s.changed[taskID] == nil {
		s.changed[taskID] = make(chan struct{})
	}
	return task{known: true, status: t.status, changed: s.changed[taskID]}
}

// wake lets log requests look at a task again.
func (s *taskSet) wake(taskID string) {
	if changed := s.changed[taskID]; changed != nil {
		close(changed)
		delete(s.changed, taskID)
	}
}

// cut takes as many lines as fit in a chunk of some bytes, at least a part of one, and
// tells their size. Attributes that are longer than a chunk may be are left out: the
// line matters more.
func cut(lines []cluster.LogLine, limit int) (chunk, rest []cluster.LogLine, size int) {
	for i := range lines[:min(len(lines), maxLines)] {
		line := &lines[i]
		if line.Size()-len(line.Data) > limit {
			line.Attrs = nil
		}
		if i == 0 && len(line.Data) > limit {
			part := *line
			part.Data, line.Data = line.Data[:limit:limit], line.Data[limit:]
			return []cluster.LogLine{part}, lines, part.Size()
		}
		if i > 0 && size+line.Size() > limit {
			return lines[:i], lines[i:], size
		}
		size += line.Size()
	}
	count := min(len(lines), maxLines)
	return lines[:count], lines[count:], size
}
