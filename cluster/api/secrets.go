package api

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	maxDataName = 64
	// templating is the only driver of templates there is, Go's.
	templating = "golang"
)

var dataName = regexp.MustCompile(`^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`)

// secretOrConfig is what secrets and configs have in common.
type secretOrConfig struct {
	kind string
	id   string
	meta cluster.Meta
	spec swarm.ConfigSpec
}

func secretAsData(s *cluster.Secret) secretOrConfig {
	return secretOrConfig{"secret", s.ID, s.Meta, swarm.ConfigSpec{Annotations: s.Spec.Annotations, Data: s.Spec.Data, Templating: s.Spec.Templating}}
}

func configAsData(c *cluster.Config) secretOrConfig {
	return secretOrConfig{"config", c.ID, c.Meta, c.Spec}
}

// check refuses what can't be kept. Its texts are Swarm's, and never have the data.
func (d secretOrConfig) check(r *request, limit int) error {
	switch name := d.spec.Name; {
	case name == "":
		return fail(cluster.ErrInvalid, "name must be provided")
	case len(name) > maxDataName || !dataName.MatchString(name):
		return fail(cluster.ErrInvalid, "invalid name, only %d [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]", maxDataName)
	case len(d.spec.Data) == 0 || len(d.spec.Data) >= limit:
		return fail(cluster.ErrInvalid, "%s data must be larger than 0 and less than %d bytes", d.kind, limit)
	}
	return d.checkTemplating(r)
}

func (d secretOrConfig) checkTemplating(r *request) error {
	switch t := d.spec.Templating; {
	case t == nil:
		return nil
	case r.before("1.37"):
		return fail(cluster.ErrInvalid, "%s templating is not supported on the specified API version: %s", d.kind, r.version)
	case t.Name != templating || len(t.Options) > 0:
		return unsupported("the template driver "+t.Name, "use --template-driver "+templating+", without options")
	}
	if fault := cluster.CheckTemplate(string(d.spec.Data), cluster.DataFunctions...); fault != nil {
		return fail(cluster.ErrInvalid, "the template in the %s is not valid: %v", d.kind, fault.Hide())
	}
	return nil
}

// relabelled tells whether update asks for nothing but other labels; what it
// leaves out stays as it is.
func (d secretOrConfig) relabelled(update swarm.ConfigSpec) bool {
	sameData := update.Data == nil || subtle.ConstantTimeCompare(update.Data, d.spec.Data) == 1
	sameTemplating := update.Templating == nil || d.spec.Templating != nil && update.Templating.Name == d.spec.Templating.Name && len(update.Templating.Options) == 0
	return update.Name == d.spec.Name && sameData && sameTemplating
}

// checkUpdate lets through an update of the version that the client has seen, if
// it is of labels only.
func (d secretOrConfig) checkUpdate(index uint64, update swarm.ConfigSpec) error {
	switch {
	case d.meta.Version != index:
		return fmt.Errorf("update %s %s: %w", d.kind, d.spec.Name, cluster.ErrConflict)
	case !d.relabelled(update):
		return errOnlyLabels
	}
	return nil
}

// matches applies the filters of a list: names, prefixes of names and prefixes of
// IDs are alternatives, labels must all be there.
func (d secretOrConfig) matches(args filters.Args) bool {
	names, prefixes, ids := args.Get("names"), args.Get("name"), args.Get("id")
	if len(names)+len(prefixes)+len(ids) > 0 && !slices.Contains(names, d.spec.Name) &&
		!(len(prefixes) > 0 && anyPrefix(d.spec.Name, prefixes)) && !(len(ids) > 0 && anyPrefix(d.id, ids)) {
		return false
	}
	return hasLabels(d.spec.Labels, args.Get("label"))
}

// checkUnused refuses to remove what the present spec of a service refers to.
func (d secretOrConfig) checkUnused(tx *store.Tx) error {
	var users []string
	for service := range tx.ServicesUsing(d.id) {
		users = append(users, service.Spec.Name)
	}
	switch len(users) {
	case 0:
		return nil
	case 1:
		return fail(cluster.ErrPrecondition, "%s '%s' is in use by the following service: %s", d.kind, d.spec.Name, users[0])
	}
	slices.Sort(users)
	return fail(cluster.ErrPrecondition, "%s '%s' is in use by the following services: %s", d.kind, d.spec.Name, strings.Join(users, ", "))
}

