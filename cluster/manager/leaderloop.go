package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// leadAgain is the pause before a leader's work that failed is started again.
	leadAgain = time.Second
	// lookForLead is how often raft is asked who leads when it tells nothing by itself.
	lookForLead = time.Second
)

// leaderLoop sees to it that a leader's work is done while raft says that this manager
// leads. What raft tells by its channel, which keeps only the last value, only wakes
// it: it asks raft each time.
type leaderLoop struct {
	// leads is the term in which raft says that this manager leads; 0 when it doesn't.
	leads func() uint64
	// wake has something when leads may say something else.
	wake <-chan bool
	// work runs until its context ends or it fails.
	work func(ctx context.Context, term uint64) error
	// failed is told why work ended though raft says leader. It may try to hand over;
	// whatever comes of that, work is started again if leads says so.
	failed func(term uint64, err error)
}

// run returns when ctx ends.
func (t leaderLoop) run(ctx context.Context) error {
	for ctx.Err() == nil {
		term := t.leads()
		if term == 0 {
			t.sleep(ctx, func() bool { return t.leads() == 0 }, lookForLead)
			continue
		}
		err := t.serve(ctx, term)
		if ctx.Err() != nil || t.leads() != term {
			continue
		}
		t.failed(term, err)
		t.sleep(ctx, func() bool { return t.leads() == term }, leadAgain)
	}
	return ctx.Err()
}

// serve works until the term ends, ctx ends, or the work fails.
func (t leaderLoop) serve(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- t.work(ctx, term) }()
	for ctx.Err() == nil && t.leads() == term {
		timer := time.NewTimer(lookForLead)
		select {
		case err := <-done:
			timer.Stop()
			cancel()
			return err
		case <-ctx.Done():
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	cancel()
	return <-done
}

// sleep returns after limit, or when the reason for it is gone.
func (t leaderLoop) sleep(ctx context.Context, reason func() bool, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for ctx.Err() == nil && reason() {
		select {
		case <-ctx.Done():
		case <-t.wake:
		case <-timer.C:
			return
		}
	}
}

// leadership does a leader's work while raft says that this manager leads.
func (m *Manager) leadership(ctx context.Context) error {
	return leaderLoop{leads: m.leadsTerm, wake: m.raft.LeaderCh(), failed: m.notLeading, work: m.lead}.run(ctx)
}

// leadsTerm is the term in which raft says that this manager leads; 0 when it doesn't.
func (m *Manager) leadsTerm() uint64 {
	term := m.raft.CurrentTerm()
	if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != term {
		return 0 // Terms only grow, so in between it was this one.
	}
	return term
}

// notLeading takes in that this manager leads, but does no leader's work. Another may
// fare better; if there is none, or none that takes over, it goes on itself.
func (m *Manager) notLeading(term uint64, err error) {
	if err == nil {
		err = errors.New("a part of a leader's work ended")
	}
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		// Nothing failed: whoever hands over says what comes of it.
		m.setTrouble("leadership is being handed over")
		m.log.Debug("wait for the hand-over of leadership", "node", m.cfg.NodeID, "term", term, "err", err)
		return
	}
	if m.setTrouble(fmt.Sprintf("raft made it the leader, but it does no leader's work: %v; it tries again every second", err)) {
		m.log.Error("lead the cluster; trying again", "node", m.cfg.NodeID, "term", term, "err", err)
	}
	m.StepDown()
}
