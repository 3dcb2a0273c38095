package docker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"skep/cluster"
)

// lookBack is how far before its opening the stream begins, so that nothing gets
// lost between the opening and the first listing. Hearing of an event twice does
// no harm.
const lookBack = 5 * time.Second

// Watch follows the engine's events of the node's containers.
func (d *Driver) Watch(ctx context.Context, nodeID string, changed func(taskID string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := d.client.Events(ctx, events.ListOptions{
		Since: strconv.FormatInt(d.cfg.Now().Add(-lookBack).Unix(), 10),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)),
			filters.Arg("label", LabelNode+"="+nodeID),
			filters.Arg("event", string(events.ActionDie)),
			filters.Arg("event", string(events.ActionDestroy)),
			filters.Arg("event", string(events.ActionHealthStatus)),
		),
	})
	select {
	case err := <-errs:
		return lost(err)
	default:
	}
	changed("")
	for {
		select {
		case message := <-messages:
			if taskID := d.hear(message); taskID != "" {
				changed(taskID)
			}
		case err := <-errs:
			return lost(err)
		}
	}
}

// lost says why the stream ended.
func lost(err error) error {
	if err = explain(err); err == nil || errors.Is(err, context.Canceled) {
		return cluster.Errorf(cluster.ErrUnavailable, "the engine ended its events")
	}
	return err
}

// hear remembers what an event tells and returns the task that it is about.
func (d *Driver) hear(message events.Message) string {
	taskID := message.Actor.Attributes[LabelTaskID]
	switch {
	case message.Action == events.ActionDie:
		d.filer.forget(taskID)
		code, err := strconv.Atoi(message.Actor.Attributes["exitCode"])
		if err != nil {
			return taskID // the container itself will say
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		// Only containers that somebody asked for are remembered; those of tasks long
		// gone may still be in the look back.
		if k := d.known[taskID]; k != nil && (k.id == "" || k.id == message.Actor.ID) {
			k.exited, k.code = true, code
		}
	case message.Action == events.ActionDestroy, strings.HasPrefix(string(message.Action), string(events.ActionHealthStatus)):
	default:
		return ""
	}
	return taskID
}
