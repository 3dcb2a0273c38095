package cluster

import "time"

const (
	// LabelRestartMaxDelay on a service is a Go duration, at most MaxRestartDelay: the
	// delay before a task that ended is replaced doubles with each end in a row, from
	// the restart policy's up to this. Without the label it stays the policy's.
	LabelRestartMaxDelay = "skep.restart.max-delay"
	// LabelRestartStable beside it is how long a task must run for its end to count as
	// the first again; twice LabelRestartMaxDelay when it isn't there.
	LabelRestartStable = "skep.restart.stable"
	// MaxRestartDelay bounds LabelRestartMaxDelay, and so how many ended tasks a slot
	// keeps to count them.
	MaxRestartDelay = 24 * time.Hour
	// DefaultRestartDelay is what a restart policy without a delay means.
	DefaultRestartDelay = 5 * time.Second
)
