package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skep/cluster"
	"skep/cluster/trace"
)

// Updates that are one entry have a commit each, with links to one another's; what is refused has none.
func TestUpdate_IsTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := tracetest.NewInMemoryExporter()
		tracer := trace.New(time.Now, sdk.WithSyncer(memory))
		s := New(Config{Log: quiet, Trace: tracer})
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		leadOn(t, s, r)
		write := func(object any, result error) {
			ctx, request := tracer.Serve(context.Background(), http.Header{}, "api")
			err := s.Update(ctx, func(tx *Tx) error { return errors.Join(tx.Put(object), result) })
			request.End(err)
		}
		var wait sync.WaitGroup
		wait.Go(func() { put(t, s, &cluster.Task{ID: "t0"}) }) // Nobody's; the others pile up behind it.
		synctest.Wait()
		for i := range 3 {
			wait.Go(func() { write(service(fmt.Sprint("s", i), fmt.Sprint("web", i)), nil) })
			synctest.Wait() // So that what is refused is the last, and waits for the entry.
		}
		wait.Go(func() { write(service("s9", "web9"), cluster.ErrConflict) })
		synctest.Wait()
		r.hold <- struct{}{}
		synctest.Wait()
		r.hold <- struct{}{}
		wait.Wait()
		spans := map[string]tracetest.SpanStubs{}
		for _, span := range memory.GetSpans() {
			spans[span.Name] = append(spans[span.Name], span)
		}
		if n := len(spans["store.update"]); n != 4 {
			t.Fatalf("%d updates, want 4", n)
		}
		updates := map[string]string{}
		for _, span := range spans["store.update"] {
			said := attributes(span)
			updates[span.SpanContext.SpanID().String()] = said["skep.result"] + " " + said["skep.service.id"] + " " + said["skep.service.name"]
			if len(span.Events) != 1 || span.Events[0].Name != "taken" {
				t.Errorf("an update's events are %v", span.Events)
			}
		}
		commits, applied := map[string]bool{}, map[string]bool{}
		for _, span := range spans["raft.commit"] {
			commits[updates[span.Parent.SpanID().String()]] = true
			if said := attributes(span); said["skep.index"] != "2" || said["skep.updates"] != "4" || len(span.Links) != 3 {
				t.Errorf("a commit says %v, with %d links; want index 2 and the 4 updates that it answers", said, len(span.Links))
			}
		}
		for _, span := range spans["fsm.apply"] {
			applied[updates[span.Parent.SpanID().String()]] = true
		}
		for i := range 3 {
			if want := fmt.Sprintf("ok s%d web%d", i, i); !commits[want] || !applied[want] {
				t.Errorf("committed: %v, applied: %v; want %s among both", commits, applied, want)
			}
		}
		if len(applied) != 3 || tracer.Origin("s9") != nil {
			t.Errorf("applied: %v, and what was refused is the origin %v", applied, tracer.Origin("s9"))
		}
	})
}

func attributes(span tracetest.SpanStub) map[string]string {
	said := map[string]string{}
	for _, a := range span.Attributes {
		said[string(a.Key)] = a.Value.String()
	}
	return said
}
