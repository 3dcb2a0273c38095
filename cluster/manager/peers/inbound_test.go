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
