package store

import (
	"time"

	"skep/cluster"
)

// clusters is the kind of the cluster's own record.
var clusters = &kindOf[cluster.Cluster]{
	number: 1,
	word:   "cluster",
	key:    func(c *cluster.Cluster) string { return c.ID },
	blank:  func(id string) (*cluster.Cluster, error) { return &cluster.Cluster{ID: id}, nil },
	meta:   inMeta[cluster.Cluster](func(c *cluster.Cluster) *cluster.Meta { return &c.Meta }),
	times: func(c *cluster.Cluster) []time.Time {
		return []time.Time{c.CreatedAt, c.UpdatedAt, c.GossipKeysAt, c.BackupAt, c.ColdStart}
	},
	// There is one, whatever its ID.
	place: func(*cluster.Cluster) string { return "" },
}

// Cluster is the cluster's own record; nil before the first leader made it.
func (v View) Cluster() *cluster.Cluster { return clusters.get(v, "") }
