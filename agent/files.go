package agent

import (
	"io/fs"
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// File is a secret or a config as a task's container gets to see it.
type File struct {
	// Target is the absolute path in the container.
	Target   string
	Data     []byte
	UID, GID int
	Mode     fs.FileMode
}

// Files gives the files of the task's secrets and configs, with the templates in
// them filled in. An error that wraps cluster.ErrUnavailable says that one hasn't
// come yet.
func (a Assignment) Files() ([]File, error) {
	spec := a.Revision.Spec.ContainerSpec
	if spec == nil {
		return nil, nil
	}
	// All must have come before any is filled in: their templates may ask for each other.
	var sources []source
	for _, ref := range spec.Secrets {
		what := "secret " + ref.SecretName
		secret, err := find(a.Secrets, ref.SecretID, what)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source{what, ref.File, cluster.SecretTarget, secret.Spec.Data, secret.Spec.Templating, cluster.SecretLimit})
	}
	for _, ref := range spec.Configs {
		what := "config " + ref.ConfigName
		config, err := find(a.Configs, ref.ConfigID, what)
		if err != nil {
			return nil, err
		}
		file := (*swarm.SecretReferenceFileTarget)(ref.File)
		sources = append(sources, source{what, file, cluster.ConfigTarget, config.Spec.Data, config.Spec.Templating, cluster.ConfigLimit})
	}
	var files []File
	for _, s := range sources {
		file, err := s.expand(a)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// source is what a file is made of.
type source struct {
	what       string
	file       *swarm.SecretReferenceFileTarget
	target     func(name string) string
	data       []byte
	templating *swarm.Driver
	// limit is one byte more than the file may have.
	limit int
}

func (s source) expand(a Assignment) (File, error) {
	if s.file == nil {
		return File{}, cluster.Errorf(cluster.ErrUnsupported, "%s: a file must be given as its target", s.what)
	}
	if cluster.Climbs(s.file.Name) {
		return File{}, cluster.Errorf(cluster.ErrInvalid, "%s: the name of its file must not have .. in it: %q", s.what, s.file.Name)
	}
	uid, err := number(s.file.UID)
	if err != nil {
		return File{}, cluster.Errorf(cluster.ErrInvalid, "%s: the user of its file isn't a number: %q", s.what, s.file.UID)
	}
	gid, err := number(s.file.GID)
	if err != nil {
		return File{}, cluster.Errorf(cluster.ErrInvalid, "%s: the group of its file isn't a number: %q", s.what, s.file.GID)
	}
	data := s.data
	if s.templating != nil {
		if data, err = NewTemplate(a).body(s.what, data, s.limit); err != nil {
			return File{}, err
		}
	}
	return File{Target: s.target(s.file.Name), Data: data, UID: uid, GID: gid, Mode: s.file.Mode.Perm()}, nil
}

// find finds what a reference refers to.
func find[T any](objects map[string]*T, id, what string) (*T, error) {
	object, come := objects[id]
	switch {
	case !come:
		return nil, cluster.Errorf(cluster.ErrUnavailable, "waiting for a manager to send %s", what)
	case object == nil:
		return nil, cluster.Errorf(cluster.ErrNotFound, "%s not found: it was removed", what)
	}
	return object, nil
}

// number reads the ID of a user or group; none is root's.
func number(id string) (int, error) {
	if id == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(id, 10, 31)
	return int(n), err
}
