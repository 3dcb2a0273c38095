package main

//lint:file-ignore SA1019 as in root.go.

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"
)

// newServiceExecCommand is docker's exec, which finds the container by itself, on whichever
// node it is.
func newServiceExecCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := container.NewExecCommand(dockerCLI)
	cmd.Use = "exec [OPTIONS] SERVICE|TASK COMMAND [ARG...]"
	cmd.Short = "Run a command in the container of a task, on whichever node it runs"
	cmd.Long = `Run a command in the container of a task, on whichever node it runs.

Of a service it is the running task of the lowest slot, unless --task names another one.
A cluster may refuse it: see "skep cluster update --forbid-exec".`
	cmd.Annotations, cmd.ValidArgsFunction = nil, nil
	which := cmd.Flags().String("task", "", "Slot, ID or name of the service's task")
	inContainer := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := containerOf(cmd.Context(), dockerCLI.Client(), args[0], *which)
		if err != nil {
			return err
		}
		return inContainer(cmd, append([]string{id}, args[1:]...))
	}
	return cmd
}

// containerOf finds the container to run in: of a service's task, or of the task that ref names.
func containerOf(ctx context.Context, c client.APIClient, ref, which string) (string, error) {
	service, _, err := c.ServiceInspectWithRaw(ctx, ref, swarm.ServiceInspectOptions{})
	if errdefs.IsNotFound(err) && which == "" {
		task, _, failed := c.TaskInspectWithRaw(ctx, ref)
		if errdefs.IsNotFound(failed) {
			return "", fmt.Errorf("there is no service and no task %s", ref)
		}
		if failed != nil {
			return "", failed
		}
		return containerOfTask(task)
	}
	if err != nil {
		return "", err
	}
	tasks, err := c.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", service.ID))})
	if err != nil {
		return "", err
	}
	task, err := taskOf(service.Spec.Name, tasks, which)
	if err != nil {
		return "", err
	}
	return containerOfTask(task)
}

// taskOf chooses of a service's tasks the one that is meant: which is its slot (the node, of a
// global service), its name as "service ps" shows it or as its container has it, its ID or
// the beginning of that; empty is any that runs.
func taskOf(service string, tasks []swarm.Task, which string) (swarm.Task, error) {
	slot, id, whole := strings.Cut(strings.TrimPrefix(which, service+"."), ".")
	_, err := strconv.ParseUint(slot, 10, 32) // IDs have more digits.
	var found []swarm.Task
	for _, task := range tasks {
		switch {
		case whole && task.ID == id, task.ID == which:
			return task, nil
		case whole:
		case which == "" || slot == strconv.Itoa(task.Slot) || slot == task.NodeID:
			wanted := task.DesiredState == swarm.TaskStateRunning || task.DesiredState == swarm.TaskStateComplete
			if task.Status.State == swarm.TaskStateRunning && wanted {
				found = append(found, task)
			}
		case err != nil && strings.HasPrefix(task.ID, which):
			found = append(found, task)
		}
	}
	if len(found) == 0 {
		return swarm.Task{}, fmt.Errorf("service %s has no running task %s: see \"skep service ps %s\"", service, cmp.Or(which, "now"), service)
	}
	return slices.MinFunc(found, func(a, b swarm.Task) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.NodeID, b.NodeID), cmp.Compare(a.ID, b.ID))
	}), nil
}

func containerOfTask(task swarm.Task) (string, error) {
	if status := task.Status.ContainerStatus; status != nil && status.ContainerID != "" {
		return status.ContainerID, nil
	}
	return "", fmt.Errorf("task %s has no container: it is %s", task.ID, task.Status.State)
}
