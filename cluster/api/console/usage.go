package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"skep/cluster"
)

// maxCharted is of how many tasks what they used is fetched to be drawn: a thousand looks of each are megabytes.
const maxCharted = 200

// usageShown is what the tasks of a service that run now used lately.
type usageShown struct {
	Charts []chartShown
	// Why says why there is nothing, or what is missing.
	Why string
	// Of says of which tasks, and by what.
	Of string
}

// chartShown is a line of the last quarter of an hour.
type chartShown struct {
	Name string
	// Now is the last value, and Most the highest.
	Now, Most string
	// Line are the points of the line, and Area those of what is below it, in a box of chartWide by chartHigh.
	Line, Area string
}

// The box of a chart, in its own units: see the template.
const chartWide, chartHigh = 600.0, 60.0

// usage asks the nodes of a service, by the API, for what its tasks use, and draws it. What can't be had in a moment
// comes later.
func (c *Console) usage(l *look, s *cluster.Service) usageShown {
	running := 0
	for task := range l.view.TasksOfService(s.ID) {
		if task.Status.State == cluster.StateRunning && !task.Gone() {
			running++
		}
	}
	switch {
	case running == 0:
		return usageShown{Why: "No task of it runs."}
	case running > maxCharted:
		return usageShown{Why: fmt.Sprintf("%s run, which are too many to draw: “skep service stats %s” has what they use.", plural(running, "task"), s.Spec.Name)}
	}
	shown, at, err := c.charts.get(l.waiting, s.ID, "", cluster.UsageEvery, func(ctx context.Context) (usageShown, error) {
		var told []cluster.TaskUsage
		query := url.Values{"service": {s.ID}, "history": {"1"}}
		if err := c.call(ctx, http.MethodGet, cluster.UsagePath+"?"+query.Encode(), nil, &told); err != nil {
			return usageShown{}, err
		}
		return drawUsage(told), nil
	})
	switch {
	case err != nil:
		return usageShown{Why: sentence(err.Error())}
	case at.IsZero():
		return usageShown{Why: "The nodes are being asked."}
	}
	return shown
}

// drawUsage adds up what tasks used, and draws it. Clocks of nodes differ, so each task's looks are placed by their
// age: the last one was taken when the node was asked.
func drawUsage(told []cluster.TaskUsage) (shown usageShown) {
	cpu, memory := make([]float64, cluster.UsageKept), make([]float64, cluster.UsageKept)
	deepest, counted, failed := 0, 0, ""
	for _, task := range told {
		looks := task.Usage
		if len(looks) == 0 {
			failed = cmp.Or(failed, task.Err, "nothing is known of a task")
			continue
		}
		counted++
		last := looks[len(looks)-1].At
		at := len(looks) - 1 // The look that the step is of: the first that isn't before it.
		for step := range cluster.UsageKept {
			moment := last.Add(-time.Duration(step) * cluster.UsageEvery)
			for at > 0 && !looks[at-1].At.Before(moment) {
				at--
			}
			if at == 0 && (len(looks) > 1 || step > 0) {
				break // It didn't run before, or wasn't looked at.
			}
			deepest = max(deepest, step)
			memory[step] += float64(looks[at].Memory)
			if at > 0 {
				if took := looks[at].At.Sub(looks[at-1].At); took > 0 && looks[at].CPU >= looks[at-1].CPU {
					cpu[step] += float64(looks[at].CPU-looks[at-1].CPU) / float64(took)
				}
			}
		}
	}
	if counted == 0 {
		return usageShown{Why: sentence(failed)}
	}
	if missing := len(told) - counted; missing > 0 {
		shown.Why = fmt.Sprintf("Without %s: %s.", plural(missing, "task"), failed)
	}
	tasks := "task that runs"
	if counted > 1 {
		tasks = count(counted) + " tasks that run"
	}
	shown.Of = fmt.Sprintf("The last quarter of an hour of the %s now, by looks of every %s.", tasks, span(cluster.UsageEvery))
	shown.Charts = []chartShown{
		chart("CPU", cpu[:deepest+1], func(v float64) string {
			if v < .995 {
				return fmt.Sprintf("%.1f %% of a CPU", 100*v)
			}
			return fmt.Sprintf("%.2f CPUs", v)
		}),
		chart("Memory", memory[:deepest+1], func(v float64) string { return size(int64(v)) }),
	}
	return shown
}

// chart draws values, the newest first.
func chart(name string, values []float64, say func(float64) string) chartShown {
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	x := func(step int) float64 { return chartWide - chartWide*float64(step)/float64(cluster.UsageKept-1) }
	var line strings.Builder
	for step := len(values) - 1; step >= 0; step-- {
		high := 0.0
		if most > 0 {
			high = values[step] / most
		}
		fmt.Fprintf(&line, "%.1f,%.1f ", x(step), chartHigh-1-(chartHigh-3)*high)
	}
	points := strings.TrimSpace(line.String())
	return chartShown{
		Name: name, Now: say(values[0]), Most: say(most), Line: points,
		Area: fmt.Sprintf("%.1f,%g %s %g,%g", x(len(values)-1), chartHigh, points, chartWide, chartHigh),
	}
}
