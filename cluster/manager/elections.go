package manager

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster/telemetry"
)

// Why a manager stands for election.
const (
	causeSilence    = "silence"
	causeConnection = "connection"
	causeHandOver   = "handover"
	causeTimeout    = "timeout" // raft's own: nothing else was the cause
)

// elections counts what becomes of leaders.
type elections struct {
	metrics telemetry.Raft

	mu sync.Mutex // guards next
	// next is why this manager stands, if it is about to; "" for raft's own reasons.
	next string

	// The fields below belong to Manager.watch. cause is why this manager stands now; "" when it doesn't.
	cause string
	// last is who led last, and since when nobody has; the zero time while somebody does.
	last  string
	since time.Time
}

// stands tells why this manager is about to stand.
func (e *elections) stands(cause string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next = cause
}

// became takes in what raft is now. One that stands again in a later term stands once.
func (e *elections) became(state raft.RaftState) {
	switch {
	case state == raft.Candidate:
		e.mu.Lock()
		e.cause, e.next = e.next, ""
		e.mu.Unlock()
		if e.cause == "" {
			e.cause = causeTimeout
		}
	case e.cause != "":
		result := "lost"
		if state == raft.Leader {
			result = "won"
		}
		e.metrics.Elections.Add(1, e.cause, result)
		e.cause = ""
	}
}

// leads takes in who leads; "" for nobody.
func (e *elections) leads(id string, now time.Time) {
	if id == "" {
		if e.since.IsZero() {
			e.since = now
		}
		return
	}
	if e.last != "" && (e.last != id || !e.since.IsZero()) {
		e.metrics.Changes.Add(1)
	}
	if !e.since.IsZero() {
		e.metrics.Leaderless.Took(now.Sub(e.since))
	}
	e.last, e.since = id, time.Time{}
}
