package dispatch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"skep/cluster"
)

const (
	// maxStreams is how many logs one node may be asked for at once.
	maxStreams = 256
	// logBuffer is how many bytes of a log wait for its reader, if that gave no window.
	logBuffer = 4 << 20
	// logPatience is how long a session waits for the reader of a log when its buffer
	// is full. Then the stream is given up, for the sake of the session.
	logPatience = 250 * time.Millisecond
	// logIdle ends the reading of a log without following when the agent sends nothing.
	logIdle = time.Minute
	// askLimit is how long another manager may take to say whether it has the session.
	askLimit = 5 * time.Second
)

var (
	errTooSlow     = errors.New("the log was read too slowly")
	errSessionGone = errors.New("the session of the node ended")
)

// Logs reads a task's log, wherever its node has its session: it calls emit with
// lines, in order, until the log ends or, when it follows, ctx does. It returns
// ErrUnavailable when no manager has a session of the node, or when the session
// ends on the way.
func (d *Dispatcher) Logs(ctx context.Context, nodeID, taskID string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	if s := d.session(nodeID); s != nil {
		return s.readLogs(ctx, taskID, opts, emit)
	}
	request := logsBody{NodeID: nodeID, TaskID: taskID, Options: opts}
	for _, peer := range d.whoToAsk(nodeID) {
		asked, err := d.askForLogs(ctx, peer, request, emit)
		if ctx.Err() != nil {
			return fmt.Errorf("read log of task %s: %w", taskID, context.Cause(ctx))
		}
		if asked {
			return err
		}
		if err != nil && !errors.Is(err, cluster.ErrNotFound) {
			d.config.Log.Debug("ask another manager for a log", "manager", peer.NodeID, "node", nodeID, "task", taskID, "err", err)
		}
	}
	return fmt.Errorf("read log of task %s: node %s has no session with any manager: %w", taskID, nodeID, cluster.ErrUnavailable)
}

// whoToAsk lists the other managers, the one that has the session first, if it
// is known.
func (d *Dispatcher) whoToAsk(nodeID string) []cluster.Peer {
	likely := d.leading().sessionAt(nodeID)
	var peers []cluster.Peer
	for _, peer := range managersIn(d.config.Store.View()) {
		switch peer.NodeID {
		case d.config.NodeID:
		case likely:
			peers = append([]cluster.Peer{peer}, peers...)
		default:
			peers = append(peers, peer)
		}
	}
	return peers
}

// logsBody is what POST /v1/logs asks for.
type logsBody struct {
	NodeID  string             `cbor:"1,keyasint"`
	TaskID  string             `cbor:"2,keyasint"`
	Options cluster.LogOptions `cbor:"3,keyasint"`
}

// askForLogs reads a log through another manager. Asked is false when that
// manager doesn't have the session, or didn't answer: then another may be asked.
func (d *Dispatcher) askForLogs(ctx context.Context, peer cluster.Peer, body logsBody, emit func([]cluster.LogLine) error) (asked bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("manager %s is silent: %w", peer.NodeID, cluster.ErrUnavailable)
	silence := newIdleTimer(d.config.Now, askLimit, func() { cancel(silent) })
	defer silence.stop()
	err = d.post(ctx, peer, "/v1/logs", body, func(answer io.Reader) error {
		asked = true
		in := bufio.NewReader(answer)
		for {
			silence.reset()
			var chunk cluster.LogChunk
			if err := cluster.ReadFrame(in, &chunk); err != nil {
				return fmt.Errorf("read log of task %s from manager %s: %w: %w", body.TaskID, peer.NodeID, cluster.ErrUnavailable, err)
			}
			silence.pause()
			if len(chunk.Lines) > 0 {
				if err := emit(chunk.Lines); err != nil {
					return err
				}
			}
			if chunk.Done {
				return chunkError(body.TaskID, chunk.Err)
			}
		}
	})
	if err != nil && errors.Is(context.Cause(ctx), silent) {
		err = silent
	}
	return asked, err
}

func chunkError(taskID, text string) error {
	if text == "" {
		return nil
	}
	return fmt.Errorf("read log of task %s: %s: %w", taskID, text, cluster.ErrUnavailable)
}

// readLogs reads a log through this session.
func (s *session) readLogs(ctx context.Context, taskID string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	stream, err := s.openStream(taskID, opts)
	if err != nil {
		return err
	}
	defer s.closeStream(stream)
	idle := time.NewTimer(logIdle)
	defer idle.Stop()
	for {
		lines, end := stream.take()
		if len(lines) > 0 {
			if err := emit(lines); err != nil {
				return err
			}
			idle.Reset(logIdle)
			if opts.Window > 0 {
				s.credit(stream.id, sizeOf(lines))
			}
			continue
		}
		if end != nil {
			if errors.Is(end, io.EOF) {
				return nil
			}
			return fmt.Errorf("read log of task %s: %w", taskID, end)
		}
		select {
		case <-stream.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-idle.C:
			if !opts.Follow {
				return fmt.Errorf("read log of task %s: node %s doesn't answer: %w", taskID, s.nodeID, cluster.ErrUnavailable)
			}
		}
	}
}

func (s *session) openStream(taskID string, opts cluster.LogOptions) (*logStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		return nil, fmt.Errorf("read log of task %s: %w: %w", taskID, errSessionGone, cluster.ErrUnavailable)
	}
	if len(s.streams) >= maxStreams {
		return nil, fmt.Errorf("read log of task %s: %d logs of node %s are being read already: %w", taskID, maxStreams, s.nodeID, cluster.ErrUnavailable)
	}
	s.lastStream++
	stream := &logStream{id: s.lastStream, window: opts.Window, ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	s.streams[stream.id] = stream
	s.due.requests = append(s.due.requests, cluster.LogRequest{ID: stream.id, TaskID: taskID, Query: opts})
	s.wakeWriter()
	return stream, nil
}

// credit lets the agent send more of a log, when its reader has taken what came.
func (s *session) credit(id uint64, bytes int) {
	s.mu.Lock()
	if s.due.credits == nil {
		s.due.credits = make(map[uint64]int)
	}
	s.due.credits[id] += bytes
	s.mu.Unlock()
	s.wakeWriter()
}

// closeStream ends a stream, and cancels it at the agent unless that ended it.
func (s *session) closeStream(stream *logStream) {
	stream.finish(errSessionGone)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[stream.id] == nil {
		return
	}
	delete(s.streams, stream.id)
	if !stream.answered() {
		s.due.cancels = append(s.due.cancels, stream.id)
		s.wakeWriter()
	}
}

// endStreams ends all streams with the session.
func (s *session) endStreams() {
	s.mu.Lock()
	streams := s.streams
	s.streams = nil
	s.mu.Unlock()
	for _, stream := range streams {
		stream.finish(fmt.Errorf("%w: %w", errSessionGone, cluster.ErrUnavailable))
	}
}

// takeLogs gives a chunk to its stream. What comes after a cancellation is dropped.
func (s *session) takeLogs(chunk cluster.LogChunk) {
	s.mu.Lock()
	stream := s.streams[chunk.ID]
	s.mu.Unlock()
	if stream == nil {
		return
	}
	if !stream.put(s.ctx, chunk) {
		stream.finish(fmt.Errorf("%w: more than %d bytes were waiting: %w", errTooSlow, stream.limit(), cluster.ErrUnavailable))
		s.closeStream(stream)
	}
}
