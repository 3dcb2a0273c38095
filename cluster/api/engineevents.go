package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// followEngineEvents passes the engine's events on until ctx ends. When the engine
// goes away it goes on, when it is back, after the last event that was seen.
func (s *Server) followEngineEvents(ctx context.Context, r *request, query eventQuery, to chan<- *events.Message) {
	for {
		s.readEngineEvents(ctx, r, query, func(message *events.Message) bool {
			query.goOnAfter(message)
			select {
			case to <- message:
				return true
			case <-ctx.Done():
				return false
			}
		})
		if query.since.IsZero() {
			query.since = s.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(engineRetry):
		}
	}
}

// readEngineEvents reads one stream of the engine's events to its end. The
// engine's own swarm, if it is in one, isn't ours.
func (s *Server) readEngineEvents(ctx context.Context, r *request, query eventQuery, emit func(*events.Message) bool) {
	asked := url.Values{}
	if !query.since.IsZero() {
		asked.Set("since", stamp(query.since))
	}
	if !query.until.IsZero() {
		asked.Set("until", stamp(query.until))
	}
	if encoded, err := filters.ToJSON(query.args); err == nil && encoded != "" {
		asked.Set("filters", encoded)
	}
	answer, err := s.engine.open(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/events?"+asked.Encode(), http.Header{})
	if err != nil {
		s.Log.Debug("engine's events aren't there", "error", err)
		return
	}
	defer answer.Body.Close()
	decoder := json.NewDecoder(answer.Body)
	for {
		message := new(events.Message)
		if decoder.Decode(message) != nil {
			return
		}
		if message.Scope != "swarm" && !emit(message) {
			return
		}
	}
}

// stamp writes a time as the engine reads it.
func stamp(t time.Time) string {
	nanos := strconv.Itoa(t.Nanosecond())
	for len(nanos) < 9 {
		nanos = "0" + nanos
	}
	return strconv.FormatInt(t.Unix(), 10) + "." + nanos
}
