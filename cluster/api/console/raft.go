package console

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"skep/cluster"
	"skep/cluster/svg"
	"skep/cluster/timeline"
)

// spans are how much of the past the timeline shows, at the reader's choice.
var spans = []time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// defaultSpan is the one that is shown first.
const defaultSpan = 2 * time.Minute

// timelineWait is how long a page waits for the other managers' records.
const timelineWait = 1500 * time.Millisecond

// raftManager is a manager as raft has it.
type raftManager struct {
	managerShown
	Vote                              string
	Last, Commit, Applied, Snapshot   string
	Contact, Beat, Disk, Version, Lag string
}

// raftShown is what the managers did lately.
type raftShown struct {
	Picture template.HTML
	Story   []tellShown
	Spans   []spanShown
	Export  string
	Page    string
	// Missing are the managers whose own records aren't there, with the reason; Why is set
	// when nothing is.
	Missing []string
	Why     string
}

type spanShown struct {
	Name, Link string
	Current    bool
}

// tellShown is a sentence of the story, which has a number in the picture.
type tellShown struct {
	Number int
	At     string
	Text   string
	Open   bool
}

// raftPage shows the managers as raft has them, and what they did.
func (c *Console) raftPage(l *look) (page, error) {
	last := defaultSpan
	if d, err := time.ParseDuration(l.query.Get("last")); err == nil && slices.Contains(spans, d) {
		last = d
	}
	return page{Title: "Raft", Nav: "raft", Sections: []section{
		{ID: "raft", Title: "Managers", Topics: topicClock, Wide: true, Template: "raft", Data: l.raftManagers()},
		{ID: "timeline", Title: "What they did", Topics: topicClock, Wide: true, Template: "timeline", Data: c.timeline(l, last)},
	}}, nil
}

func (l *look) raftManagers() (rows []raftManager) {
	health := map[string]cluster.ManagerHealth{}
	var commit uint64
	for _, m := range l.status.Managers {
		health[m.NodeID] = m
		commit = max(commit, m.CommitIndex)
	}
	for _, shown := range l.managers().Managers {
		m := health[shown.ID]
		row := raftManager{managerShown: shown, Vote: "no vote", Version: m.Version}
		if m.Voter {
			row.Vote = "votes"
		}
		if m.Reachable {
			row.Last, row.Commit, row.Applied, row.Snapshot = count(m.LastIndex), count(m.CommitIndex), count(m.AppliedIndex), count(m.SnapshotIndex)
			row.Lag = count(commit - min(commit, m.AppliedIndex))
			row.Beat = span(m.HeartbeatTimeout)
			if !m.Leader {
				row.Contact = span(m.LastContact) + " ago"
			}
			if m.DiskSize > 0 {
				row.Disk = size(int64(m.DiskFree)) + " of " + size(int64(m.DiskSize)) + " free"
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// timeline asks all managers, by this one, for what they did lately.
func (c *Console) timeline(l *look, last time.Duration) (shown raftShown) {
	for _, s := range spans {
		shown.Spans = append(shown.Spans, spanShown{Name: span(s), Link: "?last=" + s.String(), Current: s == last})
	}
	since := url.Values{"since": {l.now.Add(-last).UTC().Format(time.RFC3339Nano)}}.Encode()
	shown.Export, shown.Page = Root+"timeline.json?"+since, Root+"timeline.svg?"+since
	told, err := c.askTimeline(l.context, since)
	if err != nil {
		shown.Why = sentence(err.Error())
		return shown
	}
	from := told.At.Add(-last)
	shown.Picture = template.HTML(`<svg class="defs" aria-hidden="true">` + svg.Hatch + `</svg>` + timeline.SVG(told, from, told.At)) // It escapes all texts itself.
	story := timeline.Between(timeline.Story(told), from, told.At)
	for i, s := range story {
		shown.Story = append(shown.Story, tellShown{Number: i + 1, At: s.From.UTC().Format("15:04:05.000"), Text: s.Words(told.Name), Open: s.Open})
	}
	slices.Reverse(shown.Story)
	for _, lane := range told.Managers {
		if lane.Missing != "" {
			shown.Missing = append(shown.Missing, fmt.Sprintf("What %s did is missing here: %s.", cmp.Or(lane.Name, short(lane.NodeID)), lane.Missing))
		}
	}
	return shown
}

func (c *Console) askTimeline(ctx context.Context, query string) (told timeline.Timeline, err error) {
	ctx, cancel := context.WithTimeout(ctx, timelineWait)
	defer cancel()
	err = c.call(ctx, http.MethodGet, "/skep/v1/timeline?"+query, nil, &told)
	return told, err
}

// serveTimeline gives the timeline to take away: as JSON, or as a picture that stands alone.
func (c *Console) serveTimeline(picture bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		told, err := c.askTimeline(r.Context(), url.Values{"since": {r.URL.Query().Get("since")}}.Encode())
		if err != nil {
			c.refuse(w, r, http.StatusServiceUnavailable, sentence(err.Error()))
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		if !picture {
			w.Header().Set("Content-Disposition", `attachment; filename="timeline.json"`)
			writeJSON(w, told)
			return
		}
		w.Header().Set("Content-Type", "image/svg+xml")
		w.Header().Set("Content-Disposition", `attachment; filename="timeline.svg"`)
		_, _ = w.Write([]byte(timeline.Page(told))) // The browser may have gone.
	}
}
