package store

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"skep/cluster"
)

// kind says which table an object is in. The numbers are in logs and snapshots:
// add new ones at the end, and never give one a new meaning.
type kind uint8

const (
	kindCluster kind = iota + 1
	kindNode
	kindService
	kindRevision
	kindRollout
	kindTask
	kindSecret
	kindConfig
)

// identify returns the kind and the key of an object; ok is false for what isn't
// an object of the database.
func identify(object any) (k kind, id string, ok bool) {
	switch o := object.(type) {
	case *cluster.Cluster:
		return kindCluster, o.ID, true
	case *cluster.Node:
		return kindNode, o.ID, true
	case *cluster.Service:
		return kindService, o.ID, true
	case *cluster.Revision:
		return kindRevision, cluster.RevisionID(o.ServiceID, o.Number), true
	case *cluster.Rollout:
		return kindRollout, o.ServiceID, true
	case *cluster.Task:
		return kindTask, o.ID, true
	case *cluster.Secret:
		return kindSecret, o.ID, true
	case *cluster.Config:
		return kindConfig, o.ID, true
	}
	return 0, "", false
}

// blank makes an object with nothing but its key: to look it up, or to decode
// into.
func blank(k kind, id string) (any, error) {
	switch k {
	case kindCluster:
		return &cluster.Cluster{ID: id}, nil
	case kindNode:
		return &cluster.Node{ID: id}, nil
	case kindService:
		return &cluster.Service{ID: id}, nil
	case kindRevision:
		r := &cluster.Revision{}
		if id != "" {
			service, number, _ := strings.Cut(id, ".")
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("parse revision ID %q: %w", id, err)
			}
			r.ServiceID, r.Number = service, n
		}
		return r, nil
	case kindRollout:
		return &cluster.Rollout{ServiceID: id}, nil
	case kindTask:
		return &cluster.Task{ID: id}, nil
	case kindSecret:
		return &cluster.Secret{ID: id}, nil
	case kindConfig:
		return &cluster.Config{ID: id}, nil
	}
	return nil, fmt.Errorf("kind %d isn't known", k)
}

// meta is the bookkeeping of any object but a task, which keeps its own.
func meta(object any) *cluster.Meta {
	switch o := object.(type) {
	case *cluster.Cluster:
		return &o.Meta
	case *cluster.Node:
		return &o.Meta
	case *cluster.Service:
		return &o.Meta
	case *cluster.Revision:
		return &o.Meta
	case *cluster.Rollout:
		return &o.Meta
	case *cluster.Secret:
		return &o.Meta
	case *cluster.Config:
		return &o.Meta
	}
	return nil
}

// times are all that an object has; a task's are numbers.
func times(object any) []time.Time {
	var own []time.Time
	switch o := object.(type) {
	case *cluster.Task:
		return nil
	case *cluster.Cluster:
		own = []time.Time{o.GossipKeysAt, o.BackupAt, o.ColdStart}
	case *cluster.Node:
		own = []time.Time{o.Status.Since, o.Certificate.Ends}
	case *cluster.Rollout:
		own = []time.Time{o.StartedAt, o.CompletedAt}
	}
	m := meta(object)
	return append(own, m.CreatedAt, m.UpdatedAt)
}

// provisional is the version of an object that the transaction's batch has
// written but raft hasn't: no reader can have seen it, so whoever checks a
// version against it conflicts, as they must.
const provisional = math.MaxUint64

// stamp gives an object that is to be put its times and its provisional version.
// before is the object in its place, or nil.
func stamp(object, before any, now time.Time) {
	if t, ok := object.(*cluster.Task); ok {
		t.Version, t.UpdatedAt, t.CreatedAt = provisional, cluster.At(now), cluster.At(now)
		if old, ok := before.(*cluster.Task); ok {
			t.CreatedAt = old.CreatedAt
		}
		return
	}
	m := meta(object)
	m.Version, m.UpdatedAt, m.CreatedAt = provisional, now, now
	if before != nil {
		m.CreatedAt = meta(before).CreatedAt
	}
}

// setVersion gives an object that nobody else has yet its final version.
func setVersion(object any, index uint64) {
	if t, ok := object.(*cluster.Task); ok {
		t.Version = index
		return
	}
	meta(object).Version = index
}
