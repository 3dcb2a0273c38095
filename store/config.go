package store

import (
	"iter"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

var configs = &kindOf[cluster.Config]{
	number: 8,
	word:   "config",
	weigh:  weighConfig,
	most:   maxConfigs,
	key:    func(c *cluster.Config) string { return c.ID },
	blank:  func(id string) (*cluster.Config, error) { return &cluster.Config{ID: id}, nil },
	name:   func(c *cluster.Config) string { return c.Spec.Name },
	meta:   inMeta[cluster.Config](func(c *cluster.Config) *cluster.Meta { return &c.Meta }),
	times:  func(c *cluster.Config) []time.Time { return []time.Time{c.CreatedAt, c.UpdatedAt} },
	references: func(spec *swarm.TaskSpec) iter.Seq2[string, string] {
		return func(yield func(id, name string) bool) {
			if spec.ContainerSpec == nil {
				return
			}
			for _, ref := range spec.ContainerSpec.Configs {
				if !yield(ref.ConfigID, ref.ConfigName) {
					return
				}
			}
		}
	},
}

// Config finds a config by its ID.
func (v View) Config(id string) *cluster.Config { return configs.get(v, id) }

// ConfigNamed finds a config by its name, without regard to case.
func (v View) ConfigNamed(name string) *cluster.Config { return configs.named(v, name) }

// Configs lists the configs in the order of their IDs.
func (v View) Configs() iter.Seq[*cluster.Config] { return configs.list(v) }

// ConfigsWithPrefix lists the configs whose ID begins with prefix.
func (v View) ConfigsWithPrefix(prefix string) iter.Seq[*cluster.Config] {
	return configs.withPrefix(v, prefix)
}
