package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"skep/cluster"
	"skep/cluster/trace"
)

const (
	// answerTimeout is how long the leader may take to begin its answer.
	answerTimeout = 30 * time.Second
	// leaderCheck is how often the leader's identity is looked at meanwhile, and
	// lateAnswer how long a write may still be answered by one who leads no more.
	leaderCheck = 50 * time.Millisecond
	lateAnswer  = 2 * time.Second
)

// forwards is forward, counted.
func (s *Server) forwards(w http.ResponseWriter, r *http.Request, c call, request *request, manager Manager, peer cluster.Peer) bool {
	if s.Trace != nil {
		trace.Of(r.Context()).Set(trace.Forwarded, "true")
	}
	done := s.forward(w, r, c, request, manager, peer)
	if s.Metrics != nil {
		s.Metrics.API.Forwarded.Add(1, map[bool]string{true: "ok", false: "failed"}[done])
	}
	return done
}

// forward streams a request to the leader and the answer back. It returns false,
// with nothing written, when the request may be tried again.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, c call, request *request, manager Manager, peer cluster.Peer) bool {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	target := "https://" + peer.Addr + "/v1/api" + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(request.body))
	if err != nil {
		s.writeError(w, r, fmt.Errorf("forward to the leader: %w", err))
		return true
	}
	for _, name := range []string{"Content-Type", "Accept", "User-Agent", "X-Registry-Auth", cluster.HeaderMessage, "Traceparent", "Tracestate"} {
		if values, ok := r.Header[name]; ok {
			out.Header[name] = values
		}
	}
	out.Header.Set(actorHeader, cluster.Actor(r.Context()))
	span := s.Trace.Call(ctx, out.Header, "api forward")
	span.Set(trace.Peer, peer.NodeID)
	began := make(chan struct{})
	go s.abortIfLeaderChanged(ctx, cancel, began, manager, peer, c.route.kind)
	answer, err := carry(manager, peer, c.route.kind, out)
	close(began)
	span.End(err)
	if err != nil {
		s.Log.Debug("leader doesn't answer", "node", peer.NodeID, "error", err)
		var dial *net.OpError
		switch {
		case r.Context().Err() != nil:
			return true // the client has gone
		case c.route.kind != write, errors.Is(err, cluster.ErrUnreachable), errors.As(err, &dial) && dial.Op == "dial":
			return false
		}
		noteOf(r.Context()).failed(cluster.ErrUnknownOutcome)
		s.writeError(w, r, cluster.ErrUnknownOutcome)
		return true
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable && answer.Header.Get(notLeaderHeader) != "" {
		return false
	}
	noteOf(r.Context()).hear(answer.Header)
	header := w.Header()
	for name, values := range answer.Header {
		header[name] = values
	}
	if c.route.anyManager {
		waitAsForStream(w)
	}
	w.WriteHeader(answer.StatusCode)
	if err := stream(w, answer.Body); err != nil {
		s.Log.Debug("answer of the leader broke off", "node", peer.NodeID, "error", err)
		panic(http.ErrAbortHandler) // so that the client doesn't take the part it got for the whole
	}
	return true
}

// abortIfLeaderChanged ends the wait for the leader's answer when it takes too long or when
// another manager leads: one that was stopped or cut off may never answer.
func (s *Server) abortIfLeaderChanged(ctx context.Context, cancel context.CancelCauseFunc, began <-chan struct{}, manager Manager, peer cluster.Peer, kind kind) {
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	check := time.NewTicker(leaderCheck)
	defer check.Stop()
	patience := time.Duration(0)
	if kind == write {
		patience = lateAnswer
	}
	var late time.Duration
	for {
		select {
		case <-began:
			return
		case <-ctx.Done():
			return
		case <-timeout.C:
			cancel(fmt.Errorf("no answer within %s: %w", answerTimeout, cluster.ErrUnavailable))
			return
		case <-check.C:
			if leader := manager.LeaderID(); leader == "" || leader == peer.NodeID {
				late = 0
				continue
			}
			if late += leaderCheck; late > patience {
				cancel(fmt.Errorf("%s doesn't lead any more: %w", peer.NodeID, cluster.ErrNotLeader))
				return
			}
		}
	}
}

// smallBody is the largest body of a request that is carried by Manager.Calls.
const smallBody = 64 << 10

// carry sends a request to the leader, in the cheaper way if it can go so.
func carry(manager Manager, peer cluster.Peer, kind kind, out *http.Request) (*http.Response, error) {
	if kind == write && out.ContentLength <= smallBody {
		answer, err := manager.Calls(peer).RoundTrip(out)
		if err == nil || !errors.Is(err, cluster.ErrUnreachable) || out.Context().Err() != nil {
			return answer, err
		}
		if out.GetBody != nil { // It was read.
			if out.Body, err = out.GetBody(); err != nil {
				return nil, err
			}
		}
	}
	return roundTrip(manager.Client(), out)
}

// roundTrip sends a request without the client's overall timeout, which would
// cut logs off, and without following redirects.
func roundTrip(client *http.Client, request *http.Request) (*http.Response, error) {
	transport := client.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	return transport.RoundTrip(request)
}

// stream copies an answer, passing each part on at once.
func stream(w http.ResponseWriter, from io.Reader) error {
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
			if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
