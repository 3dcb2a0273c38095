package store

import (
	"iter"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Reference is how a service names an object that its tasks are given.
type Reference struct {
	// Kind is what users call objects of the kind: "secret", "config".
	Kind     string
	ID, Name string
}

// ServicesUsing lists the services whose present spec refers to the object of this
// ID. It reads all services: there are few, next to their tasks, and only a removal
// asks.
func (v View) ServicesUsing(id string) iter.Seq[*cluster.Service] {
	return func(yield func(*cluster.Service) bool) {
		for service := range v.Services() {
			if refersTo(&service.Spec.TaskTemplate, id) && !yield(service) {
				return
			}
		}
	}
}

func refersTo(spec *swarm.TaskSpec, id string) bool {
	for _, k := range kinds {
		for ref := range k.referencesIn(spec) {
			if ref.ID == id {
				return true
			}
		}
	}
	return false
}

// Missing lists what spec refers to but the database doesn't have: by ID, and under the
// name that the reference gives. Those of a kind are together.
func (v View) Missing(spec *swarm.TaskSpec) (missing []Reference) {
	for i, k := range kinds {
		for ref := range k.referencesIn(spec) {
			if !v.s.tables[i].has(ref) {
				missing = append(missing, ref)
			}
		}
	}
	return missing
}
