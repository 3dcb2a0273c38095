package trace

import (
	"sync"
	"time"

	otel "go.opentelemetry.io/otel/trace"
)

const (
	// originsKept is of how many services the origins are kept, and originLasts for how long: an
	// image may take minutes to come.
	originsKept = 1024
	originLasts = 15 * time.Minute
	// freshKept is how many origins may wait to be told to other managers.
	freshKept = 64
)

// Origin is the span that a service's tasks come from: a change of the service.
type Origin struct{ ServiceID, Traceparent string }

// origins are those of the services that were changed last.
type origins struct {
	now   func() time.Time
	fresh chan Origin

	mu        sync.Mutex // guards the fields below
	byService map[string]origin
}

type origin struct {
	at    otel.SpanContext
	since time.Time
}

func newOrigins(now func() time.Time) origins {
	return origins{now: now, fresh: make(chan Origin, freshKept), byService: map[string]origin{}}
}

// SetOrigin notes, on the leader, that s changes a service. What s itself follows from stays its origin.
func (t *Tracer) SetOrigin(serviceID string, s *Span) {
	if t == nil || s == nil {
		return
	}
	if known, kept := t.origins.get(serviceID); kept && s.of(known) != nil {
		return
	}
	t.origins.set(serviceID, s.in[0].SpanContext())
	select {
	case t.origins.fresh <- Origin{serviceID, s.Traceparent()}:
	default: // Other managers don't hear of it: see the package doc.
	}
}

// TakeOrigin takes in what the leader noted.
func (t *Tracer) TakeOrigin(o Origin) {
	if s := At(o.Traceparent); t != nil && s != nil {
		t.origins.set(o.ServiceID, s.in[0].SpanContext())
	}
}

// Fresh gives the origins that SetOrigin has noted, each once.
func (t *Tracer) Fresh() <-chan Origin { return t.origins.fresh }

// Origin is where work for these services belongs; nil when none of them has an origin.
func (t *Tracer) Origin(serviceIDs ...string) *Span {
	if t == nil {
		return nil
	}
	var all []*Span
	for _, id := range serviceIDs {
		if at, kept := t.origins.get(id); kept {
			all = append(all, place(at))
		}
	}
	return Join(all)
}

func (o *origins) get(serviceID string) (otel.SpanContext, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, kept := o.byService[serviceID]
	return known.at, kept && !o.over(known)
}

func (o *origins) over(known origin) bool { return o.now().Sub(known.since) >= originLasts }

func (o *origins) set(serviceID string, at otel.SpanContext) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, kept := o.byService[serviceID]; !kept && len(o.byService) >= originsKept {
		oldest, since := "", o.now()
		for id, known := range o.byService {
			if o.over(known) {
				delete(o.byService, id)
			} else if !known.since.After(since) {
				oldest, since = id, known.since
			}
		}
		if len(o.byService) >= originsKept {
			delete(o.byService, oldest)
		}
	}
	o.byService[serviceID] = origin{at, o.now()}
}
