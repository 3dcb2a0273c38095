package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// requests gives the log requests, and their cancellations, that came in so far.
func (a *testAgent) requests() (requests []cluster.LogRequest, cancels []uint64) {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.inbox {
		if m.Logs != nil {
			requests = append(requests, *m.Logs)
		}
		if m.CancelLogs != 0 {
			cancels = append(cancels, m.CancelLogs)
		}
	}
	return requests, cancels
}

func line(text string) []cluster.LogLine { return []cluster.LogLine{{Data: []byte(text)}} }

// readAll starts to read a log and gives what was read and how it ended.
func readAll(ctx context.Context, m *manager, nodeID string, follow bool) (lines *[]string, end chan error) {
	lines, end = new([]string), make(chan error, 1)
	go func() {
		end <- m.Logs(ctx, nodeID, "t1", cluster.LogOptions{Stdout: true, Follow: follow, Tail: -1}, func(batch []cluster.LogLine) error {
			for _, l := range batch {
				*lines = append(*lines, string(l.Data))
			}
			return nil
		})
	}()
	synctest.Wait()
	return lines, end
}

func TestLogs_FromAnyManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.addNode("n1")
		a := w.connect("n1", "m2")
		for i, managerID := range w.names {
			lines, end := readAll(t.Context(), w.managers[managerID], "n1", false)
			requests, _ := a.requests()
			if len(requests) != i+1 || requests[i].TaskID != "t1" || !requests[i].Query.Stdout || requests[i].Query.Tail != -1 {
				t.Fatalf("requests %+v", requests)
			}
			id := requests[i].ID
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: id, Lines: line("one")}})
			time.Sleep(time.Minute / 2)
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: id + 100, Lines: line("of nobody")}})
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: id, Lines: line("two"), Done: true}})
			if err := <-end; err != nil || strings.Join(*lines, " ") != "one two" {
				t.Errorf("through %s: %q, %v", managerID, *lines, err)
			}
		}
		if _, cancels := a.requests(); len(cancels) != 0 {
			t.Errorf("cancelled %v, which had ended", cancels)
		}
		if asked := w.managers["m3"].asked; asked != 0 {
			t.Errorf("the leader asked a manager without the session %d times", asked)
		}
	})
}

func TestLogs_AgentsErrorComesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		a := w.connect("n1", "m2")
		for i, managerID := range w.names {
			_, end := readAll(t.Context(), w.managers[managerID], "n1", true)
			requests, _ := a.requests()
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: requests[i].ID, Done: true, Err: "no such container"}})
			if err := <-end; err == nil || !strings.Contains(err.Error(), "no such container") {
				t.Errorf("through %s: %v", managerID, err)
			}
		}
	})
}

func TestLogs_EndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		a := w.connect("n1", "m2")
		for i, managerID := range w.names {
			ctx, cancel := context.WithCancel(t.Context())
			_, end := readAll(ctx, w.managers[managerID], "n1", true)
			time.Sleep(5 * time.Minute) // Following has no limit.
			cancel()
			if err := <-end; !errors.Is(err, context.Canceled) {
				t.Errorf("through %s: %v", managerID, err)
			}
			if requests, cancels := a.requests(); len(cancels) != i+1 || cancels[i] != requests[i].ID {
				t.Errorf("requests %+v, cancels %v", requests, cancels)
			}
		}
	})
}

func TestLogs_EndsWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.addNode("n1")
		for _, follow := range []bool{false, true} {
			for _, managerID := range w.names {
				a := w.connect("n1", "m2")
				_, end := readAll(t.Context(), w.managers[managerID], "n1", follow)
				a.close()
				if err := <-end; !errors.Is(err, cluster.ErrUnavailable) {
					t.Errorf("session ends, through %s: %v", managerID, err)
				}
				_, end = readAll(t.Context(), w.managers[managerID], "n1", follow)
				if err := <-end; !errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), "node n1 has no session with any manager") {
					t.Errorf("no session, through %s: %v", managerID, err)
				}
			}
		}
		w.cut("m2", true)
		_, end := readAll(t.Context(), w.managers["m3"], "n1", false)
		if err := <-end; !errors.Is(err, cluster.ErrUnavailable) {
			t.Errorf("unreachable manager: %v", err)
		}
		// An agent that doesn't answer.
		w.connect("n1", "m1")
		_, end = readAll(t.Context(), w.managers["m1"], "n1", false)
		if err := <-end; !errors.Is(err, cluster.ErrUnavailable) {
			t.Errorf("mute agent: %v", err)
		}
	})
}

