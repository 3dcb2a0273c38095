// Package docker is the driver that runs tasks as containers of a Docker Engine.
//
// A node's agent uses it. Containers carry Swarm's names and labels, so tools
// that know Swarm know them, and one label of our own, LabelNode: the driver
// touches no container without it, and several agents may share one engine.
//
// Exits are noticed from one stream of the engine's events, never by asking
// again and again. Every call but a pull and a log has a deadline. Calls that
// change something on the engine are not cut off when the caller loses interest,
// since the engine would go on with them anyway.
package docker

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"skep/agent"
	bridges "skep/agent/network"
	"skep/cluster"
	"skep/cluster/trace"
)

// The labels of a task's container. All but LabelNode are Swarm's.
const (
	LabelTask        = "com.docker.swarm.task"
	LabelTaskID      = "com.docker.swarm.task.id"
	LabelTaskName    = "com.docker.swarm.task.name"
	LabelNodeID      = "com.docker.swarm.node.id"
	LabelServiceID   = "com.docker.swarm.service.id"
	LabelServiceName = "com.docker.swarm.service.name"
	// LabelNode marks skep's own containers with their node's ID.
	LabelNode = "io.skep.node"
)

// Config says which engine.
type Config struct {
	// Host is the engine's address (default unix:///var/run/docker.sock).
	Host string
	// HTTP replaces the client that talks to Host, for engines behind TLS.
	HTTP *http.Client
	// Parallel is how many calls that change containers may be under way at a time
	// (default 8). Pulls and stops, which mostly wait, don't count.
	Parallel int
	// Timeout is the deadline of a call (default 60 s). A stop has the grace period
	// on top.
	Timeout time.Duration
	// RuntimeDir is where secrets and configs are while a task needs them (default
	// /run/skep/tasks), by node and task. If it isn't on a tmpfs, one is mounted below
	// it. The engine must see it at the same path.
	RuntimeDir string
	// Bridge is the MTU of a bridge, and whether it is there: the engine's networks that are the
	// cluster's adopt it (default: among this machine's links). One that says yes with an MTU of 0 has the
	// engine make its own.
	Bridge func(name string) (mtu int, there bool)
	// SetMAC gives the interface that has an IPv4 address, of the network namespace of a process, a MAC. Nil where
	// the engine's containers aren't this machine's: what needs it fails.
	SetMAC func(pid int, addr netip.Addr, mac bridges.MAC) error
	// Listens tells whether a program in the network namespace of a process listens at the target of one of these
	// ports, or whether that can't be known. Nil where the engine's containers aren't this machine's.
	Listens func(pid int, ports []cluster.PublishedPort) bool
	// Now is the clock to compare the engine's times with (default time.Now).
	Now func() time.Time
}

// Driver runs containers on one engine.
type Driver struct {
	cfg    Config
	client *client.Client
	// slots holds a token for each call that may be under way.
	slots chan struct{}
	filer *filer
	// mended are the engine's endpoints whose MAC Attached has set; only Attached uses it.
	mended map[string]bool

	mu       sync.Mutex // guards the fields below
	engineID string
	known    map[string]*known
	// networks are the IDs of the engine's networks that the last KeepNetworks left there.
	networks map[string]bool
	// security is the engine's account of how it secures containers; nil until asked.
	security []string
	// share is the locked file that nodes on one engine have in common; nil while this one uses nothing of it.
	share     *os.File
	clusterID string
}

var (
	_ agent.Driver   = (*Driver)(nil)
	_ agent.Listener = (*Driver)(nil)
)

// known is what is remembered of a task's container, to save asking.
type known struct {
	id string
	// fresh is set between a create and the first start by this driver.
	fresh bool
	// exited is set when the stream told of the container's end.
	exited bool
	code   int
}

