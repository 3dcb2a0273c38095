package main

//lint:file-ignore SA1019 as in root.go.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/node"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cluster"
)

const (
	// drainCheck is how often `skep node drain --wait` looks.
	drainCheck = 500 * time.Millisecond
	// setTries is how often a node's availability is set anew when the node's record
	// changed at the same moment, as it does when the node comes or goes.
	setTries = 5
	// explainTimeout bounds the last look, which says why a node isn't empty.
	explainTimeout = 10 * time.Second
	// drainTime is how the end of a drain is shown: docker's table has no letters in capitals.
	drainTime = "2006-01-02 15:04:05 -0700"
)

// newNodeCommand is docker's group of that name, with what is ours in it.
func newNodeCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := node.NewNodeCommand(dockerCLI)
	showDrainUntil(cmd, dockerCLI)
	cmd.AddCommand(newNodeDrainCommand(dockerCLI), newNodeActivateCommand(dockerCLI), newNodePruneCommand(dockerCLI), newNodeClearCommand(), newNodeStatsCommand(dockerCLI))
	return cmd
}

func newNodeActivateCommand(dockerCLI command.Cli) *cobra.Command {
	return &cobra.Command{
		Use:   "activate NODE [NODE...]",
		Short: "Let one or more nodes take tasks again",
		Args:  cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := setAvailability(cmd.Context(), dockerCLI, args, swarm.NodeAvailabilityActive)
			return err
		},
	}
}

func newNodeDrainCommand(dockerCLI command.Cli) *cobra.Command {
	var wait bool
	var timeout, length time.Duration
	cmd := &cobra.Command{
		Use:   "drain [OPTIONS] NODE [NODE...]",
		Short: "Move all tasks off one or more nodes",
		Long: `Move all tasks off one or more nodes, and give them no more until "skep node activate".

With --for, they are active again by themselves when that time is over, whatever becomes of
this command and of managers; "skep node ls" and "skep cluster status" show until when. Draining
a node again gives it another time, or without --for none: then it is drained for good.

Each service's tasks are moved in the order and with the parallelism of its updates. With
--wait, the command shows how many are left, and exits with 0 when none runs there any
more. It exits with 1 after the timeout, and says which are left and why; the nodes go on
being drained.`,
		Args: cli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case timeout < 0:
				return errors.New("--timeout can't be negative")
			case cmd.Flags().Changed("timeout") && !wait:
				return errors.New("--timeout is for --wait: give both, or neither")
			case cmd.Flags().Changed("for") && (length <= 0 || length > cluster.MaxDrain):
				return fmt.Errorf("--for %v: give a time such as 30m, at most %v", length, cluster.MaxDrain)
			}
			var nodes []swarm.Node
			var err error
			if length > 0 {
				nodes, err = drainFor(cmd.Context(), dockerCLI, args, length)
				if timeout == 0 {
					timeout = length // Then tasks may come again.
				}
			} else {
				nodes, err = setAvailability(cmd.Context(), dockerCLI, args, swarm.NodeAvailabilityDrain)
			}
			if err != nil || !wait {
				return err
			}
			d := drain{client: dockerCLI.Client(), out: dockerCLI.Out(), names: map[string]string{}}
			return d.wait(cmd.Context(), nodes, timeout)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 0, "Have the nodes active again after this time, such as 30m")
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "Wait until no task runs on the nodes any more")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "How long to wait, such as 5m (0 is without end)")
	return cmd
}

// setAvailability sets it on all of the nodes, and returns them as they were found.
func setAvailability(ctx context.Context, dockerCLI command.Cli, refs []string, availability swarm.NodeAvailability) ([]swarm.Node, error) {
	c := dockerCLI.Client()
	var nodes []swarm.Node
	for _, ref := range refs {
		id, err := node.Reference(ctx, c, ref)
		if err != nil {
			return nil, err
		}
		for try := 1; ; try++ {
			found, _, err := c.NodeInspectWithRaw(ctx, id)
			if err != nil {
				return nil, err
			}
			if _, timed := found.Spec.Labels[cluster.LabelDrainUntil.Name]; timed || found.Spec.Availability != availability {
				found.Spec.Availability = availability
				delete(found.Spec.Labels, cluster.LabelDrainUntil.Name)
				err = c.NodeUpdate(ctx, found.ID, found.Version, found.Spec)
			}
			if err == nil {
				nodes = append(nodes, found)
				break
			}
			if try == setTries || !strings.Contains(err.Error(), "out of sequence") {
				return nil, err
			}
		}
		fmt.Fprintln(dockerCLI.Out(), ref)
	}
	return nodes, nil
}

