package simulate

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"skep/cluster"
)

// Behaviour is how a task behaves. Each field has a label: cluster.LabelSimulate and the
// name in the field's comment. Durations are written as in Go ("1.5s").
type Behaviour struct {
	// PrepareDelay (prepare-delay) is how long a pull would take.
	PrepareDelay time.Duration
	// StartDelay (start-delay) is how long the start takes.
	StartDelay time.Duration
	// RunFor (run-for) is how long the task runs before it exits by itself; zero
	// means until it is stopped.
	RunFor time.Duration
	// RunSpread (run-spread) is up to how much longer it runs, by chance.
	RunSpread time.Duration
	// ExitCode (exit-code) is what it exits with. When it is set without run-for, the
	// task exits as soon as it has started.
	ExitCode int
	// Exits is set when ExitCode was given, be it 0.
	Exits bool
	// FailRate (fail-rate) is the share of tasks, from 0 to 1, that fail: they exit
	// with 1 (or exit-code) after run-for, the others run until they are stopped.
	FailRate float64
	// RejectRate (reject-rate) is the share of tasks whose image isn't found.
	RejectRate float64
	// StopDelay (stop-delay) is how long the task takes to obey the stop signal.
	StopDelay time.Duration
	// HealthDelay (health-delay) is how long a task with a health check takes to
	// become healthy.
	HealthDelay time.Duration
	// LogEvery (log-every) is how often it writes a line while it runs; zero for never.
	LogEvery time.Duration
}

// with returns b as changed by the labels, later ones first.
func (b Behaviour) with(labels ...map[string]string) (Behaviour, error) {
	for _, set := range labels {
		for key, value := range set {
			if !strings.HasPrefix(key, cluster.LabelSimulate) {
				continue
			}
			if err := b.set(strings.TrimPrefix(key, cluster.LabelSimulate), value); err != nil {
				return b, fmt.Errorf("read label %s: %q: %w", key, value, err)
			}
		}
	}
	return b, nil
}

// set takes in one label.
func (b *Behaviour) set(name, value string) error {
	durations := map[string]*time.Duration{
		"prepare-delay": &b.PrepareDelay, "start-delay": &b.StartDelay, "run-for": &b.RunFor, "run-spread": &b.RunSpread,
		"stop-delay": &b.StopDelay, "health-delay": &b.HealthDelay, "log-every": &b.LogEvery,
	}
	rates := map[string]*float64{"fail-rate": &b.FailRate, "reject-rate": &b.RejectRate}
	switch {
	case durations[name] != nil:
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return fmt.Errorf("a duration such as 1.5s is needed: %w", cluster.ErrInvalid)
		}
		*durations[name] = d
	case rates[name] != nil:
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil || !(rate >= 0 && rate <= 1) {
			return fmt.Errorf("a share from 0 to 1 is needed: %w", cluster.ErrInvalid)
		}
		*rates[name] = rate
	case name == "exit-code":
		code, err := strconv.Atoi(value)
		if err != nil || code < 0 || code > 255 {
			return fmt.Errorf("an exit code from 0 to 255 is needed: %w", cluster.ErrInvalid)
		}
		b.ExitCode, b.Exits = code, true
	default:
		return fmt.Errorf("there is no such knob: %w", cluster.ErrInvalid)
	}
	return nil
}

// fate says whether and when a started task exits by itself, and with what.
func (d *Driver) fate(taskID string, b Behaviour) (after time.Duration, code int, ends bool) {
	after = b.RunFor + time.Duration(d.chance(taskID, "run")*float64(b.RunSpread))
	if b.FailRate > 0 {
		if d.chance(taskID, "fail") >= b.FailRate {
			return 0, 0, false
		}
		return after, max(b.ExitCode, 1), true
	}
	return after, b.ExitCode, b.Exits || after > 0
}

// chance draws a number from 0 to 1 that depends on the seed, the task and the
// purpose only.
func (d *Driver) chance(taskID, purpose string) float64 {
	sum := d.hash(taskID, purpose)
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// containerID makes up an ID that looks like an engine's.
func (d *Driver) containerID(taskID string) string {
	sum := d.hash(taskID, "container "+strconv.Itoa(d.made))
	return hex.EncodeToString(sum[:])
}

func (d *Driver) hash(taskID, purpose string) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d %s %s", d.cfg.Seed, taskID, purpose))
}
