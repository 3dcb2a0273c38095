package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"skep/cluster"
	"skep/cmd/skep/stack"
)

const (
	// stackCheck is how often waiting for a stack looks.
	stackCheck = 500 * time.Millisecond
	// steady is how long a service must stand for it to count, unless its spec says how long an
	// update is watched: a program that ends at once does so in that time.
	steady = 5 * time.Second
	// logLines is how much of a failed task's log is shown.
	logLines = 20
	// logLimit bounds how long that may take: its node may be what failed.
	logLimit = 10 * time.Second
)

// waitFlags say whether and how long to wait.
type waitFlags struct {
	detach, quiet bool
	timeout       time.Duration
}

func (f *waitFlags) install(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.detach, "detach", "d", false, "Exit at once instead of waiting until the services run")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Show no progress")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "How long to wait at most")
}

// wait waits until all services of the stack's file run, or are complete, and says why not.
func (d *deployment) wait(ctx context.Context, flags *waitFlags) error {
	out := io.Writer(d.cli.Out())
	if flags.quiet {
		out = io.Discard
	}
	updated := map[string]bool{}
	for _, spec := range d.Services {
		updated[spec.Name] = d.actionOf(spec.Name) == cluster.PlanUpdate
	}
	return waitForServices(ctx, d.cli.Client(), out, d.cli.Err(), updated, flags.timeout)
}

// waitForServices waits for services, and knows of each whether it was updated. Whatever ends the
// waiting ends nothing else.
func waitForServices(ctx context.Context, c client.APIClient, out, errOut io.Writer, updated map[string]bool, timeout time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	check := time.NewTicker(stackCheck)
	defer check.Stop()
	shown := map[string]string{}
	since := map[string]time.Time{} // when a service was first seen to stand, or to be stuck
	var last map[string]stack.Standing
	services := map[string]swarm.Service{}
	for {
		standings, err := look(limit, c, updated, services)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case limit.Err() != nil:
			return notStanding(ctx, c, errOut, services, last, fmt.Sprintf("after %v", timeout))
		case errdefs.IsUnavailable(err): // There is no leader just now.
		case err != nil:
			return err
		default:
			last = standings
			standing, failed := 0, false
			for name, s := range standings {
				if shown[name] != s.Text {
					fmt.Fprintf(out, "%s: %s\n", name, s.Text)
					shown[name] = s.Text
				}
				if !s.Done && !s.Stuck {
					delete(since, name)
				} else if since[name].IsZero() {
					since[name] = time.Now()
				}
				long := !since[name].IsZero() && time.Since(since[name]) >= watched(services[name])
				switch {
				case s.Failed, s.Stuck && long:
					s.Failed = true
					standings[name] = s
					failed = true
				case s.Done && long:
					standing++
				}
			}
			switch {
			case failed:
				return notStanding(ctx, c, errOut, services, standings, "")
			case standing == len(updated):
				return nil
			}
		}
		select {
		case <-check.C:
		case <-limit.Done():
		}
	}
}

// watched is for how long a service is watched before it counts as standing.
func watched(service swarm.Service) time.Duration {
	switch config := service.Spec.UpdateConfig; {
	case service.Spec.Mode.ReplicatedJob != nil || service.Spec.Mode.GlobalJob != nil:
		return 0
	case config != nil && config.Monitor > 0:
		return config.Monitor
	}
	return steady
}

// look tells how the services are, and notes them.
func look(ctx context.Context, c client.APIClient, updated map[string]bool, services map[string]swarm.Service) (map[string]stack.Standing, error) {
	args, ids := filters.NewArgs(), filters.NewArgs(filters.Arg("_up-to-date", "true"))
	for name := range updated {
		args.Add("name", name)
	}
	list, err := c.ServiceList(ctx, swarm.ServiceListOptions{Filters: args, Status: true})
	if err != nil {
		return nil, err
	}
	clear(services)
	for _, service := range list {
		if _, ok := updated[service.Spec.Name]; ok { // A filter takes names that begin so, too.
			services[service.Spec.Name] = service
			ids.Add("service", service.ID)
		}
	}
	for name := range updated {
		if _, ok := services[name]; !ok {
			return nil, fmt.Errorf("service %s was removed while it was waited for", name)
		}
	}
	if len(services) == 0 {
		return nil, nil
	}
	tasks, err := c.TaskList(ctx, swarm.TaskListOptions{Filters: ids})
	if err != nil {
		return nil, err
	}
	byService := map[string][]swarm.Task{}
	for _, t := range tasks {
		byService[t.ServiceID] = append(byService[t.ServiceID], t)
	}
	standings := map[string]stack.Standing{}
	for name, service := range services {
		standings[name] = stack.Judge(service, byService[service.ID], updated[name])
	}
	return standings, nil
}

