package store

import (
	"context"

	"skep/cluster"
	"skep/cluster/trace"
)

// endUpdate ends the span of an Update with what it came to, in the words by which it is counted.
func endUpdate(span *trace.Span, err error) {
	if span == nil {
		return
	}
	result := "ok"
	if err != nil {
		result = resultOf(err)
	}
	span.Set(trace.Result, result)
	span.End(err)
}

// endCommit ends the span of an entry.
func (b *batch) endCommit(span *trace.Span, err error) {
	span.SetNumber(trace.Index, int(b.index))
	span.SetNumber(trace.Updates, len(b.waiting))
	span.End(err)
}

// setOrigins notes which services an Update changes: what follows from that belongs below its span. It is done before the
// entry is proposed, since the scheduler looks as soon as it is committed.
func setOrigins(t *trace.Tracer, span *trace.Span, changes []txChange) {
	for _, c := range changes {
		switch o := c.after.(type) {
		case *cluster.Service:
			span.Set(trace.Service, o.ID)
			span.Set(trace.ServiceName, o.Spec.Name)
			t.SetOrigin(o.ID, span)
		case *cluster.Rollout:
			t.SetOrigin(o.ServiceID, span)
		}
	}
}

// startApply begins the span of an entry that changes services, or makes or assigns tasks of theirs. What agents
// report of tasks has spans enough.
func (s *Store) startApply(index uint64, e entry, objects []any) *trace.Span {
	if s.trace == nil {
		return nil
	}
	var services []string
	for i, object := range objects {
		switch o := object.(type) {
		case *cluster.Service:
			services = append(services, o.ID)
		case *cluster.Task:
			if e.Changes[i].Object != nil && o.Status.State <= cluster.StateAssigned {
				services = append(services, o.ServiceID)
			}
		}
	}
	_, span := s.trace.Start(trace.With(context.Background(), s.trace.Origin(services...)), "fsm.apply")
	span.SetNumber(trace.Index, int(index))
	return span
}
