package store

import (
	"iter"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Secret finds a secret by its ID.
func (v View) Secret(id string) *cluster.Secret { return find(v.s.secrets, id) }

// SecretNamed finds a secret by its name, without regard to case.
func (v View) SecretNamed(name string) *cluster.Secret { return find(v.s.secretNames, nameKey(name)) }

// Secrets lists the secrets in the order of their IDs.
func (v View) Secrets() iter.Seq[*cluster.Secret] { return all(v.s.secrets) }

// SecretsWithPrefix lists the secrets whose ID begins with prefix.
func (v View) SecretsWithPrefix(prefix string) iter.Seq[*cluster.Secret] {
	return withPrefix(v.s.secrets, prefix)
}

// Config finds a config by its ID.
func (v View) Config(id string) *cluster.Config { return find(v.s.configs, id) }

// ConfigNamed finds a config by its name, without regard to case.
func (v View) ConfigNamed(name string) *cluster.Config { return find(v.s.configNames, nameKey(name)) }

// Configs lists the configs in the order of their IDs.
func (v View) Configs() iter.Seq[*cluster.Config] { return all(v.s.configs) }

// ConfigsWithPrefix lists the configs whose ID begins with prefix.
func (v View) ConfigsWithPrefix(prefix string) iter.Seq[*cluster.Config] {
	return withPrefix(v.s.configs, prefix)
}

// ServicesUsing lists the services whose present spec refers to the secret or
// config of this ID. It reads all services: there are few, next to their tasks,
// and only a removal asks.
func (v View) ServicesUsing(id string) iter.Seq[*cluster.Service] {
	return func(yield func(*cluster.Service) bool) {
		for service := range v.Services() {
			if slices.Contains(cluster.References(service.Spec.TaskTemplate.ContainerSpec), id) && !yield(service) {
				return
			}
		}
	}
}

// Missing names what spec refers to but the database doesn't have: by ID, and
// under the name that the reference gives.
func (v View) Missing(spec *swarm.ContainerSpec) (secrets, configs []string) {
	if spec == nil {
		return nil, nil
	}
	for _, ref := range spec.Secrets {
		if secret := v.Secret(ref.SecretID); secret == nil || secret.Spec.Name != ref.SecretName {
			secrets = append(secrets, ref.SecretName)
		}
	}
	for _, ref := range spec.Configs {
		if config := v.Config(ref.ConfigID); config == nil || config.Spec.Name != ref.ConfigName {
			configs = append(configs, ref.ConfigName)
		}
	}
	return secrets, configs
}