// notStanding says why services don't stand: what the cluster knows, and the end of what a failed
// task wrote.
func notStanding(ctx context.Context, c client.APIClient, w io.Writer, services map[string]swarm.Service, standings map[string]stack.Standing, when string) error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(standings)) {
		s := standings[name]
		if s.Done || when == "" && !s.Failed {
			continue
		}
		names = append(names, name)
		fmt.Fprintf(w, "\n%s: %s\n", name, s.Text)
		service := services[name]
		var why cluster.Why
		if err := ask(ctx, c, http.MethodGet, "services/"+url.PathEscape(service.ID)+"/why", nil, &why); err == nil {
			fmt.Fprint(w, why)
		}
		showLastFailure(ctx, c, w, service)
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(standings))
	}
	text := "these services don't run as they should"
	if when != "" {
		text += " " + when
	}
	return errors.New(text + ": " + strings.Join(names, ", "))
}

// showLastFailure shows the end of the log of the service's task that failed last.
func showLastFailure(ctx context.Context, c client.APIClient, w io.Writer, service swarm.Service) {
	ctx, cancel := context.WithTimeout(ctx, logLimit)
	defer cancel()
	tasks, err := c.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", service.ID))})
	if err != nil {
		return
	}
	var failed swarm.Task
	for _, t := range tasks {
		if t.Status.State == swarm.TaskStateFailed && t.Status.ContainerStatus != nil && t.Status.ContainerStatus.ContainerID != "" && t.Status.Timestamp.After(failed.Status.Timestamp) {
			failed = t
		}
	}
	if failed.ID == "" {
		return
	}
	log, err := c.TaskLogs(ctx, failed.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: fmt.Sprint(logLines)})
	if err != nil {
		return
	}
	defer log.Close()
	var text bytes.Buffer
	if spec := service.Spec.TaskTemplate.ContainerSpec; spec != nil && spec.TTY {
		_, err = io.Copy(&text, log)
	} else {
		_, err = stdcopy.StdCopy(&text, &text, log)
	}
	if text.Len() == 0 || err != nil && !errors.Is(err, io.EOF) {
		return
	}
	fmt.Fprintf(w, "The end of what task %s wrote:\n", failed.ID)
	for line := range strings.Lines(text.String()) {
		fmt.Fprintf(w, "    %s\n", harmless(strings.TrimRight(line, "\r\n")))
	}
}

// harmless is text of which a terminal obeys nothing.
func harmless(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\t' {
			return '\uFFFD'
		}
		return c
	}, text)
}

// addWaitTo gives docker's command a flag to wait until all of a stack is gone.
func addWaitTo(cmd *cobra.Command, dockerCLI command.Cli) {
	var wait bool
	var timeout time.Duration
	cmd.Flags().BoolVar(&wait, "wait", false, "Wait until no task of the stack is left")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "With --wait, how long at most")
	previous := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := previous(cmd, args); err != nil || !wait {
			return err
		}
		for _, name := range args {
			if err := waitForNone(cmd.Context(), dockerCLI.Client(), name, timeout); err != nil {
				return err
			}
		}
		return nil
	}
}

// waitForNone waits until a stack has no tasks.
func waitForNone(ctx context.Context, c client.APIClient, name string, timeout time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	check := time.NewTicker(stackCheck)
	defer check.Stop()
	left := -1
	for {
		tasks, err := c.TaskList(limit, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("label", convert.LabelNamespace+"="+name))})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case limit.Err() != nil:
			return fmt.Errorf("after %v stack %s still has %s that didn't stop: see `skep stack ps %s`", timeout, name, plural(left, "task"), name)
		case errdefs.IsUnavailable(err):
		case err != nil:
			return err
		case len(tasks) == 0:
			return nil
		default:
			left = len(tasks)
		}
		select {
		case <-check.C:
		case <-limit.Done():
		}
	}
}
