// Command timecheck is the example application of the README: it says its
// version and the time every five seconds, the first time at once, until it is
// told to stop. The swarm runs it; it knows nothing of the swarm.
//
// It needs nothing but itself, so that an image of it is one static file, and it
// stops at SIGTERM at once with status 0, so that an update doesn't wait for it.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// versionVariable is set in the image, so that two versions are one binary.
const versionVariable = "TIMECHECK_VERSION"

// every is how often the time is told.
const every = 5 * time.Second

func main() {
	stop := make(chan os.Signal, 1)
	// As the first process of a container it gets no default action for signals:
	// without this the engine would have to kill it after the grace period.
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	tick := time.NewTicker(every)
	defer tick.Stop()
	version := os.Getenv(versionVariable)
	if version == "" {
		version = "dev"
	}
	if err := tell(os.Stdout, version, time.Now(), tick.C, stop); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tell writes a line for now and one for each tick, until stop says something.
func tell(w io.Writer, version string, now time.Time, tick <-chan time.Time, stop <-chan os.Signal) error {
	for {
		if _, err := fmt.Fprintf(w, "App version: %s; time check: %s\n", version, now.Format("15:04.05")); err != nil {
			return err
		}
		select {
		case now = <-tick:
		case <-stop:
			return nil
		}
	}
}
