package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"
)

const (
	// watchEvery is how often --watch looks, and watchLimit how long one look may take: then
	// that is what it shows.
	watchEvery = 2 * time.Second
	watchLimit = 15 * time.Second

	// clearScreen has a terminal show what comes from its upper left corner on, and nothing else.
	clearScreen = "\x1b[H\x1b[2J"
)

// watch shows something again and again until ctx ends. What went wrong is shown as well, and
// ends nothing: the cluster may be without a leader, or the daemon be restarted.
func watch(ctx context.Context, out io.Writer, terminal bool, every time.Duration, show func(context.Context, io.Writer) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var text bytes.Buffer
		look, cancel := context.WithTimeout(ctx, watchLimit)
		err := show(look, &text)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			text.Reset()
			fmt.Fprintln(&text, ourWords.Replace(err.Error()))
		}
		if terminal {
			_, err = io.WriteString(out, clearScreen+text.String())
		} else {
			_, err = fmt.Fprintln(out, text.String())
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
