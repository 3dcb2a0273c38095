package manager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"skep/cluster"
	"skep/cluster/api"
	"skep/store"
)

// attach gives a container of the calling node a place in a network: POST /v1/attach.
func (m *Manager) attach(r *http.Request, request cluster.AttachRequest) (*cluster.Attached, error) {
	return m.attachOf(r.Context(), callerOf(r).NodeID, request)
}

func (m *Manager) attachOf(ctx context.Context, nodeID string, request cluster.AttachRequest) (answer *cluster.Attached, err error) {
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		answer, err = api.Attach(tx, nodeID, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// detach frees places of containers that are gone: POST /v1/detach.
func (m *Manager) detach(r *http.Request, request cluster.DetachRequest) (*cluster.DetachRequest, error) {
	return m.detachOf(r.Context(), callerOf(r).NodeID, request)
}

func (m *Manager) detachOf(ctx context.Context, nodeID string, request cluster.DetachRequest) (*cluster.DetachRequest, error) {
	if len(request.IDs) > cluster.MaxDetach {
		return nil, cluster.Errorf(cluster.ErrInvalid, "detach containers: %d at once are too many", len(request.IDs))
	}
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	if err := m.store.Update(ctx, func(tx *store.Tx) error { return api.Detach(tx, nodeID, request.IDs) }); err != nil {
		return nil, err
	}
	return &cluster.DetachRequest{}, nil
}

const (
	// reapAttachments is how many records are removed by one entry of the log.
	reapAttachments = 1000
	// reapRetry is the pause after that couldn't be written.
	reapRetry = time.Second
)

// freeAttachments removes the records of attachments that have ended when their addresses have
// rested. It runs while this manager leads.
func (m *Manager) freeAttachments(ctx context.Context) error {
	changes := m.store.Subscribe()
	defer changes.Close()
	for {
		wait, err := m.reapSome(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.log.Warn("addresses of containers that are gone can't be freed; trying again", "err", err)
			wait = reapRetry
		}
		timer := time.NewTimer(wait)
		for look := false; !look; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-changes.Ready():
				news, _, lost := changes.Take()
				look = lost || slices.ContainsFunc(news, endsAttachment)
			case <-timer.C:
				look = true
			}
		}
		timer.Stop()
	}
}

// endsAttachment tells whether a change is the end of an attachment.
func endsAttachment(c store.Change) bool {
	_, after := store.Sides[cluster.Attachment](c)
	return after != nil && !after.Ended.IsZero()
}

// reapSome removes what has rested, and says when to look again.
func (m *Manager) reapSome(ctx context.Context) (wait time.Duration, err error) {
	now := cluster.At(m.store.Now())
	rested, next := api.RestedAttachments(m.store.View(), now, reapAttachments)
	wait = time.Minute
	if next != 0 {
		wait = min(wait, max(next.Std().Sub(now.Std()), time.Millisecond))
	}
	if len(rested) == 0 {
		return wait, nil
	}
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		for _, a := range rested {
			tx.Delete(a)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("remove attachments that have ended: %w", err)
	}
	return wait, nil
}