// drainFor drains nodes for a while, and returns them as they were found.
func drainFor(ctx context.Context, dockerCLI command.Cli, refs []string, length time.Duration) ([]swarm.Node, error) {
	var nodes []swarm.Node
	for _, ref := range refs {
		id, err := node.Reference(ctx, dockerCLI.Client(), ref)
		if err != nil {
			return nil, err
		}
		found, _, err := dockerCLI.Client().NodeInspectWithRaw(ctx, id)
		if err != nil {
			return nil, err
		}
		var drained cluster.Drained
		if err := ask(ctx, dockerCLI.Client(), http.MethodPost, "nodes/"+found.ID+"/drain?for="+length.String(), nil, &drained); err != nil {
			return nil, err
		}
		nodes = append(nodes, found)
		fmt.Fprintf(dockerCLI.Out(), "%s: drained until %s\n", ref, drained.Until.Format(time.RFC3339))
	}
	return nodes, nil
}

// showDrainUntil has "node ls" show until when a node is drained, where docker's table has its availability. What is
// printed by a format, for programs, stays docker's.
func showDrainUntil(nodes *cobra.Command, dockerCLI command.Cli) {
	shown := &drainTimesCLI{Cli: dockerCLI}
	for _, ls := range node.NewNodeCommand(shown).Commands() {
		if ls.Name() != "ls" {
			continue
		}
		ls.PreRun = func(cmd *cobra.Command, _ []string) {
			shown.off = cmd.Flags().Changed("format") || dockerCLI.ConfigFile().NodesFormat != ""
		}
		for _, old := range nodes.Commands() {
			if old.Name() == ls.Name() {
				nodes.RemoveCommand(old)
			}
		}
		nodes.AddCommand(ls)
	}
}

// drainTimesCLI lists nodes with the end of their drain, unless it is off.
type drainTimesCLI struct {
	command.Cli
	off bool
}

func (c *drainTimesCLI) Client() client.APIClient {
	if c.off {
		return c.Cli.Client()
	}
	return drainTimesClient{c.Cli.Client()}
}

type drainTimesClient struct{ client.APIClient }

func (c drainTimesClient) NodeList(ctx context.Context, options swarm.NodeListOptions) ([]swarm.Node, error) {
	nodes, err := c.APIClient.NodeList(ctx, options)
	for i, n := range nodes {
		nodes[i].Spec.Availability = swarm.NodeAvailability(withDrainUntil(string(n.Spec.Availability), cluster.DrainsUntil(n.Spec)))
	}
	return nodes, err
}

// withDrainUntil is a node's availability with the time when it ends, if that is known.
func withDrainUntil(availability string, until time.Time) string {
	if until.IsZero() {
		return availability
	}
	return availability + " until " + until.UTC().Format(drainTime)
}

// drain is one wait for nodes to be empty.
type drain struct {
	client client.APIClient
	out    io.Writer
	names  map[string]string // of services, by ID
}

// wait returns when no task runs on the nodes any more. While managers have no
// leader it waits for that too.
func (d *drain) wait(ctx context.Context, nodes []swarm.Node, timeout time.Duration) error {
	limit := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	check := time.NewTicker(drainCheck)
	defer check.Stop()
	shown := map[string]string{}
	left := slices.Clone(nodes)
	for {
		var still []swarm.Node
		for _, n := range left {
			tasks, err := d.running(limit, n.ID)
			switch {
			case limit.Err() != nil || errdefs.IsUnavailable(err):
				still = append(still, n)
				continue
			case err != nil:
				return err
			}
			if text := d.count(limit, tasks); text != shown[n.ID] {
				fmt.Fprintf(d.out, "%s: %s\n", n.Description.Hostname, text)
				shown[n.ID] = text
			}
			if len(tasks) > 0 {
				still = append(still, n)
			}
		}
		if left = still; len(left) == 0 {
			return nil
		}
		select {
		case <-check.C:
			continue
		case <-limit.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return d.explain(ctx, left, timeout)
	}
}

// running lists the tasks of a node that haven't ended.
func (d *drain) running(ctx context.Context, nodeID string) ([]swarm.Task, error) {
	tasks, err := d.client.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("node", nodeID))})
	return slices.DeleteFunc(tasks, func(t swarm.Task) bool { return ended(t) }), err
}

