package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/pkg/jsonmessage"

	"skep/agent"
	"skep/cluster"
)

// Prepare creates the container, or takes over the one of that name. The image
// is pulled only when the engine says that it lacks it.
func (d *Driver) Prepare(ctx context.Context, a agent.Assignment) (agent.Container, error) {
	endpoints, err := d.endpoints(ctx, a)
	if err != nil {
		return agent.Container{}, err
	}
	if id := d.recall(a.Task.ID).id; id != "" {
		return d.complete(ctx, a, id, endpoints)
	}
	settings, err := d.settings(a)
	if err != nil {
		return agent.Container{}, err
	}
	files, err := d.files(ctx, a)
	if err != nil {
		// The container may be there already, made by another run of the daemon: then
		// nothing is lacking.
		id, failed := d.find(ctx, a.Task.ID)
		switch {
		case failed == nil:
			return d.complete(ctx, a, id, endpoints)
		case !errors.Is(failed, cluster.ErrNotFound):
			return agent.Container{}, failed
		}
		return agent.Container{}, err
	}
	settings.host.Mounts = append(settings.host.Mounts, files...)
	rest := d.place(settings, endpoints)
	id, err := d.make(ctx, a, settings)
	if err != nil {
		d.filer.forget(a.Task.ID) // Another attempt writes them again.
		return agent.Container{}, err
	}
	if len(rest) > 0 {
		return d.complete(ctx, a, id, endpoints)
	}
	return agent.Container{TaskID: a.Task.ID, ID: id}, nil
}

// complete connects a container that is there to the networks that it lacks: old engines take only one
// at its creation.
func (d *Driver) complete(ctx context.Context, a agent.Assignment, id string, endpoints []endpoint) (agent.Container, error) {
	if len(endpoints) > 0 {
		ctx, end, err := d.lasting(ctx)
		if err != nil {
			return agent.Container{}, err
		}
		defer end()
		if err := d.connect(ctx, id, endpoints); err != nil {
			return agent.Container{}, err
		}
	}
	return agent.Container{TaskID: a.Task.ID, ID: id}, nil
}

// make creates the container, and fetches the images if it has to.
func (d *Driver) make(ctx context.Context, a agent.Assignment, settings *settings) (string, error) {
	id, err := d.create(ctx, a, settings)
	if lacksImage(err) {
		for _, ref := range settings.images() {
			if err := d.fetch(ctx, ref, a.Revision.Auth); err != nil {
				return "", err
			}
		}
		id, err = d.create(ctx, a, settings)
	}
	if d.filer.lacksFile(err) {
		return "", cluster.Errorf(cluster.ErrUnsupported, "the engine doesn't see %s, where this node keeps secrets and configs: run the daemon on the engine's machine, "+
			"or mount that directory, on a tmpfs, at the same path into the daemon's container", d.cfg.RuntimeDir)
	}
	return id, err
}

// create makes one attempt to create the container.
func (d *Driver) create(ctx context.Context, a agent.Assignment, s *settings) (string, error) {
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	made, err := d.client.ContainerCreate(ctx, s.config, s.host, s.network, nil, a.ContainerName())
	switch {
	case cerrdefs.IsConflict(err):
		return d.adopt(ctx, a, err)
	case err != nil:
		return "", explain(err)
	}
	if text := discarded(made.Warnings, s.host); text != "" {
		if err := d.client.ContainerRemove(ctx, made.ID, container.RemoveOptions{RemoveVolumes: true, Force: true}); err != nil {
			return "", explain(err)
		}
		return "", cluster.Errorf(cluster.ErrUnsupported, "the engine can't do what the service asks for: %s", text)
	}
	d.remember(a.Task.ID, func(k *known) { k.id, k.fresh = made.ID, true })
	return made.ID, nil
}

// discarded is the warning by which the engine tells that it made the container
// without something that was asked for; empty if it left out nothing.
func discarded(warnings []string, h *container.HostConfig) string {
	for _, text := range warnings {
		lower := strings.ToLower(text)
		if strings.Contains(lower, "discarded") || h.MemorySwap > 0 && strings.Contains(lower, "limited without swap") {
			return text
		}
	}
	return ""
}

// adopt takes over the container that has the task's name already.
func (d *Driver) adopt(ctx context.Context, a agent.Assignment, conflict error) (string, error) {
	found, err := d.client.ContainerInspect(ctx, a.ContainerName())
	if err != nil {
		if cerrdefs.IsNotFound(err) { // it was on its way out
			return "", cluster.Errorf(cluster.ErrUnavailable, "%s", explain(conflict))
		}
		return "", explain(err)
	}
	if found.Config == nil || found.Config.Labels[LabelTaskID] != a.Task.ID || found.Config.Labels[LabelNode] != a.Task.NodeID {
		return "", explain(conflict)
	}
	d.remember(a.Task.ID, func(k *known) { k.id = found.ID })
	return found.ID, nil
}

// lacksImage tells whether a create failed for want of the image.
func lacksImage(err error) bool {
	return errors.Is(err, cluster.ErrNotFound) && strings.Contains(strings.ToLower(err.Error()), "no such image")
}

// fetch pulls an image unless the engine has it. An error says the registry's words.
func (d *Driver) fetch(ctx context.Context, ref, auth string) error {
	if _, err := d.client.ImageInspect(ctx, ref); err == nil {
		return nil
	}
	err := d.pull(ctx, ref, auth)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, cluster.ErrUnavailable):
		return err
	}
	return cluster.Errorf(cluster.ErrNotFound, "No such image: %s (pull: %v)", ref, err)
}

