package main

import (
	"context"
	"fmt"
	"time"
)

// look is how often a condition is looked at: often enough not to blur a
// measurement, seldom enough not to be the load.
const look = 10 * time.Millisecond

// until waits for the condition, at most limit long. The condition says by its error
// what is still missing; that is what the caller reads when time is up.
func until(ctx context.Context, limit time.Duration, what string, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var missing error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		// The last look is cut short by the deadline: what it says isn't news.
		if ctx.Err() == nil || missing == nil {
			missing = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait %v for %s: %w", limit, what, missing)
		case <-time.After(look):
		}
	}
}