// A reader that stops reading loses its stream; the session goes on.
func TestLogs_SlowReaderIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.addTask("t1", "n1")
		a := w.connect("n1", "m1")
		stuck, end := make(chan struct{}), make(chan error, 1)
		go func() {
			end <- w.now().Logs(t.Context(), "n1", "t1", cluster.LogOptions{Follow: true}, func([]cluster.LogLine) error {
				<-stuck
				return nil
			})
		}()
		requests, _ := a.requests()
		before := time.Now()
		for range 40 {
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: requests[0].ID, Lines: line(strings.Repeat("x", 1<<18))}})
		}
		a.report("t1", cluster.StateRunning, "")
		if took := time.Since(before); w.task("t1").Status.State != cluster.StateRunning || took > logPatience {
			t.Errorf("after %v the task is %s", took, w.task("t1").Status.State)
		}
		close(stuck)
		if err := <-end; !errors.Is(err, errTooSlow) {
			t.Errorf("ended with %v", err)
		}
		if _, cancels := a.requests(); len(cancels) != 1 {
			t.Errorf("cancels %v", cancels)
		}
	})
}

// With a window the agent is told what was taken, and not before, so it sends no more
// than fits; a reader may take its time.
func TestLogs_SlowReaderWithAWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.connect("n1", "m1")
		next, end := make(chan struct{}), make(chan error, 1)
		go func() {
			end <- w.now().Logs(t.Context(), "n1", "t1", cluster.LogOptions{Window: 4096}, func([]cluster.LogLine) error {
				<-next
				return nil
			})
		}()
		requests, _ := a.requests()
		credits := func() (n int) {
			synctest.Wait()
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, m := range a.inbox {
				if m.LogCredit != nil && m.LogCredit.ID == requests[0].ID {
					n += m.LogCredit.Bytes
				}
			}
			return n
		}
		sent := line(strings.Repeat("x", 2000))
		for i := range 5 {
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: requests[0].ID, Lines: sent}})
			time.Sleep(20 * time.Second)
			if got := credits(); got != i*sent[0].Size() {
				t.Errorf("credit for %d bytes, while %d were taken", got, i*sent[0].Size())
			}
			next <- struct{}{}
			if got := credits(); got != (i+1)*sent[0].Size() {
				t.Errorf("credit for %d bytes, when %d were taken", got, (i+1)*sent[0].Size())
			}
			a.send(cluster.FromAgent{})
		}
		a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: requests[0].ID, Done: true}})
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
}

// An agent that sends more than the window takes no more memory than that, and isn't read on.
func TestAttack_LogsBeyondTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.connect("n1", "m1")
		const window = 64 << 10
		stuck, end := make(chan struct{}), make(chan error, 1)
		largest := 0
		go func() {
			end <- w.now().Logs(t.Context(), "n1", "t1", cluster.LogOptions{Window: window}, func(lines []cluster.LogLine) error {
				largest = max(largest, sizeOf(lines))
				<-stuck
				return nil
			})
		}()
		requests, _ := a.requests()
		for _, size := range []int{1000, 30 << 10, 30 << 10, 30 << 10, 1 << 20} {
			a.send(cluster.FromAgent{Logs: &cluster.LogChunk{ID: requests[0].ID, Lines: line(strings.Repeat("x", size))}})
			synctest.Wait()
		}
		time.Sleep(2 * logPatience)
		close(stuck)
		if err := <-end; !errors.Is(err, errTooSlow) {
			t.Errorf("ended with %v", err)
		}
		if largest > window {
			t.Errorf("%d bytes waited at once", largest)
		}
	})
}

func TestLogs_ManyAtOnceAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.connect("n1", "m1")
		ctx, cancel := context.WithCancel(t.Context())
		var ends []chan error
		for range maxStreams {
			_, end := readAll(ctx, w.now(), "n1", true)
			ends = append(ends, end)
		}
		_, end := readAll(ctx, w.now(), "n1", true)
		if err := <-end; !errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprint(maxStreams)) {
			t.Errorf("one too many: %v", err)
		}
		cancel()
		for _, end := range ends {
			<-end
		}
	})
}
