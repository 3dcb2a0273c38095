package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

// used is a task's looks: each 15 s, with so many CPUs and MiB, the oldest first. Its node's clock is off by skew.
func used(skew time.Duration, cpus, memory []float64) (of cluster.TaskUsage) {
	at, cpu := noon.Add(skew), time.Duration(0)
	for i := range cpus {
		at, cpu = at.Add(cluster.UsageEvery), cpu+time.Duration(cpus[i]*float64(cluster.UsageEvery))
		of.Usage = append(of.Usage, cluster.Usage{At: at, CPU: cpu, Memory: uint64(memory[i] * (1 << 20))})
	}
	return of
}

func TestDrawUsage_AddsUp(t *testing.T) {
	failed := cluster.TaskUsage{Err: "its node <is> away"}
	for _, c := range []struct {
		name string
		told []cluster.TaskUsage
		want string // the last and the highest of CPU and memory, and how many points there are
	}{
		{"one", []cluster.TaskUsage{used(0, []float64{9, 2, 1}, []float64{100, 300, 200})}, "1.00 CPUs, 2.00 CPUs; 200 MiB, 300 MiB; 2"},
		{"clocks differ", []cluster.TaskUsage{used(time.Hour, []float64{9, 2, 1}, []float64{0, 10, 10}), used(-time.Hour, []float64{9, 3, 1}, []float64{0, 20, 30})}, "2.00 CPUs, 5.00 CPUs; 40 MiB, 40 MiB; 2"},
		{"one is younger", []cluster.TaskUsage{used(0, []float64{0, 1, 1, 1}, []float64{1, 1, 1, 1}), used(0, []float64{0, 4}, []float64{7, 7})}, "5.00 CPUs, 5.00 CPUs; 8 MiB, 8 MiB; 3"},
		{"little", []cluster.TaskUsage{used(0, []float64{0, .123, .0042}, []float64{1, 1, 1})}, "0.4 % of a CPU, 12.3 % of a CPU; 1 MiB, 1 MiB; 2"},
		{"one look", []cluster.TaskUsage{used(0, []float64{3}, []float64{64})}, "0.0 % of a CPU, 0.0 % of a CPU; 64 MiB, 64 MiB; 1"},
		{"one failed", []cluster.TaskUsage{failed, used(0, []float64{0, 1}, []float64{1, 1})}, "1.00 CPUs, 1.00 CPUs; 1 MiB, 1 MiB; 1 Without 1 task: its node <is> away."},
		{"all failed", []cluster.TaskUsage{failed}, "Its node <is> away."},
		{"it began anew", []cluster.TaskUsage{{Usage: []cluster.Usage{{At: noon, CPU: time.Hour}, {At: noon.Add(time.Second), CPU: 1}}}}, "0.0 % of a CPU, 0.0 % of a CPU; 0 B, 0 B; 1"},
	} {
		shown := drawUsage(c.told)
		got := ""
		for _, chart := range shown.Charts {
			got += chart.Now + ", " + chart.Most + "; "
		}
		if len(shown.Charts) > 0 {
			got += fmt.Sprint(len(strings.Fields(shown.Charts[0].Line)))
		}
		if got = strings.TrimSpace(got + " " + shown.Why); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	// A line is within its box, and ends on its right.
	line := strings.Fields(drawUsage([]cluster.TaskUsage{used(0, []float64{0, 0, 2, 1}, []float64{1, 1, 1, 1})}).Charts[0].Line)
	if want := []string{"579.7,59.0", "589.8,2.0", "600.0,30.5"}; strings.Join(line, " ") != strings.Join(want, " ") {
		t.Errorf("got %v, want %v", line, want)
	}
	long := make([]float64, 100)
	if n := len(strings.Fields(drawUsage([]cluster.TaskUsage{used(0, long, long)}).Charts[0].Line)); n != cluster.UsageKept {
		t.Errorf("%d points", n)
	}
}

func TestUsage_OfTooManyTasks(t *testing.T) {
	b := crowd(t, 10, maxCharted+1)
	if body := b.get(Root + "services/web").Body.String(); !strings.Contains(body, "201 tasks run, which are too many to draw") || len(b.asked) > 0 {
		t.Errorf("got\n%s", textOf(body))
	}
}
