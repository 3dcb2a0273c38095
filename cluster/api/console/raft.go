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

// spans are how much of the past the timeline shows, at the reader's choice; zero is all that is known.
var spans = []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 10 * time.Minute, 0}

const (
	// defaultSpan is the one that is shown first.
	defaultSpan = 2 * time.Minute
	// leastSpan and mostSpan are how much can be seen at once, and zoomMargin is what is shown before and after a
	// sentence at least.
	leastSpan, mostSpan, zoomMargin = 10 * time.Millisecond, 31 * 24 * time.Hour, 250 * time.Millisecond
	// timelineWait is how long the managers have for their answer, and timelineAge how old it may be that a page shows.
	timelineWait = 5 * time.Second
	timelineAge  = time.Second
)

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
	Spans   []choiceShown
	// Zoom are the ways to another part, and Part says which one this is; there is none while it is the last minutes.
	Zoom   []choiceShown
	Part   string
	Export string
	Page   string
	// Missing are the managers whose own records aren't there, with the reason; Why is set
	// when nothing is.
	Missing []string
	Why     string
}

// tellShown is a sentence of the story, which has a number in the picture.
type tellShown struct {
	Number int
	At     string
	Text   string
	Open   bool
	Link   string // a closer look
}

// stretch is what of the past is shown: what lies between two times, or the last while up to now.
type stretch struct {
	last     time.Duration // zero for all
	from, to time.Time     // zero for the last
}

// readStretch reads what of the past a page is to show.
func readStretch(query url.Values) (stretch, error) {
	if query.Has("from") || query.Has("to") {
		from, err := time.Parse(time.RFC3339Nano, query.Get("from"))
		to, badTo := time.Parse(time.RFC3339Nano, query.Get("to"))
		if err != nil || badTo != nil || to.Sub(from) < leastSpan || to.Sub(from) > mostSpan {
			return stretch{last: defaultSpan}, cluster.Errorf(cluster.ErrInvalid, "from and to are two times of the same month as 2006-01-02T15:04:05.123Z, the earlier one first")
		}
		return stretch{from: from, to: to}, nil
	}
	text := query.Get("last")
	if text == "" {
		return stretch{last: defaultSpan}, nil
	}
	if text == "all" {
		return stretch{}, nil
	}
	last, err := time.ParseDuration(text)
	if err != nil || !slices.Contains(spans, last) || last == 0 {
		return stretch{last: defaultSpan}, cluster.Errorf(cluster.ErrInvalid, "“%s” isn't one of the spans", cutText(text, 40))
	}
	return stretch{last: last}, nil
}

// link is the page of a stretch.
func (p stretch) link() string {
	switch {
	case !p.to.IsZero():
		return "?" + url.Values{"from": {p.from.UTC().Format(time.RFC3339Nano)}, "to": {p.to.UTC().Format(time.RFC3339Nano)}}.Encode()
	case p.last == 0:
		return "?last=all"
	}
	return "?last=" + p.last.String()
}

// shows are the two times between which a timeline is shown.
func (p stretch) shows(told timeline.Timeline) (from, to time.Time) {
	switch {
	case !p.to.IsZero():
		return p.from, p.to
	case p.last > 0:
		return told.At.Add(-p.last), told.At
	}
	from = told.At.Add(-defaultSpan)
	for _, r := range told.Records {
		if r.Time.Before(from) {
			from = r.Time
		}
	}
	return from, told.At
}

// zooms are links to what is nearer to a stretch's middle, wider around it, before and after it.
func zooms(from, to time.Time) []choiceShown {
	d := to.Sub(from)
	var shown []choiceShown
	for _, c := range []struct {
		name       string
		start, end time.Duration // from its beginning and its end
	}{{"earlier", -d / 2, -d / 2}, {"closer", d / 4, -d / 4}, {"wider", -d / 2, d / 2}, {"later", d / 2, d / 2}} {
		if p := (stretch{from: from.Add(c.start), to: to.Add(c.end)}); p.to.Sub(p.from) >= leastSpan && p.to.Sub(p.from) <= mostSpan {
			shown = append(shown, choiceShown{Name: c.name, Link: p.link()})
		}
	}
	return shown
}

// raftPage shows the managers as raft has them, and what they did.
func (c *Console) raftPage(l *look) (page, error) {
	p, err := readStretch(l.query)
	shown := c.timeline(l, p)
	if err != nil {
		shown.Missing = append(shown.Missing, sentence(err.Error()))
	}
	return page{Title: "Raft", Nav: "raft", Sections: []section{
		{ID: "raft", Title: "Managers", Topics: topicClock, Wide: true, Template: "raft", Data: l.raftManagers()},
		{ID: "timeline", Title: "What they did", Topics: topicClock, Wide: true, Template: "timeline", Data: shown},
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

// timeline asks all managers, by this one, for what they did lately. What they don't say in a moment comes later.
func (c *Console) timeline(l *look, p stretch) (shown raftShown) {
	for _, last := range spans {
		name := fmt.Sprintf("last %g min", last.Minutes())
		switch {
		case last == 0:
			name = "all that is known"
		case last < time.Minute:
			name = fmt.Sprintf("last %g s", last.Seconds())
		}
		shown.Spans = append(shown.Spans, choiceShown{name, stretch{last: last}.link(), p.to.IsZero() && last == p.last})
	}
	since := func(now time.Time) string {
		at := p.from
		switch {
		case p.to.IsZero() && p.last == 0:
			return ""
		case p.to.IsZero():
			at = now.Add(-p.last)
		}
		return url.Values{"since": {at.UTC().Format(time.RFC3339Nano)}}.Encode()
	}
	shown.Export, shown.Page = Root+"timeline.json?"+since(l.now), Root+"timeline.svg?"+since(l.now)
	told, at, err := c.timelines.get(l.waiting, p.link(), "", timelineAge, func(ctx context.Context) (timeline.Timeline, error) {
		return c.askTimeline(ctx, since(c.Now()))
	})
	switch {
	case err != nil:
		shown.Why = sentence(err.Error())
		return shown
	case at.IsZero():
		shown.Why = "The managers are being asked."
		return shown
	}
	from, to := p.shows(told)
	if !p.to.IsZero() {
		shown.Part = fmt.Sprintf("%s of %s, from %s to %s UTC.", timeline.Lasted(to.Sub(from)), from.UTC().Format(time.DateOnly), from.UTC().Format("15:04:05.000"), to.UTC().Format("15:04:05.000"))
		shown.Zoom = zooms(from, to)
	}
	shown.Picture = template.HTML(`<svg class="defs" aria-hidden="true">` + svg.Hatch + `</svg>` + timeline.SVG(told, from, to)) // It escapes all texts itself.
	story := timeline.Between(timeline.Story(told), from, to)
	for i, s := range story {
		margin := max(zoomMargin, s.To.Sub(s.From)/4)
		closer := stretch{from: s.From.Add(-margin), to: s.To.Add(margin)}
		shown.Story = append(shown.Story, tellShown{Number: i + 1, At: s.From.UTC().Format("15:04:05.000"), Text: s.Words(told.Name), Open: s.Open, Link: closer.link()})
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
			c.Refuse(w, http.StatusServiceUnavailable, sentence(err.Error()))
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
