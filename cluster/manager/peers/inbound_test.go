package peers

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// TestAuthorized_Patience: the leader of a new term may be heard a moment before this manager
// knows of the election; whoever is no manager is refused at once.
func TestAuthorized_Patience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 75 * time.Millisecond
		for _, test := range []struct {
			name   string
			soon   time.Duration
			refuse error
			want   time.Duration
			passes bool
		}{
			{"at once", 0, nil, 0, true},
			{"believed after a moment", 5 * time.Millisecond, cluster.ErrUnavailable, 5 * time.Millisecond, true},
			{"believed too late", time.Second, cluster.ErrUnavailable, patience, false},
			{"never believed", time.Hour, cluster.ErrDenied, 0, false},
		} {
			began := time.Now()
			in := newInbound(raft.NetworkTransportConfig{}, func(string, any) error {
				if time.Since(began) < test.soon {
					return test.refuse
				}
				return nil
			}, patience, slog.New(slog.DiscardHandler))
			c := &incoming{of: in, gone: make(chan struct{})}
			answers := make(chan raft.RPCResponse, 1)
			go func() {
				select {
				case rpc := <-in.heard:
					rpc.Respond(nil, nil)
				case <-in.done:
				}
			}()
			c.pass(raft.RPC{Command: &raft.AppendEntriesRequest{}, RespChan: answers}, false)
			answer := <-answers
			in.close()
			if took := time.Since(began); took != test.want || (answer.Error == nil) != test.passes {
				t.Errorf("%s: %v after %v; want %v after %v", test.name, answer.Error, took, test.passes, test.want)
			}
		}
	})
}

// TestInbound_NoHeartbeatWhileRaftStands: raft becomes a candidate, and only then notes that it was asked to.
func TestInbound_NoHeartbeatWhileRaftStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbound(raft.NetworkTransportConfig{}, func(string, any) error { return nil }, time.Second, slog.New(slog.DiscardHandler))
		began, handled := time.Now(), time.Duration(0)
		handle := func(rpc raft.RPC) {
			handled = time.Since(began)
			rpc.Respond(nil, nil)
		}
		in.beat.Store(&handle)
		go func() {
			rpc := <-in.heard
			time.Sleep(10 * time.Millisecond)
			rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		}()
		c := &incoming{of: in, gone: make(chan struct{})}
		stood, beat := make(chan raft.RPCResponse, 1), make(chan raft.RPCResponse, 1)
		go c.pass(raft.RPC{Command: &raft.TimeoutNowRequest{}, RespChan: stood}, false)
		time.Sleep(time.Millisecond)
		(&incoming{of: in, gone: make(chan struct{})}).pass(raft.RPC{Command: &raft.AppendEntriesRequest{}, RespChan: beat}, true)
		if answer := <-stood; answer.Error != nil || answer.Response == nil {
			t.Errorf("the request to stand was answered %v", answer)
		}
		if answer := <-beat; answer.Error != nil || handled != 10*time.Millisecond {
			t.Errorf("the heartbeat was handled after %v (%v), and raft stood after 10ms", handled, answer.Error)
		}
		// Raft that is shut down never answers.
		go c.pass(raft.RPC{Command: &raft.TimeoutNowRequest{}, RespChan: stood}, false)
		<-in.heard
		in.close()
		if answer := <-stood; answer.Error == nil {
			t.Error("a request that nobody answered was answered")
		}
		in.wait()
	})
}

// TestInbound_ClosesAfterTheHeartbeats: raft handles heartbeats in their connections'
// goroutines and panics if it can't store a new term, so the database may be closed only
// when none is being handled, and none may begin later.
func TestInbound_ClosesAfterTheHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbound(raft.NetworkTransportConfig{}, func(string, any) error { return nil }, time.Second, slog.New(slog.DiscardHandler))
		began, calls := time.Now(), 0
		handle := func(rpc raft.RPC) {
			calls++
			time.Sleep(3 * time.Second) // A slow disk.
			rpc.Respond(nil, nil)
		}
		in.beat.Store(&handle)
		c := &incoming{of: in, gone: make(chan struct{})}
		answers := make(chan raft.RPCResponse, 1)
		heartbeat := raft.RPC{Command: &raft.AppendEntriesRequest{}, RespChan: answers}
		go c.pass(heartbeat, true)
		time.Sleep(time.Second)
		in.close()
		in.wait()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("closed after %v; the heartbeat was handled for 3s", took)
		}
		if answer := <-answers; answer.Error != nil {
			t.Errorf("the heartbeat that was being handled: %v", answer.Error)
		}
		c.pass(heartbeat, true)
		if answer := <-answers; answer.Error == nil || calls != 1 {
			t.Errorf("a heartbeat after the end: %v, handled %d times", answer.Error, calls-1)
		}
	})
}
