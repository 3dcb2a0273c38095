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
	// logMemory is about how many bytes of lines wait in this manager for one client;
	// each log has a part of it, but not less than leastWindow nor more than mostWindow.
	logMemory   = 16 << 20
	leastWindow = 64 << 10
	mostWindow  = 1 << 20
	// logBudget is about how many bytes of lines wait in this manager for all clients: six of
	// those with the most, or 1,500 logs that are followed. With what a collection of garbage
	// leaves behind that is 200 MB.
	logBudget = 96 << 20
)

// collector reads the logs of some tasks: first what is there, in the order of time;
// then, when following, what comes, as it comes.
type collector struct {
	server  *Server
	manager Manager
	query   logQuery
	writer  *logWriter
	// live takes what followed logs say.
	live    chan taskLines
	readers sync.WaitGroup
	// logs are those of the tasks that were begun, by task ID.
	logs map[string]*taskLog
}

// taskLog is how far the log of one task has been read. It belongs to the log's
// reader while there is one.
type taskLog struct {
	task *cluster.Task
	// last is the time of the last line that was read, 0 for none.
	last cluster.Time
	// warning is why the log couldn't be read to its end; empty when it could.
	warning string
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
		tasks := list(r.manager.Store().View())
		needs := historyBytes(tasks, query.options)
		if err := s.reserveLogs(needs); err != nil {
			s.writeError(w, r.http, err)
			return
		}
		history := sync.OnceFunc(func() { s.logBytes.Release(needs) })
		defer history()
		writer := newLogWriter(w, query, r.before("1.42"))
		writer.begin()
		ctx, cancel := context.WithCancel(ctx)
		c := &collector{server: s, manager: r.manager, query: query, writer: writer, live: make(chan taskLines), logs: map[string]*taskLog{}}
		// Whoever reads must have ended before the request does.
		defer func() {
			cancel()
			c.readers.Wait()
		}()
		changes := r.manager.Store().Subscribe()
		defer changes.Close()
		if c.history(ctx, tasks) == nil && query.options.Follow {
			history()
			c.follow(ctx, changes, wanted, list)
		}
	}}
}

// historyWindow is how many bytes of each of so many logs wait.
func historyWindow(logs int) int {
	return min(max(logMemory/max(min(logs, maxMerged), 1), leastWindow), mostWindow)
}

// historyBytes is how many bytes of lines wait at most while the history of the tasks is read.
func historyBytes(tasks []*cluster.Task, options cluster.LogOptions) int64 {
	logs := 0
	for _, task := range tasks {
		if hasLog(task) {
			logs++
		}
	}
	if logs == 0 || options.Tail == 0 {
		return leastWindow
	}
	bytes := historyWindow(logs) * min(logs, maxMerged)
	if options.Tail > 0 && logs > 1 {
		bytes += logMemory // See tail.
	}
	return int64(bytes)
}

// reserveLogs takes so many bytes of logBudget, for the caller to release.
func (s *Server) reserveLogs(bytes int64) error {
	if s.logBytes.TryAcquire(bytes) {
		return nil
	}
	return fail(cluster.ErrUnavailable, "logs that are being read may take %d MB of this manager's memory, and do: try again when some have been read, or read fewer at once", logBudget>>20)
}