// New returns a Driver. It doesn't talk to the engine yet.
func New(cfg Config) (*Driver, error) {
	if cfg.Host == "" {
		cfg.Host = client.DefaultDockerHost
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 8
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.RuntimeDir == "" {
		cfg.RuntimeDir = "/run/skep/tasks"
	}
	if cfg.Bridge == nil {
		cfg.Bridge = linkMTU
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	options := []client.Opt{client.WithHost(cfg.Host), client.WithAPIVersionNegotiation(), client.WithTraceOptions(trace.EngineOptions()...)}
	if cfg.HTTP != nil {
		options = slices.Insert(options, 0, client.WithHTTPClient(cfg.HTTP))
	}
	engine, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, fmt.Errorf("use engine %s: %w", cfg.Host, err)
	}
	return &Driver{
		cfg: cfg, client: engine, slots: make(chan struct{}, cfg.Parallel), known: make(map[string]*known),
		filer: &filer{dir: filepath.Clean(cfg.RuntimeDir), placed: make(map[string]string)},
	}, nil
}

// Close ends idle connections.
func (d *Driver) Close() error { return d.client.Close() }

// Describe asks the engine what machine it runs on.
func (d *Driver) Describe(ctx context.Context) (swarm.NodeDescription, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	info, err := d.client.Info(ctx)
	if err != nil {
		return swarm.NodeDescription{}, explain(err)
	}
	description := swarm.NodeDescription{
		Hostname:  info.Name,
		Platform:  swarm.Platform{Architecture: info.Architecture, OS: info.OSType},
		Resources: swarm.Resources{NanoCPUs: int64(info.NCPU) * 1e9, MemoryBytes: info.MemTotal, GenericResources: info.GenericResources},
		Engine:    swarm.EngineDescription{EngineVersion: info.ServerVersion},
	}
	for _, label := range info.Labels {
		if key, value, ok := strings.Cut(label, "="); ok {
			if description.Engine.Labels == nil {
				description.Engine.Labels = make(map[string]string)
			}
			description.Engine.Labels[key] = value
		}
	}
	d.mu.Lock()
	d.engineID = info.ID
	d.mu.Unlock()
	add := func(kind string, names ...string) {
		for _, name := range names {
			plugin := swarm.PluginDescription{Type: kind, Name: name}
			if !slices.Contains(description.Engine.Plugins, plugin) {
				description.Engine.Plugins = append(description.Engine.Plugins, plugin)
			}
		}
	}
	add("Authorization", info.Plugins.Authorization...)
	add("Log", info.Plugins.Log...)
	// Whether the node carries networks that span nodes isn't the engine's to say.
	add("Network", slices.DeleteFunc(info.Plugins.Network, func(name string) bool { return name == cluster.OverlayDriver })...)
	add("Volume", info.Plugins.Volume...)
	if err := d.describePlugins(ctx, add); err != nil {
		return swarm.NodeDescription{}, err
	}
	slices.SortFunc(description.Engine.Plugins, func(a, b swarm.PluginDescription) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return description, nil
}

// EngineID is what the engine calls itself.
func (d *Driver) EngineID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engineID
}

// describePlugins adds the managed plugins that are enabled.
func (d *Driver) describePlugins(ctx context.Context, add func(kind string, names ...string)) error {
	kinds := map[string]string{"volumedriver": "Volume", "networkdriver": "Network", "logdriver": "Log"}
	plugins, err := d.client.PluginList(ctx, filters.NewArgs())
	if err != nil {
		return explain(err)
	}
	for _, plugin := range plugins {
		for _, t := range plugin.Config.Interface.Types {
			if t.Prefix != "docker" || !plugin.Enabled {
				continue
			}
			kind := kinds[t.Capability]
			if kind == "" {
				kind = t.Capability
			}
			add(kind, plugin.Name)
		}
	}
	return nil
}

// List asks for the node's containers, and remembers their IDs. Files of secrets
// and configs that an earlier run of the daemon left behind go.
func (d *Driver) List(ctx context.Context, nodeID string) ([]agent.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	found, err := d.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", LabelNode+"="+nodeID), filters.Arg("label", LabelNodeID+"="+nodeID))})
	if err != nil {
		return nil, explain(err)
	}
	list := d.takeNote(found)
	d.filer.sweep(nodeID, func(taskID string) bool {
		return slices.ContainsFunc(list, func(c agent.Container) bool { return c.TaskID == taskID && c.Phase != agent.Exited })
	})
	return list, nil
}

// takeNote remembers the IDs of containers and translates them.
func (d *Driver) takeNote(found []container.Summary) []agent.Container {
	var list []agent.Container
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range found {
		taskID := c.Labels[LabelTaskID]
		if taskID == "" {
			continue
		}
		if d.known[taskID] == nil {
			d.known[taskID] = &known{id: c.ID}
		}
		list = append(list, agent.Container{TaskID: taskID, ID: c.ID, Phase: phase(c.State)})
	}
	return list
}

// phase translates the engine's word.
func phase(state container.ContainerState) agent.Phase {
	switch state {
	case container.StateCreated:
		return agent.Created
	case container.StateRunning, container.StatePaused, container.StateRestarting:
		return agent.Running
	}
	return agent.Exited
}

// slot waits for the right to make one more call.
func (d *Driver) slot(ctx context.Context) (release func(), err error) {
	select {
	case d.slots <- struct{}{}:
		return func() { <-d.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lasting waits for a slot, and returns a context for calls that must not be cut off, until end.
func (d *Driver) lasting(ctx context.Context) (_ context.Context, end func(), err error) {
	release, err := d.slot(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Timeout)
	return ctx, func() { cancel(); release() }, nil
}

// recall returns what is remembered of a task's container, the zero value if
// nothing is.
func (d *Driver) recall(taskID string) known {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.known[taskID]; k != nil {
		return *k
	}
	return known{}
}

// remember changes what is known of a task's container.
func (d *Driver) remember(taskID string, change func(*known)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.known[taskID]
	if k == nil {
		k = &known{}
		d.known[taskID] = k
	}
	change(k)
}

// find returns the ID of the task's container.
func (d *Driver) find(ctx context.Context, taskID string) (string, error) {
	if id := d.recall(taskID).id; id != "" {
		return id, nil
	}
	found, err := d.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", LabelNode), filters.Arg("label", LabelTaskID+"="+taskID))})
	if err != nil {
		return "", explain(err)
	}
	if len(found) == 0 {
		return "", cluster.Errorf(cluster.ErrNotFound, "No such container: %s", taskID)
	}
	d.remember(taskID, func(k *known) { k.id = found[0].ID })
	return found[0].ID, nil
}