func ended(t swarm.Task) bool {
	switch t.Status.State {
	case swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateRemove, swarm.TaskStateOrphaned:
		return true
	}
	return false
}

// count says how many tasks there are, in all and of each service.
func (d *drain) count(ctx context.Context, tasks []swarm.Task) string {
	if len(tasks) == 0 {
		return "empty"
	}
	services := map[string]int{}
	for _, t := range tasks {
		services[d.name(ctx, t.ServiceID)]++
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(services)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, services[name]))
	}
	return fmt.Sprintf("%s left (%s)", plural(len(tasks), "task"), strings.Join(parts, ", "))
}

// name is a service's name; its ID when it is gone.
func (d *drain) name(ctx context.Context, id string) string {
	if name := d.names[id]; name != "" {
		return name
	}
	service, _, err := d.client.ServiceInspectWithRaw(ctx, id, swarm.ServiceInspectOptions{})
	if err != nil || service.Spec.Name == "" {
		return id
	}
	d.names[id] = service.Spec.Name
	return service.Spec.Name
}

// explain makes the error that says which tasks are left on which nodes, and why.
func (d *drain) explain(ctx context.Context, nodes []swarm.Node, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	var lines []string
	for _, n := range nodes {
		now, _, err := d.client.NodeInspectWithRaw(ctx, n.ID)
		if err != nil {
			return fmt.Errorf("look what is left on node %s after %s: %w", n.Description.Hostname, timeout, err)
		}
		tasks, err := d.running(ctx, n.ID)
		if err != nil {
			return fmt.Errorf("look what is left on node %s after %s: %w", n.Description.Hostname, timeout, err)
		}
		for _, t := range tasks {
			beside, err := d.client.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", t.ServiceID))})
			if err != nil {
				beside = nil // The service is gone, and the task is to stop.
			}
			lines = append(lines, fmt.Sprintf("  %s.%d (task %.12s) on %s: %s", d.name(ctx, t.ServiceID), t.Slot, t.ID, n.Description.Hostname, whyLeft(now, t, beside)))
		}
	}
	if len(lines) == 0 {
		return nil // The last one ended in this moment.
	}
	return fmt.Errorf("%s left after %s:\n%s", plural(len(lines), "task"), timeout, strings.Join(lines, "\n"))
}

// whyLeft says why a task is still on a node that is being drained; beside are all
// tasks of its service.
func whyLeft(n swarm.Node, t swarm.Task, beside []swarm.Task) string {
	wanted := func(t swarm.Task) bool {
		return t.DesiredState == swarm.TaskStateRunning || t.DesiredState == swarm.TaskStateReady
	}
	switch {
	case n.Spec.Availability != swarm.NodeAvailabilityDrain:
		return fmt.Sprintf("the node's availability is %s again", n.Spec.Availability)
	case n.Status.State != swarm.NodeStateReady:
		return fmt.Sprintf("the node is %s, so nobody can tell whether it still runs", n.Status.State)
	case !wanted(t):
		return "it is stopping"
	}
	for _, other := range beside {
		if other.ID == t.ID || !wanted(other) || other.NodeID == t.NodeID || other.Status.State == swarm.TaskStateRunning {
			continue
		}
		what := "its turn comes after"
		if other.Slot == t.Slot {
			what = "it goes on until its replacement runs:"
		}
		text := fmt.Sprintf("%s task %.12s, which is %s", what, other.ID, other.Status.State)
		if other.Status.Err != "" {
			text += ": " + other.Status.Err
		}
		return text
	}
	return "its turn hasn't come yet"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
