package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cmd/lab/report"
)

// writeLimit is how long a client waits for the answer to a write.
const writeLimit = 10 * time.Second

// write is a client that changes the cluster through one manager, one write after the
// other with a pause between, on a connection of its own. It writes configs: small
// objects that nothing else in the cluster has to do with.
func (x *experiment) write(ctx context.Context, writer int, m *member) {
	api, err := connect(m.api.DaemonHost())
	if err != nil {
		return
	}
	defer api.Close()
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("write-%d-%d", writer, i)
		began := x.now()
		limited, cancel := context.WithTimeout(ctx, writeLimit)
		_, err := api.ConfigCreate(limited, swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte("x")})
		cancel()
		if err != nil && ctx.Err() != nil {
			return
		}
		x.wrote(report.Write{Writer: writer, Through: m.name, Began: began, Ended: x.now(), Accepted: err == nil}, name, err)
		select {
		case <-ctx.Done():
		case <-time.After(max(x.scenario.Load.Pause, failedPause(err))):
		}
	}
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
		w.Why = x.reasonLocked(reason(err, name))
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

// reason is an error without what differs from write to write.
func reason(err error, name string) string {
	const most = 160
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "Error response from daemon: "), name, "…")
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
