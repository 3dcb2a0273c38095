package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// asked asks with a question that is answered when the test says so, and returns the answer and how long it took.
func asked(a *answers[string], key, of string, ask func(context.Context) (string, error)) string {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), pageWait)
	defer cancel()
	said, at, err := a.get(ctx, key, of, 2*time.Second, ask)
	text := fmt.Sprintf("%q after %v", said, time.Since(began))
	if at.IsZero() {
		text += ", never"
	}
	if err != nil {
		text += ", " + err.Error()
	}
	return text
}

func TestAnswers_NobodyWaitsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers[string]{now: time.Now, most: 4, old: 10 * time.Second}
		var put atomic.Int64
		slow := func(took time.Duration, said string, err error) func(context.Context) (string, error) {
			return func(context.Context) (string, error) {
				put.Add(1)
				time.Sleep(took)
				return said, err
			}
		}
		for _, c := range []struct {
			what string
			wait time.Duration // before it
			of   string
			ask  func(context.Context) (string, error)
			want string
			put  int64
		}{
			{"a quick answer", 0, "x", slow(100*time.Millisecond, "one", nil), `"one" after 100ms`, 1},
			{"it is good for a while", time.Second, "x", slow(0, "never asked", nil), `"one" after 0s`, 1},
			{"then it is asked again, and waited for in vain", time.Second, "x", slow(time.Second, "two", nil), `"one" after 300ms`, 2},
			{"nobody else asks meanwhile", 100 * time.Millisecond, "x", slow(0, "never asked", nil), `"one" after 300ms`, 2},
			{"what comes late is there then", 400 * time.Millisecond, "x", slow(0, "never asked", nil), `"two" after 0s`, 2},
			{"what it is about changes", 0, "y", slow(5*time.Second, "late", nil), `"two" after 300ms`, 3},
			{"and again, before that is answered", 0, "z", slow(0, "three", nil), `"three" after 0s`, 4},
			{"an answer that is late counts no more", 5 * time.Second, "z", slow(0, "", errors.New("lost")), `"three" after 0s, lost`, 5},
			{"it is asked again", 4 * time.Second, "z", slow(0, "", errors.New("lost")), `"three" after 0s, lost`, 6},
			{"in vain for too long", 4 * time.Second, "z", slow(0, "", errors.New("lost")), `"" after 0s, never, lost`, 7},
		} {
			time.Sleep(c.wait)
			if got := asked(a, "", c.of, c.ask); got != c.want || put.Load() != c.put {
				t.Errorf("%s: got %s by question %d, want %s by %d", c.what, got, put.Load(), c.want, c.put)
			}
		}
		time.Sleep(10 * time.Second)
		if got := asked(a, "", "z", slow(time.Second, "four", nil)); got != `"" after 300ms, never` {
			t.Errorf("what is old stands in: got %s", got)
		}
		if got := asked(a, "another", "", slow(time.Minute, "", nil)); got != `"" after 300ms, never` {
			t.Errorf("what was never answered: got %s", got)
		}
		for i := range 20 {
			asked(a, fmt.Sprint(i), "", slow(0, "x", nil))
		}
		if n := len(a.kept); n > a.most {
			t.Errorf("%d answers are kept", n)
		}
		time.Sleep(time.Minute)
	})
}

// TestPages_WaitForNobody: the leader hangs, and so does whoever else is asked. Pages are there at once, with what the
// manager itself knows.
func TestPages_WaitForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := shop(t)
		free := make(chan struct{})
		b.api = func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-free:
			case <-r.Context().Done():
			}
		}
		b.manager.set(func(m *fakeManager) {
			m.leader, m.self.Leader, m.hangs = "m2", false, free
			m.status.Problems = nil
		})
		for name, path := range shownPages {
			if name == "logs" {
				continue // It waits for lines: see logWait.
			}
			began := time.Now()
			w := b.get(Root + path)
			if took := time.Since(began); w.Code != http.StatusOK || took > pageWait {
				t.Errorf("%s: %d after %v", name, w.Code, took)
			}
			b.clock.set(b.clock.now().Add(3 * time.Second)) // Nothing is fresh any more.
		}
		if body := b.get(Root).Body.String(); !strings.Contains(body, "Nobody has told yet how the cluster is.") || !strings.Contains(body, "18 of 23 tasks running") {
			t.Errorf("got\n%s", textOf(body))
		}
		if body := b.get(Root + "raft").Body.String(); !strings.Contains(body, "The managers are being asked.") {
			t.Errorf("got\n%s", textOf(body))
		}
		close(free)
		synctest.Wait()
		b.clock.set(b.clock.now().Add(time.Second))
		if body := b.get(Root).Body.String(); !strings.Contains(body, "All is well.") {
			t.Errorf("when all have answered: got\n%s", textOf(body))
		}

		// What was said while there was a leader doesn't count when there is none, and for nothing a while later.
		hangs := make(chan struct{})
		defer close(hangs)
		b.manager.set(func(m *fakeManager) { m.leader, m.hangs = "", hangs })
		b.clock.set(b.clock.now().Add(time.Second))
		if body := b.get(Root).Body.String(); strings.Contains(body, "All is well.") || !strings.Contains(body, "There is no leader, and nothing can be changed.") || !strings.Contains(body, ">m3<") || !strings.Contains(body, "As it was 1 s ago, under another leader:") || strings.Contains(body, `class="s lead"`) {
			t.Errorf("when the leader is lost: got\n%s", textOf(body))
		}
		b.clock.set(b.clock.now().Add(time.Minute))
		if body := b.get(Root).Body.String(); !strings.Contains(body, "There is no leader, and nothing can be changed.") || !strings.Contains(body, "Nobody has told yet which managers there are.") {
			t.Errorf("a minute later: got\n%s", textOf(body))
		}
	})
}

// TestCall_OfAnAnswerThatIsBrokenOff: the server would end the connection, but there is none.
func TestCall_OfAnAnswerThatIsBrokenOff(t *testing.T) {
	b := newBench(t)
	b.api = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	var status cluster.Status
	if err := b.console.call(context.Background(), "GET", "/skep/v1/status", nil, &status); err == nil {
		t.Error("it is an answer")
	}
}
