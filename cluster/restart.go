package cluster

import "time"

const (
	// MaxRestartDelay bounds LabelRestartMaxDelay, and so how many ended tasks a slot
	// keeps to count them.
	MaxRestartDelay = 24 * time.Hour
	// DefaultRestartDelay is what a restart policy without a delay means.
	DefaultRestartDelay = 5 * time.Second
)
