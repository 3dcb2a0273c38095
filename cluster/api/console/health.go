package console

import (
	"context"
	"time"

	"skep/cluster"
)

const (
	// healthAge is how old the health may be that a page shows, when somebody can be asked.
	healthAge = 2 * time.Second
	// healthWait is how long one waits for the leader's word.
	healthWait = 2 * time.Second
)

// healthCache keeps the health of the cluster for a moment: all tabs have the same.
type healthCache struct {
	console *Console
	lock    chan struct{} // has one place: whoever asks
	known   answered
}

type answered struct {
	status cluster.Status
	at     time.Time
}

// get is the cluster's health: the leader's account, since it knows the most; without a
// leader what this manager knows.
func (h *healthCache) get(ctx context.Context, manager Manager) (cluster.Status, time.Time) {
	select {
	case h.lock <- struct{}{}:
		defer func() { <-h.lock }()
	case <-ctx.Done():
		return cluster.Status{}, time.Time{}
	}
	now := h.console.Now()
	fits := (h.known.status.LeaderID != "") == (manager.LeaderID() != "")
	if age := now.Sub(h.known.at); !h.known.at.IsZero() && age >= 0 && age < healthAge && fits {
		return h.known.status, h.known.at
	}
	if status, ok := h.ask(ctx, manager); ok {
		h.known = answered{status, now}
	}
	return h.known.status, h.known.at
}

func (h *healthCache) ask(ctx context.Context, manager Manager) (status cluster.Status, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	if leader := manager.LeaderID(); leader != "" && leader != manager.NodeID() {
		if err := h.console.call(ctx, "GET", "/skep/v1/status", nil, &status); err == nil {
			return status, true
		}
	}
	status, err := manager.Status(context.WithoutCancel(ctx), false) // It has limits of its own.
	return status, err == nil
}
