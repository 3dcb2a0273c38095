package cluster

import (
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// Where files of secrets and configs are in a container, unless their reference
// gives an absolute path.
const (
	secretDir = "/run/secrets"
	configDir = "/"
)

// SecretLimit and ConfigLimit are one byte more than a secret's and a config's data
// may have, also when their templates are filled in.
const (
	SecretLimit = 500 << 10
	ConfigLimit = 1000 << 10
)

// SecretTarget is the path in the container of a secret's file of this name.
func SecretTarget(name string) string { return target(secretDir, name) }

// ConfigTarget is the path in the container of a config's file of this name.
func ConfigTarget(name string) string { return target(configDir, name) }

// Climbs tells whether a path has a .. in it, so that it is somewhere else than it looks like.
func Climbs(name string) bool { return slices.Contains(strings.Split(name, "/"), "..") }

func target(dir, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(dir, name)
}

// References lists the IDs of the secrets and configs that a container's spec
// refers to.
func References(spec *swarm.ContainerSpec) []string {
	if spec == nil {
		return nil
	}
	var ids []string
	for _, ref := range spec.Secrets {
		ids = append(ids, ref.SecretID)
	}
	for _, ref := range spec.Configs {
		ids = append(ids, ref.ConfigID)
	}
	return ids
}
