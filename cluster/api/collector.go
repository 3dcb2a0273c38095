package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"skep/cluster"
	"skep/store"
)

const (
	// logIdle is how long a task's log may say nothing before it is given up, when
	// it isn't followed: its node may be gone.
	logIdle = 10 * time.Second
	// logRetry is waited before a followed log that broke off is taken up again.
	logRetry = time.Second
	// logReaders is how many tasks' logs are read at once, when not followed.
	logReaders = 32
)

// collector reads the logs of some tasks at once and hands their lines over one
// after the other.
type collector struct {
	server  *Server
	manager Manager
	query   logQuery
	lines   chan taskLines
	slots   chan struct{} // bounds readers; nil when following, since all are needed
	readers sync.WaitGroup
	started map[string]bool // by task ID
}

// taskLines are lines of one task.
type taskLines struct {
	task  *cluster.Task
	lines []cluster.LogLine
}

// streamLogs answers with the logs of the tasks that list gives and, when it
// follows, of those that come later and that wanted accepts.
func (s *Server) streamLogs(r *request, query logQuery, wanted func(*cluster.Task) bool, list func(store.View) []*cluster.Task) response {
	return response{stream: func(ctx context.Context, w http.ResponseWriter) {
		writer := newLogWriter(w, query, r.before("1.42"))
		writer.begin()
		ctx, cancel := context.WithCancel(ctx)
		c := &collector{server: s, manager: r.manager, query: query, lines: make(chan taskLines), started: map[string]bool{}}
		if !query.options.Follow {
			c.slots = make(chan struct{}, logReaders)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(ctx, wanted, list)
			c.readers.Wait()
		}()
		// Whoever reads must have ended before the request does.
		defer func() {
			cancel()
			<-done
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-done:
				return
			case part := <-c.lines:
				if writer.write(part) != nil {
					return // the client has gone
				}
			}
		}
	}}
}

// run starts a reader for each task, then, when following, for each new one until
// none can come any more.
func (c *collector) run(ctx context.Context, wanted func(*cluster.Task) bool, list func(store.View) []*cluster.Task) {
	changes := c.manager.Store().Subscribe()
	defer changes.Close()
	for _, task := range list(c.manager.Store().View()) {
		c.start(ctx, task, c.query.options)
	}
	// A task that starts later shows its log from the beginning.
	later := c.query.options
	later.Tail = noTail
	for c.query.options.Follow {
		if len(list(c.manager.Store().View())) == 0 {
			return // the service, or the task, is gone with all its tasks
		}
		select {
		case <-ctx.Done():
			return
		case <-changes.Ready():
		}
		news, view, lost := changes.Take()
		if lost {
			for _, task := range list(view) {
				c.start(ctx, task, later)
			}
			continue
		}
		for _, change := range news {
			if task, ok := change.After.(*cluster.Task); ok && wanted(task) {
				c.start(ctx, task, later)
			}
		}
	}
}

// hasLog tells whether a task has come so far that it may have written something.
func hasLog(task *cluster.Task) bool {
	state := task.Status.State
	return task.NodeID != "" && (task.Status.ContainerID != "" || (state >= cluster.StateStarting && state != cluster.StateRejected))
}

func (c *collector) start(ctx context.Context, task *cluster.Task, options cluster.LogOptions) {
	if c.started[task.ID] || !hasLog(task) {
		return
	}
	c.started[task.ID] = true
	c.readers.Go(func() {
		if c.slots != nil {
			select {
			case c.slots <- struct{}{}:
				defer func() { <-c.slots }()
			case <-ctx.Done():
				return
			}
		}
		c.read(ctx, task, options)
	})
}

// read hands over the log of one task. That it can't be read is said once, in a
// line of its own, and doesn't end the others. A followed log that breaks off is
// taken up again as long as the task is wanted.
func (c *collector) read(ctx context.Context, task *cluster.Task, options cluster.LogOptions) {
	warned := false
	for {
		last, err := c.readOnce(ctx, task, options)
		if err == nil || ctx.Err() != nil || containerGone(err) {
			return
		}
		if !warned {
			warned = true
			c.warn(ctx, task, err)
		}
		if !options.Follow {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(logRetry):
		}
		now := c.manager.Store().View().Task(task.ID)
		if now == nil || now.Status.State.Terminal() || !now.Live() {
			return
		}
		if last != 0 {
			options.Since, options.Tail = last.Add(1), noTail
			warned = false
		}
	}
}

// containerGone tells whether there is no log because there is no container any
// more: old tasks stay in the history when their containers are removed, and that
// is nothing to warn of. The error comes from an engine by way of its agent, as
// text.
func containerGone(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such container") || strings.Contains(text, "dead or marked for removal")
}

// readOnce reads the log of a task to its end and returns the time of the last line.
func (c *collector) readOnce(ctx context.Context, task *cluster.Task, options cluster.LogOptions) (last cluster.Time, err error) {
	node := c.manager.Store().View().Node(task.NodeID)
	switch {
	case node == nil:
		return 0, errors.New("its node was removed")
	case node.Status.State == cluster.NodeDown:
		return 0, errors.New("its node is down")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(logIdle, func() {
		if !options.Follow {
			cancel(fmt.Errorf("its node said nothing for %s", logIdle))
		}
	})
	defer idle.Stop()
	err = c.manager.Logs(ctx, task.NodeID, task.ID, options, func(lines []cluster.LogLine) error {
		idle.Stop() // a slow reader of ours isn't the node's fault
		defer idle.Reset(logIdle)
		if len(lines) == 0 {
			return nil
		}
		last = lines[len(lines)-1].Time
		return c.hand(ctx, task, lines)
	})
	if err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		err = context.Cause(ctx)
	}
	return last, err
}

func (c *collector) hand(ctx context.Context, task *cluster.Task, lines []cluster.LogLine) error {
	select {
	case c.lines <- taskLines{task: task, lines: lines}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// warn puts a line about the task's log where the log would be: as an error in
// the stream it would end the client.
func (c *collector) warn(ctx context.Context, task *cluster.Task, err error) {
	c.server.Log.Debug("log can't be read", "task", task.ID, "node", task.NodeID, "error", err)
	text := fmt.Sprintf("skep: the log of task %s on node %s can't be read: %v\n", task.ID, task.NodeID, err)
	// When the client has gone, nobody needs the warning.
	_ = c.hand(ctx, task, []cluster.LogLine{{Stderr: c.query.options.Stderr, Time: cluster.At(c.server.Now()), Data: []byte(text)}})
}
