package simulate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

func assignment(taskID string, labels ...map[string]string) agent.Assignment {
	r := &cluster.Revision{ServiceName: "web", Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}}}
	if len(labels) > 0 {
		r.ServiceLabels = labels[0]
	}
	if len(labels) > 1 {
		r.Spec.ContainerSpec.Labels = labels[1]
	}
	return agent.Assignment{Task: &cluster.Task{ID: taskID, NodeID: "n1", Slot: 1}, Revision: r}
}

// run prepares and starts a task.
func run(t *testing.T, d *Driver, a agent.Assignment) agent.Container {
	t.Helper()
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	c, err := d.Start(t.Context(), a.Task.ID)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func inspect(t *testing.T, d *Driver, taskID string) agent.Container {
	t.Helper()
	c, err := d.Inspect(t.Context(), taskID)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDriver_Durations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		began := time.Now()
		run(t, d, assignment("t1", map[string]string{
			cluster.LabelSimulate + "prepare-delay": "3s", cluster.LabelSimulate + "start-delay": "2s", cluster.LabelSimulate + "run-for": "10s",
			cluster.LabelSimulate + "exit-code": "4", cluster.LabelSimulate + "stop-delay": "1s",
		}))
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("starting took %v", took)
		}
		time.Sleep(10*time.Second - 1)
		if c := inspect(t, d, "t1"); c.Phase != agent.Running {
			t.Errorf("too early: %+v", c)
		}
		time.Sleep(2 * time.Nanosecond)
		if c := inspect(t, d, "t1"); c.Phase != agent.Exited || c.ExitCode != 4 {
			t.Errorf("too late: %+v", c)
		}
	})
}

func TestDriver_RunsForEverByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		run(t, d, assignment("t1"))
		time.Sleep(1000 * time.Hour)
		if c := inspect(t, d, "t1"); c.Phase != agent.Running {
			t.Errorf("%+v", c)
		}
	})
}

func TestDriver_ContainerLabelsWin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Behaviour: Behaviour{ExitCode: 1, Exits: true}})
		run(t, d, assignment("t1", map[string]string{cluster.LabelSimulate + "exit-code": "2"}, map[string]string{cluster.LabelSimulate + "exit-code": "3"}))
		synctest.Wait()
		if c := inspect(t, d, "t1"); c.ExitCode != 3 {
			t.Errorf("%+v", c)
		}
	})
}

func TestDriver_FailRateIsTheSeedsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		labels := map[string]string{cluster.LabelSimulate + "fail-rate": "0.3", cluster.LabelSimulate + "run-for": "1s"}
		fates := func(seed uint64) (failed int, all string) {
			d := New(Config{Seed: seed})
			for i := range 1000 {
				run(t, d, assignment(fmt.Sprint("t", i), labels))
			}
			time.Sleep(2 * time.Second)
			for i := range 1000 {
				c := inspect(t, d, fmt.Sprint("t", i))
				all += fmt.Sprint(c.Phase, c.ExitCode, " ")
				if c.Phase == agent.Exited && c.ExitCode == 1 {
					failed++
				}
			}
			return failed, all
		}
		failed, first := fates(1)
		if failed < 250 || failed > 350 {
			t.Errorf("%d of 1000 failed", failed)
		}
		if _, again := fates(1); again != first {
			t.Error("the same seed gave another outcome")
		}
		if _, other := fates(2); other == first {
			t.Error("another seed gave the same outcome")
		}
	})
}

func TestDriver_RefusesKnobsItDoesNotHave(t *testing.T) {
	for key, value := range map[string]string{
		"no-such-knob": "1", "run-for": "soon", "exit-code": "256", "fail-rate": "1.5", "start-delay": "-1s", "reject-rate": "NaN",
	} {
		_, err := New(Config{}).Prepare(t.Context(), assignment("t1", map[string]string{cluster.LabelSimulate + key: value}))
		if !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
}

func TestDriver_DelaysCanBeCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Prepare(ctx, assignment("t1", map[string]string{cluster.LabelSimulate + "prepare-delay": "1h"}))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestDriver_AwayIsUnavailable(t *testing.T) {
	d := New(Config{})
	run(t, d, assignment("t1"))
	d.SetAway(true)
	if _, err := d.Inspect(t.Context(), "t1"); !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("inspect: %v", err)
	}
	if err := d.Watch(t.Context(), "n1", func(string) {}); !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("watch: %v", err)
	}
	d.SetAway(false)
	if d.Count("n1") != 1 {
		t.Error("the container didn't go on")
	}
}

func BenchmarkDriver_Life(b *testing.B) {
	d := New(Config{})
	b.ReportAllocs()
	for i := range b.N {
		a := assignment(fmt.Sprint("t", i))
		d.Prepare(b.Context(), a)
		d.Start(b.Context(), a.Task.ID)
		d.Stop(b.Context(), a.Task.ID, time.Second)
		d.Remove(b.Context(), a.Task.ID)
	}
}
