package store

import (
	"iter"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

var secrets = &kindOf[cluster.Secret]{
	number: 7,
	word:   "secret",
	weigh:  weighSecret,
	most:   maxSecrets,
	key:    func(s *cluster.Secret) string { return s.ID },
	blank:  func(id string) (*cluster.Secret, error) { return &cluster.Secret{ID: id}, nil },
	name:   func(s *cluster.Secret) string { return s.Spec.Name },
	meta:   inMeta[cluster.Secret](func(s *cluster.Secret) *cluster.Meta { return &s.Meta }),
	times:  func(s *cluster.Secret) []time.Time { return []time.Time{s.CreatedAt, s.UpdatedAt} },
	references: func(spec *swarm.TaskSpec) iter.Seq2[string, string] {
		return func(yield func(id, name string) bool) {
			if spec.ContainerSpec == nil {
				return
			}
			for _, ref := range spec.ContainerSpec.Secrets {
				if !yield(ref.SecretID, ref.SecretName) {
					return
				}
			}
		}
	},
}

// Secret finds a secret by its ID.
func (v View) Secret(id string) *cluster.Secret { return secrets.get(v, id) }

// SecretNamed finds a secret by its name, without regard to case.
func (v View) SecretNamed(name string) *cluster.Secret { return secrets.named(v, name) }

// Secrets lists the secrets in the order of their IDs.
func (v View) Secrets() iter.Seq[*cluster.Secret] { return secrets.list(v) }

// SecretsWithPrefix lists the secrets whose ID begins with prefix.
func (v View) SecretsWithPrefix(prefix string) iter.Seq[*cluster.Secret] {
	return secrets.withPrefix(v, prefix)
}
