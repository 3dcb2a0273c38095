package dispatch

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"skep/cluster"
	"skep/cluster/dispatch/networks"
	"skep/store"
)

// touchAfter is when, after its start, a session sends the index that this replica has reached.
const touchAfter = 200 * time.Millisecond

// write is the writer: it sends Welcome, and from then on whatever is due, until
// the session ends. All that became due while a message was on its way goes
// into the next one.
func (s *session) write() error {
	heartbeat := s.heartbeat
	sent := &assignmentSet{nodeID: s.nodeID}
	welcome := &cluster.Welcome{Format: cluster.WireFormat, HeartbeatMillis: heartbeat.Milliseconds()}
	if err := s.send(cluster.FromManager{Welcome: welcome}); err != nil {
		return err
	}
	quiet := time.NewTimer(heartbeat)
	defer quiet.Stop()
	// An agent that comes from a manager whose replica was ahead acts on the complete set only
	// when this one has caught up, and the entries in between needn't change its own tasks.
	touch := time.NewTimer(touchAfter)
	defer touch.Stop()
	for {
		due := s.take()
		messages, err := s.compose(sent, due)
		if err != nil {
			return err
		}
		for _, m := range messages {
			span := s.traceTasks(m.Assignments)
			err := s.send(m)
			span.End(err)
			if err != nil {
				return err
			}
			if m.Refused != "" {
				return fmt.Errorf("%s: %w", m.Refused, cluster.ErrDenied)
			}
		}
		if len(messages) > 0 {
			if !due.since.IsZero() {
				s.d.config.Metrics.Assign.Took(s.d.config.Now().Sub(due.since))
			}
			quiet.Reset(heartbeat)
			continue
		}
		select {
		case <-s.wake:
		case <-touch.C:
			s.mark(s.d.view(), &pending{touch: true})
		case <-s.beaten:
			// An answer at once costs both sides less than to wake up for one later.
			if err := s.send(cluster.FromManager{}); err != nil {
				return err
			}
			quiet.Reset(heartbeat)
		case <-quiet.C:
			if err := s.send(cluster.FromManager{}); err != nil {
				return err
			}
			quiet.Reset(heartbeat)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// compose makes the messages for what is due.
func (s *session) compose(sent *assignmentSet, due outgoing) ([]cluster.FromManager, error) {
	if due.refused != nil {
		return []cluster.FromManager{due.refused.message()}, nil
	}
	var messages []cluster.FromManager
	if due.lease != 0 {
		messages = append(messages, cluster.FromManager{Lease: due.lease})
	}
	if due.marks.peersToo {
		messages = append(messages, cluster.FromManager{Peers: s.d.peers(due.view, s.nodeID)})
	}
	var assignments *cluster.Assignments
	if due.marks.full {
		assignments = sent.full(due.view)
	} else {
		assignments = sent.difference(due.view, due.marks)
	}
	var news networks.News
	if due.marks.full || due.marks.networksToo || due.marks.touch || len(due.marks.tasks) > 0 {
		var err error
		if news, err = s.networks.Next(due.view, !due.ahead, due.marks.touch, maps.Keys(sent.vnis)); err != nil {
			return nil, err
		}
	}
	messages = appendNetworks(messages, news.Updates)
	if assignments != nil {
		messages = append(messages, cluster.FromManager{Assignments: assignments})
	}
	messages = appendNetworks(messages, news.Dropped)
	if news.Behind {
		s.mark(s.d.view(), &pending{networksToo: true})
	}
	for _, request := range due.requests {
		messages = append(messages, cluster.FromManager{Logs: &request})
	}
	for _, managerID := range due.calls {
		messages = append(messages, cluster.FromManager{Engine: managerID})
	}
	for _, id := range slices.Sorted(maps.Keys(due.credits)) {
		messages = append(messages, cluster.FromManager{LogCredit: &cluster.LogCredit{ID: id, Bytes: due.credits[id]}})
	}
	for _, id := range due.cancels {
		messages = append(messages, cluster.FromManager{CancelLogs: id})
	}
	return messages, nil
}

// maxNetworksMessage is how many bytes of updates of networks go into a message: enough to be
// few, and far below a frame's limit even with one more.
const maxNetworksMessage = 2 << 20

// appendNetworks appends messages that have the updates, in their order.
func appendNetworks(messages []cluster.FromManager, updates []cbor.RawMessage) []cluster.FromManager {
	for len(updates) > 0 {
		some, size := 1, len(updates[0])
		for some < len(updates) && size+len(updates[some]) <= maxNetworksMessage {
			size += len(updates[some])
			some++
		}
		messages = append(messages, cluster.FromManager{Networks: updates[:some]})
		updates = updates[some:]
	}
	return messages
}

// peers gives what a node needs to find the cluster again. Its role is the one
// that certificates are issued for now; managers let it follow the one the user
// wants once raft has.
func (d *Dispatcher) peers(view store.View, nodeID string) *cluster.Peers {
	d.mu.Lock()
	peers := &cluster.Peers{Managers: d.managers}
	d.mu.Unlock()
	if c := view.Cluster(); c != nil {
		peers.GossipKeys = c.GossipKeys
		peers.Trust, peers.Cluster = cluster.TrustOf(c, view.NodeCount()), c.ClusterLevel
	}
	if node := view.Node(nodeID); node != nil {
		peers.Role = node.Role
	}
	return peers
}

// send writes one message, cut into several when it is too large for a frame.
func (s *session) send(m cluster.FromManager) error {
	data, err := cluster.Encode(m)
	if err != nil {
		return err
	}
	if len(data) > cluster.MaxFrame && m.Assignments != nil {
		first, second, ok := split(m.Assignments)
		if ok { // Either may have the tasks.
			first.Traces, second.Traces = m.Assignments.Traces, m.Assignments.Traces
		}
		if !ok {
			return fmt.Errorf("send assignments: %d bytes don't fit in a frame", len(data))
		}
		if err := s.send(cluster.FromManager{Assignments: first}); err != nil {
			return err
		}
		return s.send(cluster.FromManager{Assignments: second})
	}
	limit := s.silenceLimit()
	stall := time.AfterFunc(limit, func() { s.cancel(errStalled) })
	defer stall.Stop()
	return cluster.WriteFrame(&stallWriter{s.conn, stall, limit}, cbor.RawMessage(data))
}

// stallWriter writes piece by piece and gives a peer that is slow, but takes
// something, its time.
type stallWriter struct {
	net.Conn
	stall *time.Timer
	limit time.Duration
}

const pieceSize = 64 << 10

func (w *stallWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := w.Conn.Write(p[written:min(len(p), written+pieceSize)])
		written += n
		if err != nil {
			return written, err
		}
		w.stall.Reset(w.limit)
	}
	return written, nil
}
