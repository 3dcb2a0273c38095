package api

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// fileRef is what the references to secrets and to configs have in common.
type fileRef struct {
	kind, id, name string
	file           *swarm.SecretReferenceFileTarget
	// target is where the file is in the container, as at says.
	target string
	at     func(string) string
}

// references lists a container's references, as far as they are well formed.
func references(spec *swarm.ContainerSpec) ([]fileRef, error) {
	var list []fileRef
	add := func(r fileRef, at func(string) string) error {
		switch {
		case r.id == "" || r.name == "":
			return fail(cluster.ErrInvalid, "malformed %s reference", r.kind)
		case r.file == nil:
			return fail(cluster.ErrInvalid, "malformed %s reference, no target provided", r.kind)
		case r.file.Name == "" || strings.ContainsRune(r.file.Name, 0):
			return fail(cluster.ErrInvalid, "malformed file %s reference, invalid target file name provided", r.kind)
		}
		r.target, r.at = at(r.file.Name), at
		list = append(list, r)
		return nil
	}
	for _, ref := range spec.Secrets {
		if ref == nil {
			ref = &swarm.SecretReference{}
		}
		if err := add(fileRef{kind: "secret", id: ref.SecretID, name: ref.SecretName, file: ref.File}, cluster.SecretTarget); err != nil {
			return nil, err
		}
	}
	for _, ref := range spec.Configs {
		if ref == nil {
			ref = &swarm.ConfigReference{}
		}
		if ref.Runtime != nil {
			return nil, unsupported("ContainerSpec.Configs with a Runtime target", "give a File target: Runtime is for the credential specs of Windows")
		}
		file := (*swarm.SecretReferenceFileTarget)(ref.File)
		if err := add(fileRef{kind: "config", id: ref.ConfigID, name: ref.ConfigName, file: file}, cluster.ConfigTarget); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// checkReferences refuses references that make no sense by themselves; whether
// what they refer to is there is for checkPresent to say.
func checkReferences(spec *swarm.ContainerSpec) error {
	list, err := references(spec)
	if err != nil {
		return err
	}
	taken := map[string]fileRef{}
	for _, r := range list {
		if r.target == "/" || strings.HasSuffix(r.file.Name, "/") {
			return fail(cluster.ErrInvalid, "malformed file %s reference, target %q is no file", r.kind, r.file.Name)
		}
		if cluster.Climbs(r.file.Name) {
			return fail(cluster.ErrInvalid, "malformed file %s reference, target %q must not have .. in it: a file that isn't below %s needs its absolute path", r.kind, r.file.Name, path.Dir(r.at("x")))
		}
		if before, ok := taken[r.target]; ok {
			return fail(cluster.ErrInvalid, "%s references '%s' and '%s' have a conflicting target: '%s'", r.kind, before.name, r.name, r.file.Name)
		}
		taken[r.target] = r
		for _, id := range []string{r.file.UID, r.file.GID} {
			if _, err := strconv.ParseUint(id, 10, 31); id != "" && err != nil {
				return fail(cluster.ErrInvalid, "%s reference '%s': user and group of the file must be numbers, not %q", r.kind, r.name, id)
			}
		}
		if r.file.Mode > 0o777 {
			return fail(cluster.ErrInvalid, "%s reference '%s': the file's mode %#o must be from 0 to 0777", r.kind, r.name, uint32(r.file.Mode))
		}
	}
	for _, m := range spec.Mounts {
		if _, ok := taken[path.Clean(m.Target)]; ok {
			return fail(cluster.ErrInvalid, "ContainerSpec: duplicate mount point: %s", m.Target)
		}
	}
	return nil
}

// checkPresent refuses a spec that refers to what isn't there, and names those of one kind.
// It is called in the transaction that writes the spec.
func checkPresent(view store.View, spec *swarm.ServiceSpec) error {
	missing := view.Missing(&spec.TaskTemplate)
	if len(missing) == 0 {
		return nil
	}
	kind, names := missing[0].Kind, []string(nil)
	for _, ref := range missing {
		if ref.Kind == kind {
			names = append(names, cmp.Or(ref.Name, ref.ID))
		}
	}
	if slices.Sort(names); len(names) > 1 {
		kind += "s"
	}
	return fail(cluster.ErrInvalid, "%s not found: %s", kind, strings.Join(names, ", "))
}
