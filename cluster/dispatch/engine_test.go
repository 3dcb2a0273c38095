package dispatch

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
	"skep/store"
)

// calls gives whom the agent was told to call so far.
func (a *testAgent) calls() (managers []string) {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.inbox {
		if m.Engine != "" {
			managers = append(managers, m.Engine)
		}
	}
	return managers
}

// dialed is what became of DialEngine.
type dialed struct {
	conn net.Conn
	err  error
}

func dialEngine(ctx context.Context, m *manager, nodeID string) chan dialed {
	done := make(chan dialed, 1)
	go func() {
		conn, err := m.DialEngine(ctx, nodeID)
		done <- dialed{conn, err}
	}()
	return done
}

// call is an agent that calls a manager, and gives its own end.
func (w *world) call(nodeID, managerID string) (net.Conn, error) {
	near, far := net.Pipe()
	return near, w.managers[managerID].ServeEngine(far, cluster.Identity{NodeID: nodeID})
}

func TestEngine_FromAnyManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.addNode("n1")
		a := w.connect("n1", "m2")
		for i, managerID := range w.names {
			done := dialEngine(t.Context(), w.managers[managerID], "n1")
			if calls := a.calls(); len(calls) != i+1 || calls[i] != managerID {
				t.Fatalf("told to call %q", calls)
			}
			if _, err := w.call("n1", w.names[(i+1)%3]); !errors.Is(err, cluster.ErrDenied) {
				t.Errorf("a manager that didn't ask took the call: %v", err)
			}
			near, err := w.call("n1", managerID)
			if err != nil {
				t.Fatal(err)
			}
			got := <-done
			if got.err != nil {
				t.Fatal(got.err)
			}
			go near.Write([]byte("hello"))
			if heard, err := io.ReadAll(io.LimitReader(got.conn, 5)); err != nil || string(heard) != "hello" {
				t.Errorf("%q, %v", heard, err)
			}
			if _, err := w.call("n1", managerID); !errors.Is(err, cluster.ErrDenied) {
				t.Errorf("a call that nobody waits for was taken: %v", err)
			}
			got.conn.Close()
			if _, err := near.Read(make([]byte, 1)); err == nil {
				t.Error("the agent's end is open")
			}
			if open := len(w.managers[managerID].engines.open) + len(w.managers[managerID].engines.waiting); open != 0 {
				t.Errorf("%d are left", open)
			}
		}
		// The session's end, and the leader's, end nothing.
		done := dialEngine(t.Context(), w.managers["m3"], "n1")
		a.calls()
		near, err := w.call("n1", "m3")
		if err != nil {
			t.Fatal(err)
		}
		got := <-done
		w.kill("m1")
		w.kill("m2")
		time.Sleep(time.Second)
		go got.conn.Write([]byte("still"))
		if heard, err := io.ReadAll(io.LimitReader(near, 5)); err != nil || string(heard) != "still" {
			t.Errorf("%q, %v", heard, err)
		}
		w.kill("m3")
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("a manager that stops keeps the connection")
		}
	})
}

func TestEngine_WhoDoesntCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		for _, managerID := range w.names {
			if _, err := w.managers[managerID].DialEngine(t.Context(), "n1"); !errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), "no session") {
				t.Errorf("without a session: %v", err)
			}
		}
		w.connect("n1", "m2")
		began := time.Now()
		if _, err := w.managers["m1"].DialEngine(t.Context(), "n1"); !errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), "doesn't call") {
			t.Errorf("an agent that doesn't call: %v", err)
		}
		if took := time.Since(began); took != callLimit {
			t.Errorf("that took %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := dialEngine(ctx, w.managers["m1"], "n1")
		synctest.Wait()
		cancel()
		if got := <-done; !errors.Is(got.err, context.Canceled) {
			t.Errorf("after its caller had gone: %v", got.err)
		}
		// One that comes too late is closed.
		if _, err := w.call("n1", "m1"); !errors.Is(err, cluster.ErrDenied) {
			t.Errorf("%v", err)
		}
		if open := len(w.managers["m1"].engines.waiting); open != 0 {
			t.Errorf("%d still wait", open)
		}
	})
}

// A node has so many requests under way, and no more, whoever makes them.
func TestEngine_Limit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.connect("n1", "m1")
		var ends []chan dialed
		for range cluster.MaxEngineRequests {
			ends = append(ends, dialEngine(t.Context(), w.managers["m1"], "n1"))
		}
		synctest.Wait()
		if _, err := w.managers["m1"].DialEngine(t.Context(), "n1"); !errors.Is(err, cluster.ErrUnavailable) || !strings.Contains(err.Error(), "under way already") {
			t.Errorf("one more: %v", err)
		}
		if _, err := w.call("n1", "m1"); err != nil {
			t.Error(err)
		}
		if _, err := w.managers["m1"].DialEngine(t.Context(), "n1"); err == nil {
			t.Error("one that goes on isn't counted")
		}
		for _, end := range ends {
			if got := <-end; got.conn != nil {
				got.conn.Close()
			}
		}
		if e := &w.managers["m1"].engines; len(e.open)+len(e.waiting) != 0 {
			t.Errorf("left are %d and %d", len(e.open), len(e.waiting))
		}
	})
}

func TestEngine_EndsWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		for _, nodeID := range []string{"n1", "n2"} {
			w.addNode(nodeID)
			w.connect(nodeID, "m2")
		}
		ends := map[string]net.Conn{}
		for _, nodeID := range []string{"n1", "n2"} {
			done := dialEngine(t.Context(), w.managers["m1"], nodeID)
			synctest.Wait()
			near, err := w.call(nodeID, "m1")
			if err != nil {
				t.Fatal(err)
			}
			ends[nodeID] = near
			defer (<-done).conn.Close()
		}
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Node("n1")); return nil })
		synctest.Wait()
		if _, err := ends["n1"].Read(make([]byte, 1)); err == nil {
			t.Error("the connection of a removed node is open")
		}
		ends["n2"].SetReadDeadline(time.Now().Add(time.Second))
		if _, err := ends["n2"].Read(make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
			t.Errorf("another node's: %v", err)
		}
		if _, err := w.call("n1", "m1"); !errors.Is(err, cluster.ErrDenied) {
			t.Errorf("a removed node's call: %v", err)
		}
	})
}
