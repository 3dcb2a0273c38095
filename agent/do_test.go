package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"skep/cluster"
)

// scriptedDriver answers each call with what the test says, and notes the calls.
type scriptedDriver struct {
	Driver
	container Container
	err       error
	calls     []string
}

func (d *scriptedDriver) answer(call string) (Container, error) {
	d.calls = append(d.calls, call)
	if d.err != nil {
		return Container{}, d.err
	}
	return d.container, nil
}

func (d *scriptedDriver) Prepare(context.Context, Assignment) (Container, error) {
	return d.answer("prepare")
}
func (d *scriptedDriver) Start(context.Context, string) (Container, error) { return d.answer("start") }
func (d *scriptedDriver) Inspect(context.Context, string) (Container, error) {
	return d.answer("inspect")
}
func (d *scriptedDriver) Stop(_ context.Context, _ string, grace time.Duration) (Container, error) {
	return d.answer("stop " + grace.String())
}

var later = time.Unix(2000, 0)

func laterClock() time.Time { return later }

func work(desired cluster.State) Assignment {
	return Assignment{
		Task:     &cluster.Task{ID: "t1", NodeID: "n1", ServiceID: "s1", Slot: 1, Desired: desired},
		Revision: &cluster.Revision{ServiceID: "s1", ServiceName: "web", Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}}},
	}
}

func status(state cluster.State, message string) cluster.TaskStatus {
	return cluster.TaskStatus{State: state, Message: message, Since: cluster.At(time.Unix(1000, 0))}
}

