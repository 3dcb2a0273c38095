package store

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"skep/cluster"
)

var revisions = &kindOf[cluster.Revision]{
	number: 4,
	word:   "revision",
	weigh:  weighRevision,
	key:    func(r *cluster.Revision) string { return cluster.RevisionID(r.ServiceID, r.Number) },
	blank:  blankRevision,
	meta:   inMeta[cluster.Revision](func(r *cluster.Revision) *cluster.Meta { return &r.Meta }),
	times: func(r *cluster.Revision) []time.Time {
		return []time.Time{r.CreatedAt, r.UpdatedAt, r.DependsMet, r.Due, r.Ended}
	},
	share: func(in *interner, r *cluster.Revision) { in.share(&r.ServiceID) },
	before: func(a, b *cluster.Revision) bool {
		if c := strings.Compare(a.ServiceID, b.ServiceID); c != 0 {
			return c < 0
		}
		return a.Number < b.Number
	},
}

func blankRevision(id string) (*cluster.Revision, error) {
	r := &cluster.Revision{}
	if id == "" {
		return r, nil
	}
	service, number, _ := strings.Cut(id, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("parse revision ID %q: %w", id, err)
	}
	r.ServiceID, r.Number = service, n
	return r, nil
}

// revisionPivots are reused, so that finding a revision allocates nothing.
var revisionPivots = sync.Pool{New: func() any { return new(cluster.Revision) }}

// Revision finds a revision of a service by its number.
func (v View) Revision(serviceID string, number uint64) *cluster.Revision {
	pivot := revisionPivots.Get().(*cluster.Revision)
	pivot.ServiceID, pivot.Number = serviceID, number
	found := revisions.in(v).get(pivot)
	revisionPivots.Put(pivot)
	return found
}

// RevisionsOf lists the kept revisions of a service, the oldest first.
func (v View) RevisionsOf(serviceID string) iter.Seq[*cluster.Revision] {
	return func(yield func(*cluster.Revision) bool) {
		revisions.in(v).ordered.Ascend(&cluster.Revision{ServiceID: serviceID}, func(r *cluster.Revision) bool {
			return r.ServiceID == serviceID && yield(r)
		})
	}
}

// Revisions lists all revisions, service by service.
func (v View) Revisions() iter.Seq[*cluster.Revision] { return revisions.list(v) }
