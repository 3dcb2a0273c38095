// Package simulate is a driver that runs nothing but behaves: for tests, for
// scale, and for machines without a container engine.
//
// A node's agent uses it like any driver. By default a task starts at once and
// runs until it is stopped, whatever its image. Labels of the service or of its
// containers (the latter win) make it behave otherwise, see Behaviour; what is
// left to chance depends on the seed and the task's ID alone, so a run can be
// repeated. It keeps no goroutine and at most one timer per container, and works
// under testing/synctest.
//
// Containers live in the Driver: an agent that is started again with the same
// Driver finds them. Methods of the Driver beyond agent.Driver do what the world
// does to containers: Kill, Vanish, SetHealth, SetAway, DropWatch; and Run and Discard what
// users do with containers of their own.
package simulate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

// Config says what the simulated machine is like; the zero value will do.
type Config struct {
	// Seed decides all that is left to chance.
	Seed uint64
	// Hostname is the machine's name (default "simulated").
	Hostname string
	// EngineID is what the engine calls itself, where nodes share this Driver (default "", which none share).
	EngineID string
	// NanoCPUs and MemoryBytes are its size (default 4 processors, 8 GiB).
	NanoCPUs, MemoryBytes int64
	// Generic are its generic resources.
	Generic []swarm.GenericResource
	// Labels are the engine's.
	Labels map[string]string
	// Behaviour is how tasks behave that have no labels of their own.
	Behaviour Behaviour
	// Now is the clock for log lines and times (default time.Now).
	Now func() time.Time
	// Bridges has the bridges of the cluster's networks; network/simulate.Plane is one. With
	// nil there are all.
	Bridges Bridges
}

// Driver is a simulated engine.
type Driver struct {
	cfg Config

	mu         sync.Mutex // guards the fields below
	containers map[string]*container
	users      map[string]*container // beside those of tasks, by name
	watchers   map[*watcher]bool
	away       error
	made       int
	networks   map[string]*cluster.Network
	uses       []cluster.AddressUse
	faults     []string
}

var _ agent.Driver = (*Driver)(nil)

// container is a simulated container. Its process never exists: what it would
// have done is worked out from the times.
type container struct {
	agent.Container
	nodeID    string
	name      string
	image     string
	behaviour Behaviour
	// ports are those to be published.
	ports []swarm.PortConfig
	// files are what it sees of secrets and configs, until it ends.
	files []agent.File
	// attached are its places in networks.
	attached []agent.Attachment
	started  time.Time
	ended    time.Time
	// exit is the timer of the exit that Behaviour asks for.
	exit *time.Timer
	// removed containers are kept only for their exit code.
	removed bool
	lines   []cluster.LogLine
	// done is closed when the container ends.
	done chan struct{}
}

// New returns a simulated engine without containers.
func New(cfg Config) *Driver {
	if cfg.Hostname == "" {
		cfg.Hostname = "simulated"
	}
	if cfg.NanoCPUs == 0 {
		cfg.NanoCPUs = 4e9
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 8 << 30
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Driver{cfg: cfg, containers: make(map[string]*container), users: make(map[string]*container), watchers: make(map[*watcher]bool), networks: make(map[string]*cluster.Network)}
}

// Describe returns the machine of Config.
func (d *Driver) Describe(context.Context) (swarm.NodeDescription, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return swarm.NodeDescription{
		Hostname:  d.cfg.Hostname,
		Platform:  swarm.Platform{Architecture: "x86_64", OS: "linux"},
		Resources: swarm.Resources{NanoCPUs: d.cfg.NanoCPUs, MemoryBytes: d.cfg.MemoryBytes, GenericResources: d.cfg.Generic},
		Engine: swarm.EngineDescription{
			EngineVersion: "simulated",
			Labels:        d.cfg.Labels,
			Plugins:       plugins,
		},
	}, d.away
}

// EngineID is what the engine calls itself.
func (d *Driver) EngineID() string { return d.cfg.EngineID }

// plugins are what an engine has without any.
var plugins = []swarm.PluginDescription{
	{Type: "Log", Name: "awslogs"}, {Type: "Log", Name: "fluentd"}, {Type: "Log", Name: "gcplogs"}, {Type: "Log", Name: "gelf"},
	{Type: "Log", Name: "journald"}, {Type: "Log", Name: "json-file"}, {Type: "Log", Name: "local"}, {Type: "Log", Name: "logentries"},
	{Type: "Log", Name: "splunk"}, {Type: "Log", Name: "syslog"},
	{Type: "Network", Name: "bridge"}, {Type: "Network", Name: "host"}, {Type: "Network", Name: "overlay"},
	{Type: "Volume", Name: "local"},
}

// List returns the containers of the node's tasks, by task ID.
func (d *Driver) List(_ context.Context, nodeID string) ([]agent.Container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return nil, d.away
	}
	var list []agent.Container
	for _, c := range d.containers {
		if c.nodeID == nodeID && !c.removed {
			list = append(list, c.Container)
		}
	}
	slices.SortFunc(list, func(a, b agent.Container) int { return strings.Compare(a.TaskID, b.TaskID) })
	return list, nil
}