func TestDo(t *testing.T) {
	away := fmt.Errorf("engine away: %w", cluster.ErrUnavailable)
	reached := func(s cluster.TaskStatus, change func(*cluster.TaskStatus)) cluster.TaskStatus {
		s.Since = cluster.At(later)
		if change != nil {
			change(&s)
		}
		return s
	}
	withID := func(s cluster.TaskStatus) cluster.TaskStatus { s.ContainerID, s.PID = "c1", 7; return s }
	withPorts := func(s cluster.TaskStatus) cluster.TaskStatus { s.Ports = "8080:80/tcp"; return s }
	running := Container{ID: "c1", PID: 7, Phase: Running}

	for _, test := range []struct {
		name      string
		desired   cluster.State
		managers  cluster.TaskStatus
		status    cluster.TaskStatus
		container Container
		err       error
		await     bool
		want      cluster.TaskStatus
		next      Next
		calls     []string
	}{
		{
			name: "an assigned task is accepted", desired: cluster.StateRunning,
			status: status(cluster.StateAssigned, "scheduler assigned task to node"),
			want:   reached(status(cluster.StateAccepted, "accepted"), nil), next: Again,
		},
		{
			name: "an accepted task is prepared", desired: cluster.StateReady,
			status: status(cluster.StateAccepted, "accepted"),
			want:   reached(status(cluster.StatePreparing, "preparing"), nil), next: Again,
		},
		{
			name: "preparing makes the container", desired: cluster.StateReady,
			status: status(cluster.StatePreparing, "preparing"), container: Container{ID: "c1"},
			want: reached(status(cluster.StateReady, "prepared"), func(s *cluster.TaskStatus) { s.ContainerID = "c1" }), next: Again,
			calls: []string{"prepare"},
		},
		{
			name: "an error while preparing rejects the task", desired: cluster.StateRunning,
			status: status(cluster.StatePreparing, "preparing"), err: errors.New("No such image: web:1"),
			want: reached(status(cluster.StateRejected, "preparing"), func(s *cluster.TaskStatus) { s.Err = "No such image: web:1" }), next: Wait,
			calls: []string{"prepare"},
		},
		{
			name: "the engine being away leaves it, with the reason", desired: cluster.StateRunning,
			status: status(cluster.StatePreparing, "preparing"), err: away,
			want: func() cluster.TaskStatus {
				s := status(cluster.StatePreparing, "preparing")
				s.Err = away.Error()
				return s
			}(), next: Retry, calls: []string{"prepare"},
		},
		{
			name: "a task that is only wanted ready waits", desired: cluster.StateReady,
			status: status(cluster.StateReady, "prepared"), want: status(cluster.StateReady, "prepared"), next: Wait,
		},
		{
			name: "a ready task goes on when it is wanted running", desired: cluster.StateRunning,
			status: status(cluster.StateReady, "prepared"),
			want:   reached(status(cluster.StateStarting, "starting"), nil), next: Again,
		},
		{
			name: "a job's task goes on too", desired: cluster.StateComplete,
			status: status(cluster.StateReady, "prepared"),
			want:   reached(status(cluster.StateStarting, "starting"), nil), next: Again,
		},
		{
			name: "starting starts the container", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), container: running,
			want: withID(reached(status(cluster.StateRunning, "started"), nil)), next: Wait, calls: []string{"start"},
		},
		{
			name: "one whose ports are published must listen first", desired: cluster.StateRunning, await: true,
			status: status(cluster.StateStarting, "starting"), container: running,
			want: withID(status(cluster.StateStarting, "started, waiting until it listens at a published port")), next: Listen, calls: []string{"start"},
		},
		{
			name: "which a health check finds out better", desired: cluster.StateRunning, await: true,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", PID: 7, Phase: Running, Health: HealthGood},
			want: withID(reached(status(cluster.StateRunning, "started"), nil)), next: Wait, calls: []string{"start"},
		},
		{
			name: "and isn't waited for when it has ended", desired: cluster.StateRunning, await: true,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", Phase: Exited, ExitCode: 1},
			want: reached(status(cluster.StateFailed, "starting"), func(s *cluster.TaskStatus) {
				s.ContainerID, s.Err, s.ExitCode = "c1", "task: non-zero exit (1)", 1
			}), next: Wait, calls: []string{"start"},
		},
		{
			name: "a container with a health check must be healthy first", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", PID: 7, Phase: Running, Health: HealthStarting},
			want: withID(status(cluster.StateStarting, "starting")), next: Wait, calls: []string{"start"},
		},
		{
			name: "and runs when it is", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", PID: 7, Phase: Running, Health: HealthGood},
			want: withID(reached(status(cluster.StateRunning, "started"), nil)), next: Wait, calls: []string{"start"},
		},
		{
			name: "one that never gets healthy is to be stopped", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", PID: 7, Phase: Running, Health: HealthBad},
			want: withID(status(cluster.StateStarting, "stopping: unhealthy container")), next: Again, calls: []string{"start"},
		},
		{
			name: "which fails the task", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "stopping: unhealthy container"), container: Container{ID: "c1", Phase: Exited, ExitCode: 143},
			want: reached(status(cluster.StateFailed, "started"), func(s *cluster.TaskStatus) {
				s.Err, s.ExitCode = "task: non-zero exit (143): dockerexec: unhealthy container", 143
			}),
			next:  Wait,
			calls: []string{"stop 10s"},
		},
		{
			name: "also when it then ends well", desired: cluster.StateRunning,
			status: status(cluster.StateRunning, "stopping: unhealthy container"), container: Container{ID: "c1", Phase: Exited},
			want: reached(status(cluster.StateFailed, "started"), func(s *cluster.TaskStatus) { s.Err = "dockerexec: unhealthy container" }),
			next: Wait, calls: []string{"stop 10s"},
		},
		{
			name: "an error while starting fails the task", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), err: errors.New("starting container failed: no such file"),
			want: reached(status(cluster.StateFailed, "starting"), func(s *cluster.TaskStatus) { s.Err = "starting container failed: no such file" }),
			next: Wait, calls: []string{"start"},
		},
		{
			name: "a container that ended well while it started did run", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", Phase: Exited},
			want:  reached(status(cluster.StateRunning, "started"), func(s *cluster.TaskStatus) { s.ContainerID = "c1" }),
			next:  Again,
			calls: []string{"start"},
		},
		{
			name: "a running container is left alone", desired: cluster.StateRunning,
			status: withID(status(cluster.StateRunning, "started")), container: running,
			want: withID(status(cluster.StateRunning, "started")), next: Wait, calls: []string{"inspect"},
		},
		{
			name: "a running container tells its ports", desired: cluster.StateRunning,
			status: status(cluster.StateStarting, "starting"), container: Container{ID: "c1", PID: 7, Phase: Running, Ports: "8080:80/tcp"},
			want: withPorts(withID(reached(status(cluster.StateRunning, "started"), nil))), next: Wait, calls: []string{"start"},
		},
		{
			name: "which are free when it ends", desired: cluster.StateRunning,
			status: withPorts(withID(status(cluster.StateRunning, "started"))), container: Container{ID: "c1", Phase: Exited},
			want: withID(reached(status(cluster.StateComplete, "finished"), nil)), next: Wait, calls: []string{"inspect"},
		},
		{
			name: "exit 0 completes", desired: cluster.StateRunning,
			status: withID(status(cluster.StateRunning, "started")), container: Container{ID: "c1", Phase: Exited},
			want: withID(reached(status(cluster.StateComplete, "finished"), nil)), next: Wait, calls: []string{"inspect"},
		},
		{
			name: "another exit fails", desired: cluster.StateRunning,
			status: withID(status(cluster.StateRunning, "started")), container: Container{ID: "c1", Phase: Exited, ExitCode: 137},
			want: withID(reached(status(cluster.StateFailed, "started"), func(s *cluster.TaskStatus) {
				s.Err, s.ExitCode = "task: non-zero exit (137)", 137
			})), next: Wait, calls: []string{"inspect"},
		},
		{
			name: "a container that is gone fails", desired: cluster.StateRunning,
			status: status(cluster.StateRunning, "started"), err: fmt.Errorf("No such container: c1: %w", cluster.ErrNotFound),
			want: reached(status(cluster.StateFailed, "started"), func(s *cluster.TaskStatus) { s.Err = "No such container: c1: not found" }),
			next: Wait, calls: []string{"inspect"},
		},
		{
			name: "the engine being away doesn't end a running task", desired: cluster.StateRunning,
			status: status(cluster.StateRunning, "started"), err: away,
			want: func() cluster.TaskStatus {
				s := status(cluster.StateRunning, "started")
				s.Err = away.Error()
				return s
			}(), next: Retry, calls: []string{"inspect"},
		},
		{
			name: "and is forgotten when it is back", desired: cluster.StateRunning,
			status: func() cluster.TaskStatus {
				s := withID(status(cluster.StateRunning, "started"))
				s.Err = away.Error()
				return s
			}(), container: running,
			want: withID(status(cluster.StateRunning, "started")), next: Wait, calls: []string{"inspect"},
		},
		{
			name: "a task that is to stop is stopped", desired: cluster.StateShutdown,
			status: withID(status(cluster.StateRunning, "started")), container: Container{ID: "c1", Phase: Exited, ExitCode: 143},
			want: withID(reached(status(cluster.StateShutdown, "shutdown"), func(s *cluster.TaskStatus) { s.ExitCode = 143 })), next: Wait,
			calls: []string{"stop 10s"},
		},
		{
			name: "also before it has a container", desired: cluster.StateRemove,
			status: status(cluster.StateAccepted, "accepted"), err: cluster.ErrNotFound,
			want: reached(status(cluster.StateShutdown, "shutdown"), nil), next: Wait, calls: []string{"stop 10s"},
		},
		{
			name: "a stop that fails doesn't end the task", desired: cluster.StateShutdown,
			status: status(cluster.StateRunning, "started"), err: errors.New("cannot kill container"),
			want: func() cluster.TaskStatus {
				s := status(cluster.StateRunning, "started")
				s.Err = "cannot kill container"
				return s
			}(), next: Retry, calls: []string{"stop 10s"},
		},
		{
			name: "a task that ended stays as it is", desired: cluster.StateShutdown,
			status: status(cluster.StateFailed, "started"), want: status(cluster.StateFailed, "started"), next: Wait,
		},
		{
			name: "what managers hold for dead is stopped, and doesn't come back", desired: cluster.StateRunning,
			managers: status(cluster.StateOrphaned, "node was away"),
			status:   withID(status(cluster.StateRunning, "started")), container: Container{ID: "c1", Phase: Exited},
			want: func() cluster.TaskStatus {
				s := status(cluster.StateOrphaned, "node was away")
				s.ContainerID = "c1"
				return s
			}(), next: Wait, calls: []string{"stop 10s"},
		},
		{
			name: "a task further than it is wanted waits", desired: cluster.StateReady,
			status: status(cluster.StateRunning, "started"), want: status(cluster.StateRunning, "started"), next: Wait,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			driver := &scriptedDriver{container: test.container, err: test.err}
			a := work(test.desired)
			a.Task.Status = test.managers
			if test.await {
				a.Await = []cluster.PublishedPort{{Protocol: "tcp", Published: 8080, Target: 80}}
			}
			got, next := Do(t.Context(), driver, a, test.status, laterClock)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
			if next != test.next {
				t.Errorf("next = %v, want %v", next, test.next)
			}
			if diff := cmp.Diff(test.calls, driver.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if len(driver.calls) > 1 {
				t.Errorf("%d driver calls in one step", len(driver.calls))
			}
			if got.State < test.status.State {
				t.Errorf("state went back from %v to %v", test.status.State, got.State)
			}
		})
	}
}

func TestDo_CalledOffLeavesTheTaskAsItWas(t *testing.T) {
	for _, state := range []cluster.State{cluster.StatePreparing, cluster.StateStarting, cluster.StateRunning} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		before := status(state, "x")
		got, next := Do(ctx, &scriptedDriver{err: errors.New("interrupted")}, work(cluster.StateRunning), before, laterClock)
		if got != before || next != Retry {
			t.Errorf("%v: got %+v, %v", state, got, next)
		}
	}
}

func TestDo_HoldsToTheGracePeriod(t *testing.T) {
	a := work(cluster.StateShutdown)
	grace := 42 * time.Second
	a.Revision.Spec.ContainerSpec.StopGracePeriod = &grace
	driver := &scriptedDriver{}
	Do(t.Context(), driver, a, status(cluster.StateRunning, "started"), laterClock)
	if len(driver.calls) != 1 || driver.calls[0] != "stop 42s" {
		t.Errorf("calls = %v", driver.calls)
	}
}