func (d secretOrConfig) errTaken() error {
	return fail(cluster.ErrNameTaken, "rpc error: code = AlreadyExists desc = %s %s already exists", d.kind, d.spec.Name)
}

var errOnlyLabels = fail(cluster.ErrInvalid, "only updates to Labels are allowed")

// renderSecret shows all of a secret but its data.
func renderSecret(secret *cluster.Secret) swarm.Secret {
	shown := swarm.Secret{ID: secret.ID, Meta: renderMeta(secret.Meta), Spec: secret.Spec}
	shown.Spec.Data = nil
	shown.Spec.Labels = orEmpty(secret.Spec.Labels)
	return shown
}

func renderConfig(config *cluster.Config) swarm.Config {
	shown := swarm.Config{ID: config.ID, Meta: renderMeta(config.Meta), Spec: config.Spec}
	shown.Spec.Labels = orEmpty(config.Spec.Labels)
	return shown
}

func (s *Server) listSecrets(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, "names", "name", "id", "label")
	if err != nil {
		return response{}, err
	}
	return response{list: listOf(r.manager.Store().View().Secrets(),
		func(secret *cluster.Secret) bool { return secretAsData(secret).matches(args) }, renderSecret)}, nil
}

func (s *Server) listConfigs(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, "name", "id", "label")
	if err != nil {
		return response{}, err
	}
	configs := listOf(r.manager.Store().View().Configs(),
		func(config *cluster.Config) bool { return configAsData(config).matches(args) }, renderConfig)
	return response{list: configs}, nil
}

func (s *Server) inspectSecret(ctx context.Context, r *request) (response, error) {
	secret, err := findSecret(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	return response{body: renderSecret(secret)}, nil
}

func (s *Server) inspectConfig(ctx context.Context, r *request) (response, error) {
	config, err := findConfig(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	return response{body: renderConfig(config)}, nil
}

// readSecret reads a secret's spec. What is wrong with its JSON isn't said, since
// errors are logged and may quote what they are about.
func readSecret(r *request) (swarm.SecretSpec, error) {
	var spec swarm.SecretSpec
	if err := r.decodeStrict(&spec); errors.Is(err, errBeyond) {
		return spec, err
	} else if err != nil {
		return spec, fail(cluster.ErrInvalid, "invalid secret: want Content-Type application/json, and JSON with Name, Labels, Data (in base64) and Templating")
	}
	if spec.Driver != nil {
		return spec, unsupported("SecretSpec.Driver", "leave --driver out and give the data")
	}
	return spec, nil
}

func (s *Server) createSecret(ctx context.Context, r *request) (response, error) {
	spec, err := readSecret(r)
	if err != nil {
		return response{}, err
	}
	secret := &cluster.Secret{ID: cluster.NewID(s.Random), Spec: spec}
	if err := secretAsData(secret).check(r, cluster.SecretLimit); err != nil {
		return response{}, err
	}
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		if tx.SecretNamed(spec.Name) != nil {
			return secretAsData(secret).errTaken()
		}
		return tx.Put(secret)
	})
	if err != nil {
		return response{}, err
	}
	return response{status: http.StatusCreated, body: swarm.SecretCreateResponse{ID: secret.ID}}, nil
}

func (s *Server) createConfig(ctx context.Context, r *request) (response, error) {
	var spec swarm.ConfigSpec
	if err := r.decodeStrict(&spec); err != nil {
		return response{}, err
	}
	config := &cluster.Config{ID: cluster.NewID(s.Random), Spec: spec}
	if err := configAsData(config).check(r, cluster.ConfigLimit); err != nil {
		return response{}, err
	}
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		if tx.ConfigNamed(spec.Name) != nil {
			return configAsData(config).errTaken()
		}
		return tx.Put(config)
	})
	if err != nil {
		return response{}, err
	}
	return response{status: http.StatusCreated, body: swarm.ConfigCreateResponse{ID: config.ID}}, nil
}