// pull fetches an image. It may take long; ctx calls it off.
func (d *Driver) pull(ctx context.Context, ref, auth string) error {
	progress, err := d.client.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return explain(err)
	}
	defer progress.Close()
	// The engine goes on only as long as somebody reads, and says in the stream
	// whether it went well.
	decoder := json.NewDecoder(progress)
	for {
		var message jsonmessage.JSONMessage
		if err := decoder.Decode(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return explain(err)
		}
		if message.Error != nil {
			return errors.New(message.Error.Message)
		}
	}
}

// images are those that a container is made of: its own, and what it mounts.
func (s *settings) images() []string {
	refs := []string{s.config.Image}
	for _, m := range s.host.Mounts {
		if m.Type == mount.TypeImage {
			refs = append(refs, familiar(m.Source))
		}
	}
	return refs
}

// familiar gives an image's name as users write it, with the tag made explicit.
func familiar(raw string) string {
	named, err := reference.ParseNormalizedNamed(raw)
	if err != nil {
		return raw
	}
	return reference.FamiliarString(reference.TagNameOnly(named))
}

// Start starts the container unless it ever ran.
func (d *Driver) Start(ctx context.Context, taskID string) (agent.Container, error) {
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return agent.Container{}, err
	}
	defer end()
	id, err := d.find(ctx, taskID)
	if err != nil {
		return agent.Container{}, err
	}
	if !d.recall(taskID).fresh {
		found, err := d.inspect(ctx, taskID, id)
		if err != nil || found.Phase != agent.Created {
			return found, err
		}
	}
	d.remember(taskID, func(k *known) { k.fresh = false })
	if err := d.client.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		err = explain(err)
		if errors.Is(err, cluster.ErrUnavailable) {
			return agent.Container{}, err
		}
		d.filer.forget(taskID)
		return agent.Container{}, cluster.Errorf(err, "starting container failed: %v", err)
	}
	return d.inspect(ctx, taskID, id)
}

// Inspect looks at the container.
func (d *Driver) Inspect(ctx context.Context, taskID string) (agent.Container, error) {
	if k := d.recall(taskID); k.exited {
		return agent.Container{TaskID: taskID, ID: k.id, Phase: agent.Exited, ExitCode: k.code}, nil
	}
	release, err := d.slot(ctx)
	if err != nil {
		return agent.Container{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	id, err := d.find(ctx, taskID)
	if err != nil {
		return agent.Container{}, err
	}
	return d.inspect(ctx, taskID, id)
}

// inspect asks the engine. The stream of events may be faster: an exit that it
// told of counts even when the container is gone by now.
func (d *Driver) inspect(ctx context.Context, taskID, id string) (agent.Container, error) {
	found, err := d.client.ContainerInspect(ctx, id)
	if k := d.recall(taskID); k.exited {
		return agent.Container{TaskID: taskID, ID: k.id, Phase: agent.Exited, ExitCode: k.code}, nil
	}
	if err != nil {
		if err = explain(err); errors.Is(err, cluster.ErrNotFound) {
			d.filer.forget(taskID)
		}
		return agent.Container{}, err
	}
	c := translate(taskID, found)
	if c.Phase == agent.Exited {
		d.filer.forget(taskID)
	}
	return c, nil
}

// translate gives the engine's account in our words.
func translate(taskID string, found container.InspectResponse) agent.Container {
	c := agent.Container{TaskID: taskID, ID: found.ID}
	if found.State == nil {
		return c
	}
	c.Phase, c.PID = phase(found.State.Status), found.State.Pid
	if c.Phase == agent.Exited {
		c.ExitCode = found.State.ExitCode
	}
	if c.Phase == agent.Running && found.NetworkSettings != nil {
		c.Ports = published(found.NetworkSettings.Ports)
	}
	if found.State.Health != nil {
		switch found.State.Health.Status {
		case container.Starting:
			c.Health = agent.HealthStarting
		case container.Healthy:
			c.Health = agent.HealthGood
		case container.Unhealthy:
			c.Health = agent.HealthBad
		}
	}
	return c
}

// Stop stops the container; the engine kills it after grace. This may wait as
// long as grace says, so it takes no slot, and the caller may stop waiting.
func (d *Driver) Stop(ctx context.Context, taskID string, grace time.Duration) (agent.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout+grace)
	defer cancel()
	id, err := d.find(ctx, taskID)
	if err != nil {
		if errors.Is(err, cluster.ErrNotFound) {
			d.filer.forget(taskID)
		}
		return agent.Container{}, err
	}
	seconds := int((grace + time.Second - 1) / time.Second)
	if err := d.client.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds}); err != nil && !cerrdefs.IsNotModified(err) {
		return agent.Container{}, explain(err)
	}
	found, err := d.inspect(ctx, taskID, id)
	if err == nil && found.Phase == agent.Running {
		return found, fmt.Errorf("stop container: it still runs: %w", cluster.ErrUnavailable)
	}
	if err == nil {
		d.filer.forget(taskID) // also of one that was only created: it won't be started any more
	}
	return found, err
}

// Remove kills and removes the container, with its anonymous volumes.
func (d *Driver) Remove(ctx context.Context, taskID string) error {
	ctx, end, err := d.lasting(ctx)
	if err != nil {
		return err
	}
	defer end()
	id, err := d.find(ctx, taskID)
	if err == nil {
		err = explain(d.client.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true}))
	}
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		return err
	}
	d.filer.forget(taskID)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, taskID)
	return nil
}

// Listens tells whether the container of a process listens at one of these ports, as far as that can be known.
func (d *Driver) Listens(pid int, ports []cluster.PublishedPort) bool {
	return d.cfg.Listens == nil || pid == 0 || d.cfg.Listens(pid, ports)
}
