package simulate

import (
	"context"
	"errors"
	"slices"

	"skep/agent"
	"skep/cluster"
)

// Kill lets the task's container exit with code, as `docker kill` or the program
// itself would.
func (d *Driver) Kill(taskID string, code int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.containers[taskID]; c != nil {
		d.endLocked(c, code)
	}
}

// Vanish kills and removes the task's container, as `docker rm -f` would.
func (d *Driver) Vanish(taskID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[taskID]
	if c == nil {
		return
	}
	if c.Phase != agent.Running || len(d.watchers) == 0 {
		// Nobody saw it end.
		d.endLocked(c, 137)
		delete(d.containers, taskID)
		d.notifyLocked(c.nodeID, taskID)
		return
	}
	d.endLocked(c, 137)
	c.removed = true
}

// SetHealth sets the verdict of a running container's health check.
func (d *Driver) SetHealth(taskID string, health agent.Health) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.containers[taskID]; c != nil && c.Phase == agent.Running {
		c.Health = health
		d.notifyLocked(c.nodeID, taskID)
	}
}

// SetAway makes the engine unreachable, or reachable again. Containers go on
// meanwhile.
func (d *Driver) SetAway(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = nil
	if away {
		d.away = cluster.Errorf(cluster.ErrUnavailable, "cannot connect to the simulated engine")
		d.dropLocked()
	}
}

// DropWatch breaks the event streams; what happens until they are opened again
// is told to nobody.
func (d *Driver) DropWatch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropLocked()
}

func (d *Driver) dropLocked() {
	for w := range d.watchers {
		close(w.lost)
		delete(d.watchers, w)
	}
}

// Count returns how many containers of the node run.
func (d *Driver) Count(nodeID string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	count := 0
	for _, c := range d.containers {
		if c.nodeID == nodeID && c.Phase == agent.Running {
			count++
		}
	}
	return count
}

// Files gives what the task's container sees of secrets and configs; nothing once
// it has ended. The data is shared and must not be changed.
func (d *Driver) Files(taskID string) []agent.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.containers[taskID]; c != nil {
		return slices.Clone(c.files)
	}
	return nil
}

// Forget takes away the files of all containers of the node.
func (d *Driver) Forget(nodeID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		if c.nodeID == nodeID {
			c.files = nil
		}
	}
	return nil
}

// watcher is one call of Watch. Its news are guarded by the Driver's mutex.
type watcher struct {
	nodeID string
	news   []string
	ready  chan struct{}
	lost   chan struct{}
}

// Watch tells of each exit and each change of health.
func (d *Driver) Watch(ctx context.Context, nodeID string, changed func(taskID string)) error {
	w := &watcher{nodeID: nodeID, ready: make(chan struct{}, 1), lost: make(chan struct{})}
	d.mu.Lock()
	if d.away != nil {
		defer d.mu.Unlock()
		return d.away
	}
	d.watchers[w] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, w)
	}()

	changed("")
	for {
		select {
		case <-w.ready:
		case <-w.lost:
			return errors.New("watch containers: the stream was lost")
		case <-ctx.Done():
			return ctx.Err()
		}
		d.mu.Lock()
		news := w.news
		w.news = nil
		d.mu.Unlock()
		for _, taskID := range news {
			changed(taskID)
		}
	}
}

// notifyLocked tells watchers of the node that a container changed.
func (d *Driver) notifyLocked(nodeID, taskID string) {
	for w := range d.watchers {
		if w.nodeID != nodeID {
			continue
		}
		w.news = append(w.news, taskID)
		cluster.Notify(w.ready)
	}
}