func (s *Server) updateSecret(ctx context.Context, r *request) (response, error) {
	index, err := r.index("secret")
	if err != nil {
		return response{}, err
	}
	spec, err := readSecret(r)
	if err != nil {
		return response{}, err
	}
	return response{}, r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old, err := findSecret(tx.View, r.vars("id"))
		if err != nil {
			return err
		}
		if err := secretAsData(old).checkUpdate(index, swarm.ConfigSpec{Annotations: spec.Annotations, Data: spec.Data, Templating: spec.Templating}); err != nil {
			return err
		}
		next := *old
		next.Spec.Labels = spec.Labels
		return tx.Put(&next)
	})
}

func (s *Server) updateConfig(ctx context.Context, r *request) (response, error) {
	index, err := r.index("config")
	if err != nil {
		return response{}, err
	}
	var spec swarm.ConfigSpec
	if err := r.decodeStrict(&spec); err != nil {
		return response{}, err
	}
	return response{}, r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old, err := findConfig(tx.View, r.vars("id"))
		if err != nil {
			return err
		}
		if err := configAsData(old).checkUpdate(index, spec); err != nil {
			return err
		}
		next := *old
		next.Spec.Labels = spec.Labels
		return tx.Put(&next)
	})
}

func (s *Server) removeSecret(ctx context.Context, r *request) (response, error) {
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		secret, err := findSecret(tx.View, r.vars("id"))
		if err != nil {
			return err
		}
		if err := secretAsData(secret).checkUnused(tx); err != nil {
			return err
		}
		tx.Delete(secret)
		return nil
	})
	return response{status: http.StatusNoContent}, err
}

func (s *Server) removeConfig(ctx context.Context, r *request) (response, error) {
	err := r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		config, err := findConfig(tx.View, r.vars("id"))
		if err != nil {
			return err
		}
		if err := configAsData(config).checkUnused(tx); err != nil {
			return err
		}
		tx.Delete(config)
		return nil
	})
	return response{status: http.StatusNoContent}, err
}

// unsupported refuses what skep doesn't do yet: which field, and what to do instead.
func unsupported(what, instead string) error {
	return fail(cluster.ErrUnsupported, "%s: not supported by skep yet: %s", what, instead)
}

// matchSecret tells which secrets of a stack are what one of its file is, or was before, and
// which of them have its content: so a client can name secrets by content, though nobody is told
// any, nor anything made of it.
func (s *Server) matchSecret(ctx context.Context, r *request) (response, error) {
	spec, err := readSecret(r)
	if err != nil {
		return response{}, err
	}
	wanted := secretAsData(&cluster.Secret{Spec: spec})
	if err := wanted.check(r, cluster.SecretLimit); err != nil {
		return response{}, err
	}
	return response{list: listOf(r.manager.Store().View().Secrets(),
		func(secret *cluster.Secret) bool { return secretAsData(secret).isOf(wanted.spec) },
		func(secret *cluster.Secret) cluster.StackData { return secretAsData(secret).match(wanted.spec) })}, nil
}

// matchConfig is matchSecret for configs.
func (s *Server) matchConfig(ctx context.Context, r *request) (response, error) {
	var spec swarm.ConfigSpec
	if err := r.decodeStrict(&spec); err != nil {
		return response{}, err
	}
	wanted := configAsData(&cluster.Config{Spec: spec})
	if err := wanted.check(r, cluster.ConfigLimit); err != nil {
		return response{}, err
	}
	return response{list: listOf(r.manager.Store().View().Configs(),
		func(config *cluster.Config) bool { return configAsData(config).isOf(wanted.spec) },
		func(config *cluster.Config) cluster.StackData { return configAsData(config).match(wanted.spec) })}, nil
}

// isOf tells whether it is of the same stack as wanted, and of the same entry or name.
func (d secretOrConfig) isOf(wanted swarm.ConfigSpec) bool {
	key := wanted.Labels[cluster.LabelStackData]
	return d.spec.Name == wanted.Name || key != "" && d.spec.Labels[cluster.LabelStackData] == key && d.spec.Labels[cluster.LabelStack] == wanted.Labels[cluster.LabelStack]
}

func (d secretOrConfig) match(wanted swarm.ConfigSpec) cluster.StackData {
	sameTemplating := (wanted.Templating == nil) == (d.spec.Templating == nil)
	return cluster.StackData{ID: d.id, Name: d.spec.Name, Same: sameTemplating && subtle.ConstantTimeCompare(wanted.Data, d.spec.Data) == 1}
}