// Prepare makes a container that behaves as the labels say.
func (d *Driver) Prepare(ctx context.Context, a agent.Assignment) (agent.Container, error) {
	if a.Revision.Spec.ContainerSpec == nil || a.Revision.Spec.ContainerSpec.Image == "" {
		return agent.Container{}, fmt.Errorf("create container: no image was given: %w", cluster.ErrInvalid)
	}
	spec := a.Revision.Spec.ContainerSpec
	behaviour, err := d.cfg.Behaviour.with(a.Revision.ServiceLabels, spec.Labels)
	if err != nil {
		return agent.Container{}, err
	}
	if err := d.wait(ctx, behaviour.PrepareDelay); err != nil {
		return agent.Container{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return agent.Container{}, d.away
	}
	taskID := a.Task.ID
	if c := d.containers[taskID]; c != nil && !c.removed {
		return c.Container, nil
	}
	files, err := a.Files()
	if err != nil {
		return agent.Container{}, err
	}
	if d.chance(taskID, "reject") < behaviour.RejectRate {
		return agent.Container{}, cluster.Errorf(cluster.ErrNotFound, "No such image: %s", spec.Image)
	}
	if err := d.knowsLocked(a); err != nil {
		return agent.Container{}, err
	}
	d.made++
	c := &container{
		Container: agent.Container{TaskID: taskID, ID: d.containerID(taskID)},
		nodeID:    a.Task.NodeID,
		name:      a.ContainerName(),
		image:     spec.Image,
		behaviour: behaviour,
		ports:     boundPorts(a.Revision),
		files:     files,
		attached:  a.Networks,
		done:      make(chan struct{}),
	}
	if spec.Healthcheck != nil && len(spec.Healthcheck.Test) > 0 && spec.Healthcheck.Test[0] != "NONE" {
		c.Health = agent.HealthStarting
	}
	d.containers[taskID] = c
	return c.Container, nil
}

// Start lets the container run.
func (d *Driver) Start(ctx context.Context, taskID string) (agent.Container, error) {
	d.mu.Lock()
	c, err := d.findLocked(taskID)
	if err != nil || c.Phase != agent.Created {
		defer d.mu.Unlock()
		if c != nil {
			return c.Container, err
		}
		return agent.Container{}, err
	}
	behaviour := c.behaviour
	d.mu.Unlock()
	if err := d.wait(ctx, behaviour.StartDelay); err != nil {
		return agent.Container{}, err
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	c, err = d.findLocked(taskID)
	if err != nil || c.Phase != agent.Created {
		if c != nil {
			return c.Container, err
		}
		return agent.Container{}, err
	}
	if c.Ports, err = d.publishLocked(c); err != nil {
		return agent.Container{}, err
	}
	c.Phase, c.PID = agent.Running, 1000+d.made
	c.started = d.cfg.Now()
	d.plugLocked(c)
	c.say(false, c.started, "simulate: "+c.name+" runs "+c.image)
	if runFor, code, ends := d.fate(taskID, behaviour); ends {
		c.exit = time.AfterFunc(runFor, func() { d.Kill(taskID, code) })
	}
	if c.Health == agent.HealthStarting {
		time.AfterFunc(behaviour.HealthDelay, func() { d.SetHealth(taskID, agent.HealthGood) })
	}
	return c.Container, nil
}

// Inspect returns the container as it is.
func (d *Driver) Inspect(_ context.Context, taskID string) (agent.Container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.containers[taskID]; c != nil && c.removed && d.away == nil {
		return c.Container, nil // as somebody who watched would remember it
	}
	c, err := d.findLocked(taskID)
	if err != nil {
		return agent.Container{}, err
	}
	return c.Container, nil
}

// Stop ends the container, with exit code 0 for one that obeys in time and 137
// for one whose StopDelay is longer than grace.
func (d *Driver) Stop(ctx context.Context, taskID string, grace time.Duration) (agent.Container, error) {
	d.mu.Lock()
	c, err := d.findLocked(taskID)
	if err != nil || c.Phase != agent.Running {
		defer d.mu.Unlock()
		if c != nil {
			c.files = nil
			return c.Container, err
		}
		return agent.Container{}, err
	}
	delay, code := c.behaviour.StopDelay, 0
	d.mu.Unlock()
	if grace < delay || grace == 0 {
		delay, code = grace, 137
	}
	if err := d.wait(ctx, delay); err != nil {
		return agent.Container{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, err = d.findLocked(taskID); err != nil {
		return agent.Container{}, err
	}
	d.endLocked(c, code)
	return c.Container, nil
}

// Remove kills and removes the container.
func (d *Driver) Remove(_ context.Context, taskID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return d.away
	}
	if c := d.containers[taskID]; c != nil {
		d.endLocked(c, 137)
		delete(d.containers, taskID)
	}
	return nil
}

// findLocked returns the task's container, or an error that says why it can't.
func (d *Driver) findLocked(taskID string) (*container, error) {
	if d.away != nil {
		return nil, d.away
	}
	c := d.containers[taskID]
	if c == nil || c.removed {
		return nil, cluster.Errorf(cluster.ErrNotFound, "No such container: %s", taskID)
	}
	return c, nil
}

// endLocked lets a running container exit.
func (d *Driver) endLocked(c *container, code int) {
	if c.Phase != agent.Running {
		return
	}
	if c.exit != nil {
		c.exit.Stop()
	}
	d.unplugLocked(c)
	c.Phase, c.PID, c.ExitCode, c.Ports = agent.Exited, 0, code, ""
	c.ended, c.files = d.cfg.Now(), nil
	c.say(true, c.ended, fmt.Sprintf("simulate: %s exits with %d", c.name, code))
	close(c.done)
	d.notifyLocked(c.nodeID, c.TaskID)
}

// wait waits for d unless ctx ends before.
func (d *Driver) wait(ctx context.Context, delay time.Duration) error {
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
