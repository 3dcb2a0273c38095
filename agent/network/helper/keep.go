package helper

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// keepEvery is how often a Keeper looks, and startLimit how long a process that was
	// started may take until it answers at its door.
	keepEvery, startLimit = time.Second, 10 * time.Second
	// longestPause is the most that is waited between two starts of a process that ends at once.
	longestPause = 30 * time.Second
)

// Keeper has a helper run as long as its file is there. The process outlives the Keeper: what it does
// goes on while a daemon restarts.
type Keeper struct {
	// Name is what the helper is called in the log, and File its file.
	Name, File string
	// Build is that of the process that Command starts: one of another build is replaced.
	Build   string
	Command func() *exec.Cmd
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
}

// Run looks each second, and at once when the process that it started ends, until ctx ends. The
// process stays. It ends by itself when the file is gone for long.
func (k *Keeper) Run(ctx context.Context) {
	var ended chan error // of the process that was started last, while it runs
	var started, next time.Time
	var pause time.Duration
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		if _, err := os.Stat(k.File); err == nil {
			now := k.Now()
			who, err := WhoIs(k.File)
			switch {
			case err == nil && who.Build == k.Build:
				pause, started = 0, time.Time{}
			case ended != nil && now.Sub(started) < startLimit: // it is about to take over
			case now.Before(next):
			default:
				k.Log.Info("start a helper", "helper", k.Name, "file", k.File, "build", k.Build, "instead", who.Build)
				if ended, err = k.start(); err != nil {
					k.Log.Warn("start a helper", "helper", k.Name, "err", err)
				}
				started, next = now, now.Add(pause)
				pause = min(max(keepEvery, 2*pause), longestPause)
			}
		}
		select {
		case <-ctx.Done():
			return
		case err := <-ended:
			k.Log.Warn("a helper has ended", "helper", k.Name, "err", err)
			ended = nil
		case <-tick.C:
		}
	}
}

// start starts a process in a session of its own: what ends this one's terminal or group leaves it.
func (k *Keeper) start() (chan error, error) {
	cmd := k.Command()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setsid = true
	cmd.Dir = "/"
	err := cmd.Start()
	if log, is := cmd.Stderr.(*os.File); is && log != os.Stderr {
		_ = log.Close() // It is the process's.
	}
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}
