package simulate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"skep/agent"
	"skep/cluster"
)

// maxTicks is how many of the lines that LogEvery asks for are kept.
const maxTicks = 1000

// say writes one line.
func (c *container) say(stderr bool, at time.Time, text string) {
	c.lines = append(c.lines, cluster.LogLine{Stderr: stderr, Time: cluster.At(at), Data: []byte(text + "\n")})
}

// cursor is how far a reader of a container's log has come: in the lines that
// were said, and in those of LogEvery.
type cursor struct{ said, ticks int }

// written returns the lines from the cursor until now, and the cursor after them.
// Lines of LogEvery are worked out from the times instead of being kept.
func (c *container) written(now time.Time, from cursor) ([]cluster.LogLine, cursor) {
	lines := slices.Clone(c.lines[from.said:])
	to := cursor{said: len(c.lines), ticks: from.ticks}
	every := c.behaviour.LogEvery
	if every <= 0 || c.started.IsZero() {
		return lines, to
	}
	if !c.ended.IsZero() {
		now = c.ended
	}
	to.ticks = max(from.ticks, int(now.Sub(c.started)/every))
	for i := max(from.ticks, to.ticks-maxTicks) + 1; i <= to.ticks; i++ {
		at := c.started.Add(time.Duration(i) * every)
		lines = append(lines, cluster.LogLine{Time: cluster.At(at), Data: fmt.Appendf(nil, "simulate: %s line %d\n", c.name, i)})
	}
	slices.SortStableFunc(lines, func(a, b cluster.LogLine) int { return cmp.Compare(a.Time, b.Time) })
	return lines, to
}

// Logs reads the lines of a container, also of one that has ended.
func (d *Driver) Logs(ctx context.Context, taskID string, options cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	from, tail := cursor{}, options.Tail
	for {
		d.mu.Lock()
		c, err := d.findLocked(taskID)
		if err != nil {
			d.mu.Unlock()
			return err
		}
		now := d.cfg.Now()
		lines, to := c.written(now, from)
		running := c.Phase == agent.Running
		started, every, done := c.started, c.behaviour.LogEvery, c.done
		d.mu.Unlock()

		lines = slices.DeleteFunc(lines, func(line cluster.LogLine) bool {
			return line.Time < options.Since || line.Stderr && !options.Stderr || !line.Stderr && !options.Stdout
		})
		if tail >= 0 && len(lines) > tail {
			lines = lines[len(lines)-tail:]
		}
		if len(lines) > 0 {
			if err := emit(lines); err != nil {
				return err
			}
		}
		if !options.Follow || !running {
			return nil
		}
		from, tail = to, -1
		next := time.Duration(0)
		if every > 0 {
			next = every - now.Sub(started)%every
		}
		if err := waitLine(ctx, next, done); err != nil {
			return err
		}
	}
}

// waitLine waits for the next line of LogEvery, if there is one, or for the end.
func waitLine(ctx context.Context, next time.Duration, done <-chan struct{}) error {
	var tick <-chan time.Time
	if next > 0 {
		timer := time.NewTimer(next)
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-tick:
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
