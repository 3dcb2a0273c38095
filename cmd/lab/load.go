package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"skep/cmd/lab/report"
)

// writeLimit is how long a client waits for the answer to a write.
const writeLimit = 10 * time.Second

// impatience is how long a client waits for an answer before it sends the next write
// beside: other users don't wait either. Without it, a request that is stuck at a dead
// leader would hide for how long no other write would have been accepted.
const impatience = 100 * time.Millisecond

// write is a client that changes the cluster through one manager, one write after the
// other with a pause between. It writes configs: small objects that nothing else in the
// cluster has to do with.
func (x *experiment) write(ctx context.Context, writer int, m *member) {
	api, err := connect(m.api.DaemonHost())
	if err != nil {
		return
	}
	defer api.Close()
	var open sync.WaitGroup
	defer open.Wait()
	for i := 0; ctx.Err() == nil; i++ {
		answered := make(chan error, 1)
		open.Go(func() { answered <- x.writeOnce(ctx, api, writer, m.name, fmt.Sprintf("write-%d-%d", writer, i)) })
		pause := x.scenario.Load.Pause
		select {
		case err := <-answered:
			pause = max(pause, failedPause(err))
		case <-time.After(impatience):
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// writeOnce sends one write and records what came of it.
func (x *experiment) writeOnce(ctx context.Context, api *client.Client, writer int, through, name string) error {
	began := x.now()
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	_, err := api.ConfigCreate(limited, swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte("x")})
	if err == nil || ctx.Err() == nil { // what the end of the round cuts short tells nothing
		x.wrote(report.Write{Writer: writer, Through: through, Began: began, Ended: x.now(), Accepted: err == nil}, name, err)
	}
	return err
}

// failedPause keeps clients of a manager that is gone from being the load.
func failedPause(err error) time.Duration {
	if err == nil {
		return 0
	}
	return 5 * time.Millisecond
}

// wrote records a write.
func (x *experiment) wrote(w report.Write, name string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if w.Accepted {
		x.accepted = append(x.accepted, name)
	} else {
		w.Why = x.reasonLocked(reason(err, name, x.dir))
	}
	x.round.Writes = append(x.round.Writes, w)
}

func (x *experiment) reasonLocked(why string) int {
	place, known := x.reasons[why]
	if !known {
		place = len(x.round.Refusals)
		x.reasons[why] = place
		x.round.Refusals = append(x.round.Refusals, why)
	}
	return place
}

// urlOf is how Go's HTTP client names a request.
var urlOf = regexp.MustCompile(`Post "[^"]*": `)

// reason is an error without what differs from write to write and round to round.
func reason(err error, name, dir string) string {
	const most = 140
	text := strings.NewReplacer(name, "…", "unix://"+dir, "", dir, "").Replace(err.Error())
	text = strings.TrimPrefix(strings.TrimPrefix(text, "Error response from daemon: "), "error during connect: ")
	text = urlOf.ReplaceAllString(text, "")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
