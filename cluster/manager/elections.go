package manager

import (
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster/telemetry"
	"skep/cluster/timeline"
)

// Why a manager stands for election.
const (
	causeSilence    = timeline.BySilence
	causeConnection = timeline.ByConnection
	causeHandOver   = timeline.ByHandOver
	causeTimeout    = timeline.ByTimeout // raft's own: nothing else was the cause
)

// elections counts what becomes of leaders, and adds it to the timeline.
type elections struct {
	metrics  telemetry.Raft
	timeline *timeline.Ring

	mu sync.Mutex // guards next and cause
	// next is why this manager stands, if it is about to; "" for raft's own reasons.
	next string
	// cause is why this manager stands now; "" when it doesn't.
	cause string

	// The fields below belong to Manager.watch. Last is who led last, and since when nobody has; the zero time while somebody does.
	last  string
	since time.Time
	// leader is who leads, in which term; "" for nobody.
	leader string
	term   uint64
}

// stands tells why this manager is about to stand.
func (e *elections) stands(cause string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next = cause
}

// became takes in what raft is now, and its term. One that stands again in a later term stands once.
func (e *elections) became(state raft.RaftState, term uint64, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	record := timeline.Record{Time: now, Kind: timeline.Role, Word: strings.ToLower(state.String())}
	defer func() { e.timeline.Add(record) }()
	if state == raft.Leader {
		record.Term = term
	}
	switch {
	case state == raft.Candidate:
		e.cause, e.next = e.next, ""
		if e.cause == "" {
			e.cause = causeTimeout
		}
		record.Why = e.cause
	case e.cause != "":
		result := "lost"
		if state == raft.Leader {
			result = "won"
		}
		e.metrics.Elections.Add(1, e.cause, result)
		e.cause = ""
	}
}

// leads takes in who leads and in which term; "" for nobody. Self is this manager, which says by what it
// becomes that it leads.
func (e *elections) leads(id string, term uint64, self string, now time.Time) {
	if id != e.leader || id != "" && term != e.term {
		switch {
		case id == "" && e.leader != self:
			e.timeline.Add(timeline.Record{Time: now, Kind: timeline.Leaderless, Node: e.leader})
		case id != "" && id != self:
			e.timeline.Add(timeline.Record{Time: now, Kind: timeline.Follows, Term: term, Node: id})
		}
		e.leader, e.term = id, term
	}
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
