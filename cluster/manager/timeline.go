package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"skep/cluster"
	"skep/cluster/timeline"
)

// timelineLimit is how long other managers may take to tell what they did.
const timelineLimit = time.Second

// Timeline tells what all managers did since then; the zero time is as long as they know. It needs no leader: those
// that don't answer are named.
func (m *Manager) Timeline(ctx context.Context, since time.Time) timeline.Timeline {
	ctx, cancel := context.WithTimeout(ctx, timelineLimit)
	defer cancel()
	now := m.cfg.Now()
	last := time.Duration(-1)
	if !since.IsZero() {
		last = max(now.Sub(since), 0)
	}
	known := m.knownManagers(m.store.View())
	answers := make([]timeline.Answer, len(known))
	var asked sync.WaitGroup
	for i, other := range known {
		asked.Go(func() {
			answers[i] = m.askTimeline(ctx, other, last)
		})
	}
	asked.Wait()
	t := timeline.Timeline{At: now, Since: since, By: m.cfg.NodeID, Names: map[string]string{}}
	t.Managers, t.Records = timeline.Merge(answers)
	for _, record := range t.Records {
		for _, id := range []string{record.Manager, record.Node} {
			if t.Names[id] != "" || id == "" {
				continue
			}
			if name := m.nameOf(id); name != "" {
				t.Names[id] = name
			}
		}
	}
	return t
}

// askTimeline has a manager's answer, also when it doesn't.
func (m *Manager) askTimeline(ctx context.Context, other cluster.ManagerHealth, last time.Duration) timeline.Answer {
	began := m.cfg.Now()
	var answer timeline.Answer
	var err error
	if other.NodeID == m.cfg.NodeID {
		answer = m.ownTimeline(last)
		began = answer.Now
	} else {
		answer, err = m.fetchTimeline(ctx, other.Addr, last)
	}
	answer.NodeID, answer.Name, answer.Asked, answer.Came = other.NodeID, other.Hostname, began, m.cfg.Now()
	answer.Missing = whyMissing(err)
	return answer
}

// whyMissing says why a manager's records aren't there, for people: without what it was asked. It is empty for no error.
func whyMissing(err error) string {
	var asked *url.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("it didn't answer within %v", timelineLimit)
	case errors.As(err, &asked):
		return asked.Err.Error()
	}
	return err.Error()
}

// ownTimeline is what this manager did lately; less than no time is all it knows.
func (m *Manager) ownTimeline(last time.Duration) timeline.Answer {
	answer := timeline.Answer{Now: m.cfg.Now(), Role: strings.ToLower(m.raft.State().String()), Term: m.raft.CurrentTerm()}
	var since time.Time
	if last >= 0 {
		since = answer.Now.Add(-last)
	}
	answer.Records = m.timeline.Since(since)
	return answer
}

// serveTimeline is ownTimeline for other managers. They say for how long, as clocks differ.
func (m *Manager) serveTimeline(w http.ResponseWriter, r *http.Request) {
	last := time.Duration(-1)
	if text := r.URL.Query().Get("last"); text != "" {
		var err error
		if last, err = time.ParseDuration(text); err != nil {
			refuse(w, cluster.Errorf(cluster.ErrInvalid, "invalid last: %q is no duration", text))
			return
		}
	}
	writeBody(w, m.ownTimeline(last))
}

func (m *Manager) fetchTimeline(ctx context.Context, addr string, last time.Duration) (answer timeline.Answer, err error) {
	query := url.Values{}
	if last >= 0 {
		query.Set("last", last.String())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/v1/timeline?"+query.Encode(), nil)
	if err != nil {
		return answer, err
	}
	response, err := m.transport.Client().Do(request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, timeline.MaxAnswer))
	if err != nil {
		return answer, err
	}
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("ask manager %s: %s", addr, response.Status)
	}
	return answer, cluster.Decode(data, &answer)
}
