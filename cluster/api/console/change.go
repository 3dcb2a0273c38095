package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// maxForm is how large a form may be.
const maxForm = 16 << 10

// changes are what a session with a grant to write may do. Each goes through the API's own
// handlers, so what these refuse is refused here, in the same words, and the leader does it.
func (c *Console) changes() map[string]func(context.Context, *http.Request) error {
	return map[string]func(context.Context, *http.Request) error{
		"services/{id}/scale":     c.scale,
		"services/{id}/image":     c.setImage,
		"services/{id}/restart":   c.restart,
		"services/{id}/rollback":  c.rollBack,
		"nodes/{id}/availability": c.setAvailability,
		"nodes/{id}/label":        c.setLabel,
		"nodes/{id}/unlabel":      c.removeLabel,
	}
}

// serveChange does what a form says, and shows the page of what was changed.
func (c *Console) serveChange(w http.ResponseWriter, r *http.Request, change func(context.Context, *http.Request) error) {
	kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, Root), "/")
	back := Root + kind + "/" + url.PathEscape(r.PathValue("id"))
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	if err == nil {
		err = change(r.Context(), r)
	}
	if err != nil {
		c.refuseChange(w, back, err)
		return
	}
	c.parts.forget()
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// inspect reads the service of a request, as the leader has it.
func (c *Console) inspect(ctx context.Context, r *http.Request) (service swarm.Service, path string, err error) {
	path = "/services/" + url.PathEscape(r.PathValue("id"))
	err = c.call(ctx, http.MethodGet, path, nil, &service)
	return service, path, err
}

// update writes a service's spec back.
func (c *Console) update(ctx context.Context, path string, service swarm.Service, more string) error {
	return c.call(ctx, http.MethodPost, fmt.Sprintf("%s/update?version=%d%s", path, service.Version.Index, more), service.Spec, nil)
}

func (c *Console) scale(ctx context.Context, r *http.Request) error {
	replicas, err := strconv.ParseUint(r.PostForm.Get("replicas"), 10, 32)
	if err != nil {
		return cluster.Errorf(cluster.ErrInvalid, "the number of replicas must be a whole number")
	}
	service, path, err := c.inspect(ctx, r)
	if err != nil {
		return err
	}
	if service.Spec.Mode.Replicated == nil {
		return cluster.Errorf(cluster.ErrInvalid, "only replicated services can be scaled")
	}
	service.Spec.Mode.Replicated.Replicas = &replicas
	return c.update(ctx, path, service, "")
}

// setImage updates a service to another image, pinned as docker's command does where this
// node's engine can ask the registry.
func (c *Console) setImage(ctx context.Context, r *http.Request) error {
	image := strings.TrimSpace(r.PostForm.Get("image"))
	if image == "" {
		return cluster.Errorf(cluster.ErrInvalid, "name an image")
	}
	service, path, err := c.inspect(ctx, r)
	if err != nil {
		return err
	}
	if service.Spec.TaskTemplate.ContainerSpec == nil {
		return cluster.Errorf(cluster.ErrInvalid, "this service runs no image")
	}
	if !strings.Contains(image, "@") {
		var found registry.DistributionInspect
		if c.call(ctx, http.MethodGet, "/distribution/"+(&url.URL{Path: image}).EscapedPath()+"/json", nil, &found) == nil && found.Descriptor.Digest != "" {
			image += "@" + string(found.Descriptor.Digest)
		}
	}
	service.Spec.TaskTemplate.ContainerSpec.Image = image
	return c.update(ctx, path, service, "")
}

func (c *Console) restart(ctx context.Context, r *http.Request) error {
	service, path, err := c.inspect(ctx, r)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, fmt.Sprintf("/skep/v1%s/restart?version=%d", path, service.Version.Index), nil, nil)
}

// rollBack goes back to a revision, or without one to the previous spec.
func (c *Console) rollBack(ctx context.Context, r *http.Request) error {
	service, path, err := c.inspect(ctx, r)
	if err != nil {
		return err
	}
	if to := r.PostForm.Get("to"); to != "" {
		return c.call(ctx, http.MethodPost, fmt.Sprintf("/skep/v1%s/rollback?version=%d&to=%s", path, service.Version.Index, url.QueryEscape(to)), nil, nil)
	}
	return c.update(ctx, path, service, "&rollback=previous")
}

// changeNode reads a node's spec, as the leader has it, and writes it back changed.
func (c *Console) changeNode(ctx context.Context, r *http.Request, change func(*swarm.NodeSpec)) error {
	path := "/nodes/" + url.PathEscape(r.PathValue("id"))
	var node swarm.Node
	if err := c.call(ctx, http.MethodGet, path, nil, &node); err != nil {
		return err
	}
	change(&node.Spec)
	return c.call(ctx, http.MethodPost, fmt.Sprintf("%s/update?version=%d", path, node.Version.Index), node.Spec, nil)
}

func (c *Console) setAvailability(ctx context.Context, r *http.Request) error {
	return c.changeNode(ctx, r, func(spec *swarm.NodeSpec) {
		spec.Availability = swarm.NodeAvailability(r.PostForm.Get("availability"))
	})
}

func (c *Console) setLabel(ctx context.Context, r *http.Request) error {
	name, value := strings.TrimSpace(r.PostForm.Get("name")), strings.TrimSpace(r.PostForm.Get("value"))
	if name == "" || strings.Contains(name, "=") {
		return cluster.Errorf(cluster.ErrInvalid, "name a label, without =")
	}
	return c.changeNode(ctx, r, func(spec *swarm.NodeSpec) {
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[name] = value
	})
}

func (c *Console) removeLabel(ctx context.Context, r *http.Request) error {
	name := r.PostForm.Get("name")
	if name == "" {
		return cluster.Errorf(cluster.ErrInvalid, "name a label")
	}
	return c.changeNode(ctx, r, func(spec *swarm.NodeSpec) { delete(spec.Labels, name) })
}
