package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"skep/cluster"
)

// eventKeys are the filters of /events.
var eventKeys = []string{
	"type", "event", "scope", "daemon", "container", "plugin", "volume", "network", "image",
	"node", "service", "secret", "config", "label", "builder",
}

// engineRetry is waited before a stream of the engine's events that broke off is
// taken up again.
const engineRetry = time.Second

// eventQuery is what a client wants of events. A time is zero when it isn't given.
type eventQuery struct {
	since, until time.Time
	args         filters.Args
}

// streamEvents gives the cluster's events, as this manager's copy of the database
// sees them, and the local engine's, in one stream.
func (s *Server) streamEvents(ctx context.Context, r *request) (response, error) {
	var query eventQuery
	var err error
	if query.since, err = readTime(r, "since", s.Now()); err != nil {
		return response{}, err
	}
	if query.until, err = readTime(r, "until", s.Now()); err != nil {
		return response{}, err
	}
	if query.args, err = parseFilters(r, eventKeys...); err != nil {
		return response{}, err
	}
	if !query.until.IsZero() && query.until.Before(query.since) {
		return response{}, fail(cluster.ErrInvalid, "`since` time (%s) cannot be after `until` time (%s)", r.query.Get("since"), r.query.Get("until"))
	}
	return response{stream: func(ctx context.Context, w http.ResponseWriter) {
		s.writeEvents(ctx, w, r, query)
	}}, nil
}

func (s *Server) writeEvents(ctx context.Context, w http.ResponseWriter, r *request, query eventQuery) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	control := http.NewResponseController(w)
	flush := func() bool {
		err := control.Flush()
		return err == nil || errors.Is(err, http.ErrNotSupported)
	}
	// Who has the head of the answer must miss nothing from then on.
	past, live, stop := s.events.listen(func() { cutOff(w) })
	defer stop()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if !flush() {
		return
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	send := func(message *events.Message) bool { return encoder.Encode(message) == nil && flush() }

	past = slices.DeleteFunc(past, func(m *events.Message) bool { return !query.past() || !query.includes(m) })
	now, fromEngine := s.Now(), query.wantsEngine()
	over := !query.until.IsZero() && query.until.Before(now)
	engines := query
	if fromEngine && query.past() && query.since.Before(now) {
		// Past events are sent in order, whoever caused them.
		before := query
		if !over {
			before.until = now
		}
		short, cancel := context.WithTimeout(ctx, engineTimeout)
		s.readEngineEvents(short, r, before, func(m *events.Message) bool {
			past = append(past, m)
			engines.goOnAfter(m)
			return true
		})
		cancel()
		slices.SortStableFunc(past, func(a, b *events.Message) int { return cmp.Compare(a.TimeNano, b.TimeNano) })
	}
	for _, message := range past {
		if !send(message) {
			return
		}
	}
	if past = nil; over {
		return
	}
	engine := make(chan *events.Message)
	if fromEngine {
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		go func() {
			defer close(done)
			s.followEngineEvents(ctx, r, engines, engine)
		}()
	}
	var timeout <-chan time.Time
	if !query.until.IsZero() {
		timer := time.NewTimer(query.until.Sub(s.Now()))
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timeout:
			return
		case message, ok := <-live:
			if !ok {
				s.late(r.http, fmt.Sprintf("it is %d events behind", behindEvents))
				panic(http.ErrAbortHandler) // It can ask again with since, and must not take this for the end.
			}
			if query.includes(message) && !send(message) {
				return
			}
		case message := <-engine:
			if !send(message) {
				return
			}
		}
	}
}

// past tells whether what has been is wanted: either end of a span says so, as with Docker.
func (q *eventQuery) past() bool { return !q.since.IsZero() || !q.until.IsZero() }

// goOnAfter leaves out what has been sent already. The engine takes an event's time before
// it queues it, so the last one that it tells may not be the newest.
func (q *eventQuery) goOnAfter(sent *events.Message) {
	if next := time.Unix(0, sent.TimeNano+1); next.After(q.since) {
		q.since = next
	}
}

// wantsEngine tells whether any event of the engine could pass the filters.
func (q eventQuery) wantsEngine() bool {
	if scopes := q.args.Get("scope"); len(scopes) > 0 && !slices.Contains(scopes, "local") {
		return false
	}
	types := q.args.Get("type")
	for _, t := range types {
		if t != "node" && t != "service" && t != "secret" && t != "config" {
			return true
		}
	}
	return len(types) == 0 && !q.args.Contains("node") && !q.args.Contains("service") && !q.args.Contains("secret") && !q.args.Contains("config")
}

// includes filters the cluster's events as moby does.
func (q eventQuery) includes(m *events.Message) bool {
	args := q.args
	at := time.Unix(0, m.TimeNano)
	if at.Before(q.since) || (!q.until.IsZero() && at.After(q.until)) {
		return false
	}
	if !args.ExactMatch("event", string(m.Action)) || !args.ExactMatch("type", string(m.Type)) || !args.ExactMatch("scope", m.Scope) {
		return false
	}
	if args.Contains("label") && !args.MatchKVList("label", m.Actor.Attributes) {
		return false
	}
	name := m.Actor.Attributes["name"]
	for _, kind := range eventKeys {
		switch kind {
		case "type", "event", "scope", "label":
			continue
		}
		if args.Contains(kind) && !args.FuzzyMatch(kind, m.Actor.ID) && !args.FuzzyMatch(kind, name) {
			return false
		}
	}
	return true
}
