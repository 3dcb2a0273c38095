package api

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// written is a log of lines "TASK AT", at these seconds after the start.
func written(start time.Time, task string, at ...int) (lines []cluster.LogLine) {
	for _, second := range at {
		lines = append(lines, cluster.LogLine{
			Time: cluster.At(start.Add(time.Duration(second) * time.Second)), Data: fmt.Appendf(nil, "%s %d\n", task[len(task)-1:], second),
		})
	}
	return lines
}

// logsOf gives a manager's logs; those of tasks that aren't there are empty. The lines
// come one by one, and with a tail as many as were asked for.
func logsOf(all map[string][]cluster.LogLine) func(context.Context, string, string, cluster.LogOptions, func([]cluster.LogLine) error) error {
	return func(ctx context.Context, _, task string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
		lines := slices.DeleteFunc(slices.Clone(all[task]), func(l cluster.LogLine) bool { return l.Time < opts.Since })
		if opts.Tail >= 0 {
			lines = lines[max(len(lines)-opts.Tail, 0):]
		}
		for _, line := range lines {
			if err := emit([]cluster.LogLine{line}); err != nil {
				return err
			}
		}
		if opts.Follow {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
}

// TestLogs_InOrderOfTime: lines of several tasks come in the order in which they were
// written, those of a task that has ended in their place, and a tail is that of all.
func TestLogs_InOrderOfTime(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	start := time.Now()
	b.addTask(1, id, 1, 1, func(task *cluster.Task) { task.Desired, task.Status.State = cluster.StateShutdown, cluster.StateFailed })
	b.addTask(2, id, 1, 2)
	b.addTask(3, id, 2, 1)
	b.manager.set(func(m *fakeManager) {
		m.logs = logsOf(map[string][]cluster.LogLine{
			taskID(1): written(start, taskID(1), 1, 2, 5),
			taskID(2): written(start, taskID(2), 6, 8, 10, 12),
			taskID(3): written(start, taskID(3), 3, 4, 7, 9, 11),
		})
	})
	for query, want := range map[string]string{
		"":        "1 1,1 2,3 3,3 4,1 5,2 6,3 7,2 8,3 9,2 10,3 11,2 12",
		"&tail=3": "2 10,3 11,2 12",
		"&tail=8": "1 5,2 6,3 7,2 8,3 9,2 10,3 11,2 12",
		"&tail=0": "",
		fmt.Sprintf("&since=%d.%09d", start.Add(9*time.Second).Unix(), start.Nanosecond()):        "3 9,2 10,3 11,2 12",
		fmt.Sprintf("&tail=2&since=%d.%09d", start.Add(9*time.Second).Unix(), start.Nanosecond()): "3 11,2 12",
	} {
		var got []string
		for _, frame := range frames(t, b.do("GET", "/services/web/logs?stdout=1"+query, nil).want(t, 200, "").body) {
			got = append(got, strings.TrimSuffix(frame[2:], "\n"))
		}
		if text := strings.Join(got, ","); text != want {
			t.Errorf("%q: %s, want %s", query, text, want)
		}
	}
}

// TestLogs_MergeReadsNothingAhead holds that a log whose turn comes later isn't read into
// memory, and one of a task that was made later not even begun.
func TestLogs_MergeReadsNothingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		id := b.create(spec("web"))
		start := time.Now()
		b.addTask(1, id, 1, 1)
		b.addTask(2, id, 2, 2)
		time.Sleep(time.Hour)
		b.addTask(3, id, 3, 2)
		var ahead, began atomic.Int32
		b.manager.set(func(m *fakeManager) {
			m.logs = func(_ context.Context, _, task string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
				if opts.Window < leastWindow || opts.Window > mostWindow {
					t.Errorf("window %d", opts.Window)
				}
				for i := range 1000 {
					second := i
					switch task {
					case taskID(1): // ends before 2 begins
						if n := ahead.Load(); n > 2 {
							t.Fatalf("%d pieces of another log were made", n)
						}
					case taskID(2):
						second += 1000
						ahead.Add(1)
						if began.Load() > 0 && second < 1990 {
							t.Fatal("the log of a task that was made later is read")
						}
					case taskID(3):
						second += 3600
						began.Add(1)
					}
					if err := emit(written(start, task, second)); err != nil {
						return err
					}
				}
				return nil
			}
		})
		lines := frames(t, b.do("GET", "/services/web/logs?stdout=1", nil).want(t, 200, "").body)
		if len(lines) != 3000 || !slices.IsSortedFunc(lines, func(a, b string) int { return strings.Compare(a[2:3], b[2:3]) }) {
			t.Errorf("%d lines", len(lines))
		}
	})
}

func TestTail(t *testing.T) {
	one, two := &cluster.Task{ID: "1"}, &cluster.Task{ID: "2"}
	line := func(text string) cluster.LogLine { return cluster.LogLine{Data: []byte(text)} }
	short := line("")
	size := short.Size() + 1
	end := tail{lines: 4, bytes: 3 * size}
	for _, text := range []string{"a", "b", "c"} {
		_ = end.add(taskLines{task: one, lines: []cluster.LogLine{line(text)}})
	}
	if end.cut() != 0 || end.kept != 3 || len(end.parts) != 1 {
		t.Errorf("%+v", end)
	}
	_ = end.add(taskLines{task: two, lines: []cluster.LogLine{line("d"), line("e")}})
	var got []string
	for _, part := range end.parts {
		for _, line := range part.lines {
			got = append(got, part.task.ID+string(line.Data))
		}
	}
	if text := strings.Join(got, ","); text != "1c,2d,2e" || end.cut() != 1 {
		t.Errorf("%s, cut %d", text, end.cut())
	}
}

// TestFollow_HistoryInOrderOfTime: what was written before comes in the order of time, with
// the tail of all; then what is new, and nothing twice.
func TestFollow_HistoryInOrderOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		id := b.create(spec("web"))
		start := time.Now()
		b.addTask(1, id, 1, 1)
		b.addTask(2, id, 2, 2)
		b.addTask(3, id, 2, 2, func(task *cluster.Task) { task.Desired, task.Status.State = cluster.StateShutdown, cluster.StateFailed })
		history := map[string][]cluster.LogLine{
			taskID(1): written(start, taskID(1), 1, 5), taskID(2): written(start, taskID(2), 4, 6), taskID(3): written(start, taskID(3), 2, 3),
		}
		live := map[string][]cluster.LogLine{taskID(1): written(start, taskID(1), 5, 7), taskID(2): written(start, taskID(2), 6)}
		b.manager.set(func(m *fakeManager) {
			m.logs = func(ctx context.Context, node, task string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
				if !opts.Follow {
					return logsOf(history)(ctx, node, task, opts, emit)
				}
				if task == taskID(3) {
					t.Error("what has ended is followed")
				}
				if err := emit(live[task]); err != nil { // as if the driver's times were coarse
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		answer := httptest.NewRecorder()
		b.handler.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, "GET", "/services/web/logs?stdout=1&follow=1&tail=4", nil))
		var lines []string
		for _, frame := range frames(t, answer.Body.String()) {
			lines = append(lines, strings.TrimSuffix(frame[2:], "\n"))
		}
		if text := strings.Join(lines, ","); text != "3 3,2 4,1 5,2 6,1 7" {
			t.Error(text)
		}
	})
}
