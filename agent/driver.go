package agent

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Driver runs the containers of tasks. The agent calls its methods from several
// goroutines, but never two at a time that change the same task.
//
// Containers are named by the ID of their task, since a task has at most one,
// ever. So every method is idempotent: what is there already is taken over, what
// has been done already is done. An engine that doesn't answer is an error that
// wraps cluster.ErrUnavailable: the agent tries again. Any other error of
// Prepare and Start is the end of the task.
type Driver interface {
	// Describe gives an account of the machine and its engine.
	Describe(ctx context.Context) (swarm.NodeDescription, error)
	// Watch calls changed with the task ID of each container of the node that
	// exits, vanishes or changes its health, and with "" each time it has begun to
	// listen: anything may have happened before. It blocks until ctx ends or the
	// stream is lost. changed may block.
	Watch(ctx context.Context, nodeID string, changed func(taskID string)) error
	// List returns all containers made by this kind of driver for tasks of the
	// node, also those that ended. Their Health and ExitCode needn't be filled in.
	List(ctx context.Context, nodeID string) ([]Container, error)
	// Prepare fetches the image and creates the container without starting it, or
	// takes over the one that the task has, for which it needs no secrets and configs.
	// It may take long. The assignment's Files are in the container as soon as it
	// starts, and nowhere once it has ended.
	Prepare(ctx context.Context, assignment Assignment) (Container, error)
	// Start starts the container, unless it was ever started, and returns what it
	// is like then. It doesn't wait for a health check.
	Start(ctx context.Context, taskID string) (Container, error)
	// Inspect returns the container as it is now; an error that wraps
	// cluster.ErrNotFound when it is gone. An exit that Watch saw is remembered
	// even when somebody has removed the container since.
	Inspect(ctx context.Context, taskID string) (Container, error)
	// Stop asks the container to stop and kills it after grace; at once when grace
	// is zero. It returns when the container has ended, and with cluster.ErrNotFound
	// when there is none.
	Stop(ctx context.Context, taskID string, grace time.Duration) (Container, error)
	// Remove kills the container if need be and removes it. It is no error when
	// there is none.
	Remove(ctx context.Context, taskID string) error
	// Connect has the container on the networks of the assignment: on those that it lacks, and
	// off others of the cluster. A port that is published later, on a service that runs, needs it.
	Connect(ctx context.Context, assignment Assignment) error
	// KeepNetworks has the engine know these networks of the cluster, whose bridges are there,
	// and no others that the node made, unless containers are on them: used has the IDs of those.
	KeepNetworks(ctx context.Context, nodeID string, networks []*cluster.Network) (used []string, err error)
	// ClearNetworks has the engine know none of the cluster's networks any more: the node has left. While
	// containers of other nodes are on one, nothing is done, and shared is set.
	ClearNetworks(ctx context.Context, nodeID string) (shared bool, err error)
	// Forget removes what is kept beside containers for all tasks of the node, such as
	// the files of their secrets, whether they run or not: the node has left.
	Forget(nodeID string) error
	// Logs calls emit with the container's lines, in order, until all are read or,
	// when following, until the container ends. An error of emit ends it.
	Logs(ctx context.Context, taskID string, options cluster.LogOptions, emit func([]cluster.LogLine) error) error
}

// NamedEngine is a driver whose engine has a name of its own: agents that tell the same one share
// it, and its networks.
type NamedEngine interface {
	// EngineID is what the engine calls itself, once Describe has been answered.
	EngineID() string
}

// Listener is a driver that can look at what the programs of containers listen at.
type Listener interface {
	// Listens tells whether the container of this process listens at the target of one of these ports, or whether that
	// can't be known.
	Listens(pid int, ports []cluster.PublishedPort) bool
}

// EngineDialer is a driver whose engine takes Docker's requests.
type EngineDialer interface {
	// DialEngine opens a connection to the engine, for requests in HTTP.
	DialEngine(ctx context.Context) (net.Conn, error)
}

// AddressUser is a driver or a plane that knows which addresses its machine has in use.
type AddressUser interface {
	AddressUses(ctx context.Context) ([]cluster.AddressUse, error)
}

// Assignment is what a driver needs to know to run a task.
type Assignment struct {
	Task     *cluster.Task
	Revision *cluster.Revision
	// Hostname is the node's, for templates.
	Hostname string
	// Secrets and Configs are those that the revision refers to, by ID, as far as they
	// have come; nil for one that was removed. Files makes of them what the container
	// gets to see. They must not be written to a disk, and not be logged.
	Secrets map[string]*cluster.Secret
	Configs map[string]*cluster.Config
	// Networks are those of the cluster that the container is on, in the revision's order, the
	// ingress network last.
	Networks []Attachment
	// Lack is why the container can't be on its networks yet: it waits.
	Lack string
	// Reconnect has a container that is there be connected to its networks again, since they have
	// changed.
	Reconnect bool
	// Draining keeps the container, which is to stop, for another moment: it may still be sent
	// something new.
	Draining bool
	// Await are the published ports at one of which the program is to listen before the task counts as running,
	// unless it has a health check; nil for none, or when that was waited for already.
	Await []cluster.PublishedPort
	// Fenced has the task stop because the node's lease with the managers is over; Held
	// keeps it from starting while there is none.
	Fenced, Held bool
	// Disowned has it stop because this machine is a copy of the node's.
	Disowned bool
}

// Attachment is a container's place in a network.
type Attachment struct {
	Network *cluster.Network
	Host    cluster.Host
}

// ContainerName is Swarm's name for the task's container: service.slot.task, with
// the node's ID for the slot in global services.
func (a Assignment) ContainerName() string { return a.Revision.TaskName(a.Task) }

// Slot is the task's slot as templates show it; the node's ID when there is none.
func (a Assignment) Slot() string {
	if a.Task.Slot == 0 {
		return a.Task.NodeID
	}
	return fmt.Sprint(a.Revision.ShownSlot(a.Task))
}

// Grace is how long the task's container may take to stop.
func (a Assignment) Grace() time.Duration { return a.Revision.StopGrace() }

// Phase is how far a container has come.
type Phase uint8

// The phases of a container, in order.
const (
	Created Phase = iota
	Running
	Exited
)

// Health is the verdict of a container's health check.
type Health uint8

// The verdicts; HealthNone means that there is no check.
const (
	HealthNone Health = iota
	HealthStarting
	HealthGood
	HealthBad
)

// Container is what a driver sees of a task's container.
type Container struct {
	TaskID string
	// ID is the engine's.
	ID    string
	Phase Phase
	// Health matters while the container runs.
	Health Health
	PID    int
	// Ports are those published on the node while it runs, as cluster.FormatPorts
	// writes them.
	Ports string
	// ExitCode is set once it has exited.
	ExitCode int
}