// history writes what the tasks have written so far.
func (c *collector) history(ctx context.Context, tasks []*cluster.Task) error {
	var logs []*taskLog
	for _, task := range tasks {
		if hasLog(task) {
			log := &taskLog{task: task}
			logs = append(logs, log)
			c.logs[task.ID] = log
		}
	}
	options := c.query.options
	options.Follow = false
	options.Window = historyWindow(len(logs))
	write := c.writer.write
	var end tail
	if options.Tail >= 0 && len(logs) > 1 {
		end = tail{lines: options.Tail, bytes: logMemory}
		write = end.add
	}
	if options.Tail != 0 {
		if err := c.merge(ctx, logs, options, write); err != nil {
			return err
		}
	}
	for _, part := range end.parts {
		if err := c.writer.write(part); err != nil {
			return err
		}
	}
	if cut := end.cut(); cut > 0 {
		text := fmt.Sprintf("%d of the last %d lines aren't shown: they are more than %d MB together", cut, options.Tail, logMemory>>20)
		if err := c.say(logs[0].task, text); err != nil {
			return err
		}
	}
	for _, log := range logs {
		if log.warning != "" {
			if err := c.say(log.task, log.warning); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// say writes a line of ours where the lines of a task are: as an error in the stream
// it would end the client.
func (c *collector) say(task *cluster.Task, text string) error {
	line := cluster.LogLine{Stderr: c.query.options.Stderr, Time: cluster.At(c.server.Now()), Data: []byte("skep: " + text + "\n")}
	return c.writer.write(taskLines{task: task, lines: []cluster.LogLine{line}})
}

// follow goes on with the logs of history, and with each new one, until no more can
// come or the client has gone.
func (c *collector) follow(ctx context.Context, changes *store.Subscription, wanted func(*cluster.Task) bool, list func(store.View) []*cluster.Task) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, log := range c.logs {
		if log.task.Status.State.Terminal() {
			continue // It was read to its end.
		}
		options := c.query.options
		if options.Tail != 0 && log.warning == "" {
			options.Tail = noTail // The end of what there was is written.
		}
		if log.last != 0 {
			options.Since = log.last.Add(1)
		}
		c.start(ctx, log, options)
	}
	// A task that starts later shows its log from the beginning.
	later := c.query.options
	later.Tail = noTail
	begin := func(task *cluster.Task) {
		if c.logs[task.ID] == nil && hasLog(task) {
			c.logs[task.ID] = &taskLog{task: task}
			c.start(ctx, c.logs[task.ID], later)
		}
	}
	done := make(chan struct{})
	over := false
	for {
		if !over && len(list(c.manager.Store().View())) == 0 {
			// The service, or the task, is gone with all its tasks.
			over = true
			go func() {
				c.readers.Wait()
				close(done)
			}()
		}
		ready := changes.Ready()
		if over {
			ready = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-done:
			return
		case part := <-c.live:
			if c.writer.write(part) != nil {
				return // the client has gone
			}
		case <-ready:
			news, view, lost := changes.Take()
			if lost {
				for _, task := range list(view) {
					begin(task)
				}
				continue
			}
			for _, change := range news {
				if task, ok := change.After.(*cluster.Task); ok && wanted(task) {
					begin(task)
				}
			}
		}
	}
}

// hasLog tells whether a task has come so far that it may have written something.
func hasLog(task *cluster.Task) bool {
	state := task.Status.State
	return task.NodeID != "" && (task.Status.ContainerID != "" || (state >= cluster.StateStarting && state != cluster.StateRejected))
}

// start follows the log of one task. That it can't be read is said once, in a line of
// its own, and doesn't end the others. A log that breaks off is taken up again as long
// as the task is wanted.
func (c *collector) start(ctx context.Context, log *taskLog, options cluster.LogOptions) {
	options.Window = leastWindow
	hand := func(lines []cluster.LogLine) error {
		select {
		case c.live <- taskLines{task: log.task, lines: lines}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.readers.Go(func() {
		warned := log.warning != ""
		for {
			before := log.last
			if err := c.server.reserveLogs(leastWindow); err != nil {
				c.warn(log, err)
			} else {
				c.read(ctx, log, options, hand)
				c.server.logBytes.Release(leastWindow)
			}
			if log.warning == "" || ctx.Err() != nil {
				return
			}
			warned = warned && log.last == before
			if !warned {
				warned = true
				line := cluster.LogLine{Stderr: c.query.options.Stderr, Time: cluster.At(c.server.Now()), Data: []byte("skep: " + log.warning + "\n")}
				_ = hand([]cluster.LogLine{line}) // When the client has gone, nobody needs it.
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(logRetry):
			}
			now := c.manager.Store().View().Task(log.task.ID)
			if now == nil || now.Status.State.Terminal() || !now.Live() {
				return
			}
			if log.last != 0 {
				options.Since, options.Tail = log.last.Add(1), noTail
			}
		}
	})
}

// read reads the log of a task to its end, and notes how far it has come.
func (c *collector) read(ctx context.Context, log *taskLog, options cluster.LogOptions, hand func([]cluster.LogLine) error) {
	log.warning = ""
	after := log.last
	err := c.readOnce(ctx, log.task, options, func(lines []cluster.LogLine) error {
		// A driver whose times are coarser gives the lines of that moment again.
		for options.Since > 0 && len(lines) > 0 && lines[0].Time <= after {
			lines = lines[1:]
		}
		if len(lines) == 0 {
			return nil
		}
		log.last = max(log.last, lines[len(lines)-1].Time)
		return hand(lines)
	})
	if err != nil && ctx.Err() == nil && !containerGone(err) {
		c.warn(log, err)
	}
}

// warn notes why the log of a task can't be read.
func (c *collector) warn(log *taskLog, err error) {
	c.server.Log.Debug("log can't be read", "task", log.task.ID, "node", log.task.NodeID, "error", err)
	log.warning = fmt.Sprintf("the log of task %s on node %s can't be read: %v", log.task.ID, log.task.NodeID, err)
}

// containerGone tells whether there is no log because there is no container any
// more: old tasks stay in the history when their containers are removed, and that
// is nothing to warn of. The error comes from an engine by way of its agent, as
// text.
func containerGone(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such container") || strings.Contains(text, "dead or marked for removal")
}

// readOnce reads the log of a task to its end, or until it breaks off.
func (c *collector) readOnce(ctx context.Context, task *cluster.Task, options cluster.LogOptions, hand func([]cluster.LogLine) error) error {
	node := c.manager.Store().View().Node(task.NodeID)
	switch {
	case node == nil:
		return errors.New("its node was removed")
	case node.Status.State == cluster.NodeDown:
		return errors.New("its node is down")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(logIdle, func() {
		if !options.Follow {
			cancel(fmt.Errorf("its node said nothing for %s", logIdle))
		}
	})
	defer idle.Stop()
	err := c.manager.Logs(ctx, task.NodeID, task.ID, options, func(lines []cluster.LogLine) error {
		idle.Stop() // a slow reader of ours isn't the node's fault
		defer idle.Reset(logIdle)
		return hand(lines)
	})
	if err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		err = context.Cause(ctx)
	}
	return err
}
