package cluster

import (
	"context"
	"time"
)

// Sleep waits for d or the end of ctx; false means that ctx has ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// Notify leaves a signal in a channel that has room for one, unless one is there already:
// whoever receives it looks at everything anew.
func Notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
