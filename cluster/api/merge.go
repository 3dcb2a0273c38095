package api

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// maxMerged is how many logs are read at once: one node gives no more at a time.
	maxMerged = 256
	// mergeSlack is by how much the clock of a node may be behind that of the manager that
	// wrote when its task was made.
	mergeSlack = time.Minute
)

// source is a log that is being merged. Its reader is a goroutine, which waits when
// its lines aren't wanted yet.
type source struct {
	*taskLog
	// place is where it is among all logs, which sorts lines of the same moment.
	place int
	lines chan []cluster.LogLine
	head  []cluster.LogLine
}

// merge writes the lines of all logs in the order of the engines' times; those of one
// task always in its own order. A log is opened when the merge comes to the time at
// which its task was made, so that of a long history only what ran at the same time is
// read at once.
func (c *collector) merge(ctx context.Context, logs []*taskLog, options cluster.LogOptions, write func(taskLines) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer func() {
		cancel()
		readers.Wait()
	}()
	logs = slices.Clone(logs)
	slices.SortStableFunc(logs, func(a, b *taskLog) int { return cmp.Compare(a.task.CreatedAt, b.task.CreatedAt) })
	var heads sources
	fetch := func(s *source) {
		select {
		case lines, more := <-s.lines:
			if s.head = lines; more {
				heap.Push(&heads, s)
			}
		case <-ctx.Done():
		}
	}
	for opened := 0; ; {
		var begun []*source
		now := cluster.Time(0)
		switch {
		case len(heads) > 0:
			now = heads[0].head[0].Time
		case opened < len(logs):
			now = logs[opened].task.CreatedAt
		}
		for opened < len(logs) && len(heads)+len(begun) < maxMerged && logs[opened].task.CreatedAt.Add(-mergeSlack) <= now {
			s := &source{taskLog: logs[opened], place: opened, lines: make(chan []cluster.LogLine)}
			opened++
			begun = append(begun, s)
			readers.Go(func() {
				defer close(s.lines)
				c.read(ctx, s.taskLog, options, func(lines []cluster.LogLine) error {
					select {
					case s.lines <- lines:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
			})
		}
		for _, s := range begun {
			fetch(s)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(begun) > 0 {
			continue
		}
		if len(heads) == 0 {
			return nil
		}
		// As many lines as come before whatever else there is go at once.
		s := heap.Pop(&heads).(*source)
		until := cluster.Time(1<<63 - 1)
		if len(heads) > 0 {
			until = heads[0].head[0].Time
		}
		if opened < len(logs) && len(heads)+1 < maxMerged {
			until = min(until, logs[opened].task.CreatedAt.Add(-mergeSlack))
		}
		n := 1
		for n < len(s.head) && s.head[n].Time < until {
			n++
		}
		if err := write(taskLines{task: s.task, lines: s.head[:n]}); err != nil {
			return err
		}
		if s.head = s.head[n:]; len(s.head) > 0 {
			heap.Push(&heads, s)
		} else {
			fetch(s)
		}
	}
}

// sources is a heap with the earliest line at the top.
type sources []*source

func (h sources) Len() int { return len(h) }
func (h sources) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].head[0].Time, h[j].head[0].Time), cmp.Compare(h[i].place, h[j].place)) < 0
}
func (h sources) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is there for heap.Interface.
func (h *sources) Push(x any) { *h = append(*h, x.(*source)) }

// Pop removes the last one, for heap.Interface.
func (h *sources) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}

// tail keeps the last lines, as many as were asked for, but no more than bytes.
type tail struct {
	lines, bytes int
	parts        []taskLines
	kept, size   int
	total        int // how many lines were added
}

// cut is how many of the lines that were asked for have gone, since they are too large.
func (t *tail) cut() int { return min(t.lines, t.total) - t.kept }

// add takes lines in; it never fails.
func (t *tail) add(part taskLines) error {
	for i := range part.lines {
		t.size += part.lines[i].Size()
	}
	t.kept += len(part.lines)
	t.total += len(part.lines)
	if n := len(t.parts); n > 0 && t.parts[n-1].task == part.task {
		t.parts[n-1].lines = append(t.parts[n-1].lines, part.lines...)
	} else {
		t.parts = append(t.parts, taskLines{task: part.task, lines: slices.Clone(part.lines)})
	}
	for t.kept > t.lines || t.size > t.bytes {
		first := &t.parts[0]
		t.size -= first.lines[0].Size()
		t.kept--
		if first.lines = first.lines[1:]; len(first.lines) == 0 {
			t.parts = t.parts[1:]
		}
	}
	return nil
}
