package dispatch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
)

const (
	// retryFirst and retryLast are the waits after failed relays.
	retryFirst = 20 * time.Millisecond
	retryLast  = liveness.RelayEvery
	// relayPatience is how long that may fail before it is said: longer than an election.
	relayPatience = 5 * time.Second
	// lastRelayTimeout is how long a manager that stops tries to relay what is left.
	lastRelayTimeout = time.Second
)

// relay sends the leader what is in the outbox, until ctx ends.
func (d *Dispatcher) relay(ctx context.Context) error {
	defer d.lastRelay(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := time.Duration(0)
	failing := cluster.Complaint{Log: d.config.Log, Patience: relayPatience, Now: d.config.Now}
	acknowledged := d.config.Now()
	fresh := true // The leader is another one than before, or may be.
	for {
		changed := d.config.LeaderChanged()
		err := d.relayOnce(ctx, changed)
		news := d.outbox.news
		if err == nil {
			retry = 0
			acknowledged = d.config.Now()
			every := d.relayEvery()
			if fresh { // A new leader misses sessions soon, so the second relay comes early.
				every, fresh = liveness.RelayEvery, false
			}
			timer.Reset(every)
		} else {
			retry = min(max(2*retry, retryFirst), retryLast)
			timer.Reset(retry)
			news = nil // It goes out with the next try.
		}
		if ctx.Err() == nil {
			failing.About(err, "the leader can't be told of agents' news; trying again", "the leader hears of agents' news again", "node", d.config.NodeID)
		}
		d.setIsolated(d.config.Now().Sub(acknowledged) > d.config.IsolatedAfter)
		for again := false; !again; {
			again = true
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-news:
			case <-d.outbox.asked:
				again = false
				timer.Reset(liveness.RelayEvery)
			case <-changed:
				retry, fresh = 0, true
			case <-timer.C:
			}
		}
	}
}

// relayEvery is how often a manager without news relays: seldom when the leader has other
// contact with it, but soon after another one began to lead and while agents ask for leases.
func (d *Dispatcher) relayEvery() time.Duration {
	if d.config.LastContact != nil {
		return liveness.RelaySlowly
	}
	return liveness.RelayEvery
}

// lastRelay sends the leader what is left when this manager stops, above all which
// agents stopped in order.
func (d *Dispatcher) lastRelay(ctx context.Context) {
	if d.outbox.empty() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRelayTimeout)
	defer cancel()
	for {
		// A leader that was just elected accepts no relay for a moment.
		err := d.relayOnce(ctx, nil)
		if err == nil {
			return
		}
		if !cluster.Sleep(ctx, retryFirst) {
			d.config.Log.Info("stop with news that the leader didn't hear", "err", err)
			return
		}
	}
}

// relayOnce sends one relay and waits for its acknowledgement, but no longer than
// until the leader changes.
func (d *Dispatcher) relayOnce(ctx context.Context, changed <-chan struct{}) error {
	peer, self, ok := d.config.Leader()
	if !ok {
		return cluster.ErrNoLeader
	}
	ctx, cancel := context.WithTimeout(ctx, liveness.RelayTimeout)
	defer cancel()
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	p := d.outbox.next(d.config.NodeID, d.epoch, d.config.Now())
	span := d.traceRelay(ctx, &p.relay)
	var answer cluster.RelayAnswer
	var err error
	if self {
		answer, err = d.leading().take(ctx, p.relay)
	} else {
		err = d.post(ctx, peer, "/v1/relay", p.relay, func(body io.Reader) error {
			data, err := io.ReadAll(io.LimitReader(body, maxRelayBody))
			if err != nil || len(data) == 0 {
				return err
			}
			return cluster.Decode(data, &answer)
		})
	}
	span.End(err)
	if err != nil {
		return err
	}
	d.outbox.ack(p)
	for _, nodeID := range answer.Leases {
		d.session(nodeID).grant(d.outbox.granted(p, nodeID))
	}
	for _, nodeID := range answer.Missing {
		d.config.Probe(nodeID)
	}
	return nil
}

// post sends body to another manager. Answer reads what comes back; without it,
// nothing is expected.
func (d *Dispatcher) post(ctx context.Context, peer cluster.Peer, path string, body any, answer func(io.Reader) error) error {
	if d.config.Client == nil {
		return fmt.Errorf("ask manager %s: no HTTP client was given: %w", peer.NodeID, cluster.ErrUnavailable)
	}
	data, err := cluster.Encode(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+peer.Addr+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("ask manager %s: %w", peer.NodeID, err)
	}
	request.Header.Set("Content-Type", "application/cbor")
	response, err := d.config.Client.Do(request)
	if err != nil {
		return fmt.Errorf("ask manager %s: %w", peer.NodeID, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK, http.StatusNoContent:
		if answer == nil {
			return nil
		}
		return answer(response.Body)
	case http.StatusNotFound:
		err = cluster.ErrNotFound
	case http.StatusForbidden:
		err = cluster.ErrDenied
	default:
		err = cluster.ErrUnavailable
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // An error while reading an error adds nothing.
	return fmt.Errorf("ask manager %s: %w: %s", peer.NodeID, err, strings.TrimSpace(string(text)))
}
