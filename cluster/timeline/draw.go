package timeline

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"skep/cluster/svg"
)

// The drawing's measures, in its own units.
const (
	drawWidth = 1060.0
	gutter    = 110.0 // for names
	margin    = 12.0
	topHigh   = 24.0 // for the sentences' numbers
	laneStep  = 42.0
	barAt     = 20.0 // the role's bar in a lane, below what happened
	barHigh   = 10.0
	writeHigh = 54.0
	axisHigh  = 22.0
)

// maxNodes is how many nodes that are no managers have a lane.
const maxNodes = 8

// Between are the sentences of a story that were told between two times: those that SVG numbers, in that order.
func Between(story []Sentence, from, to time.Time) []Sentence {
	return slices.DeleteFunc(slices.Clone(story), func(s Sentence) bool { return s.To.Before(from) || s.From.After(to) })
}

// SVG draws a Timeline between two times: a lane for each manager, with its role, what it missed and the votes that
// went to and fro; a lane for each node whose state changed; and the writes that were accepted. What Between gives is
// numbered. The classes are those of svg.Style.
func SVG(t Timeline, from, to time.Time) string { return SVGFrom(time.Time{}, t, from, to) }

// SVGFrom is SVG with times counted from zero on.
func SVGFrom(zero time.Time, t Timeline, from, to time.Time) string {
	picture, height := draw(zero, t, from, to)
	return picture.Done("timeline", drawWidth, height, fmt.Sprintf("what the managers did from %s to %s", clock(from), clock(to)))
}

// draft is a drawing that is being made.
type draft struct {
	svg.Picture
	t        *Timeline
	from, to time.Time
	zero     time.Time          // what times are counted from, if that is given
	lanes    map[string]float64 // their upper ends, by node
}

func draw(zero time.Time, t Timeline, from, to time.Time) (picture *svg.Picture, height float64) {
	if !to.After(from) {
		to = from.Add(time.Second)
	}
	d := &draft{t: &t, from: from, to: to, zero: zero, lanes: map[string]float64{}}
	story := Between(Story(t), from, to)
	y := topHigh
	for _, lane := range t.Managers {
		d.lanes[lane.NodeID] = y
		y += laneStep
	}
	nodes := d.nodes()
	for i, id := range nodes {
		if i == maxNodes {
			d.Text("quietly end", gutter-10, y+12, fmt.Sprintf("and %d more", len(nodes)-i))
			y += laneStep / 2
			break
		}
		d.lanes[id] = y
		y += laneStep * 2 / 3
	}
	bottom := y
	wrote := d.any(func(r Record) bool { return r.Kind == Writes })
	if wrote {
		bottom += writeHigh
	}
	d.axis(story, bottom)
	for _, lane := range t.Managers {
		d.manager(lane)
	}
	for i, id := range nodes {
		if i < maxNodes {
			d.Text("end", gutter-10, d.lanes[id]+barAt-2, t.Name(id))
			d.Rect("lane", gutter, d.lanes[id]+barAt/2, drawWidth-margin-gutter, barHigh, "")
		}
	}
	d.states()
	d.contacts()
	d.messages()
	if wrote {
		d.writes(y)
	}
	d.numbers(story, bottom)
	return &d.Picture, bottom + axisHigh
}

// x is a time's place.
func (d *draft) x(at time.Time) float64 {
	part := float64(at.Sub(d.from)) / float64(d.to.Sub(d.from))
	return gutter + (drawWidth-margin-gutter)*min(max(part, 0), 1)
}

func (d *draft) within(at time.Time) bool { return !at.Before(d.from) && !at.After(d.to) }

func (d *draft) any(is func(Record) bool) bool {
	return slices.ContainsFunc(d.t.Records, func(r Record) bool { return d.within(r.Time) && is(r) })
}

// nodes are those that are no managers and whose state changed, by name.
func (d *draft) nodes() (ids []string) {
	for _, r := range d.t.Records {
		if _, manager := d.lanes[r.Node]; r.Kind == NodeState && d.within(r.Time) && !manager && !slices.Contains(ids, r.Node) {
			ids = append(ids, r.Node)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(d.t.Name(a), d.t.Name(b)) })
	return ids
}

// stretch is a time in which a manager's role stayed the same.
type stretch struct {
	from, to time.Time
	// class is the role, or "leaderless" for a follower of nobody; "" while it isn't known.
	class, leader string
	term          uint64
}

// stretches are the roles of a manager over time.
func (d *draft) stretches(lane Lane) (all []stretch) {
	now := stretch{from: d.from}
	known := false
	set := func(r Record, class string) {
		if !known && r.Kind != Started {
			before := map[string]string{Leader: Candidate, Candidate: Follower, Follower: Leader, "leaderless": Follower}[class]
			switch {
			case r.Kind == Ready:
				before = Leader
			case r.Kind == Follows, r.Word == Leader:
				before = Follower
			}
			now.class, now.leader = before, ""
			if class == "leaderless" {
				now.leader = r.Node
			}
		}
		known = true
		now.to = r.Time
		all = append(all, now)
		now = stretch{from: r.Time, class: class, term: r.Term}
	}
	for _, r := range d.t.Records {
		switch {
		case r.Manager != lane.NodeID:
		case r.Kind == Started:
			set(r, "")
		case r.Kind == Role:
			set(r, r.Word)
		case r.Kind == Follows:
			set(r, Follower)
			now.leader = r.Node
		case r.Kind == Ready && now.class != Leader:
			set(r, Leader)
		case r.Kind == Leaderless && now.class != Candidate:
			set(r, "leaderless")
		}
	}
	if !known {
		now.class, now.term = lane.Role, lane.Term
	}
	now.to = d.t.At
	if lane.Missing == "" {
		all = append(all, now)
	}
	return all
}

// manager draws the lane of a manager, without what went between several.
func (d *draft) manager(lane Lane) {
	y := d.lanes[lane.NodeID]
	d.Text("end", gutter-10, y+barAt+8, d.t.Name(lane.NodeID))
	d.Rect("lane", gutter, y+barAt, drawWidth-margin-gutter, barHigh, "")
	if lane.Missing != "" {
		d.Text("quietly", gutter+6, y+barAt-4, "doesn't tell: "+cut(lane.Missing, 120))
	}
	for _, s := range d.stretches(lane) {
		if s.class == "" || !s.to.After(d.from) || s.from.After(d.to) {
			continue
		}
		says := map[string]string{Leader: "leads", Candidate: "stands for election", Follower: "follows", "leaderless": "knows of no leader"}[s.class]
		if s.leader != "" {
			says += " " + d.t.Name(s.leader)
		}
		if s.term > 0 {
			says += fmt.Sprintf(", term %d", s.term)
		}
		width := max(1, d.x(s.to)-d.x(s.from))
		d.Rect(s.class, d.x(s.from), y+barAt, width, barHigh, d.t.Name(lane.NodeID)+" "+says+" from "+clock(s.from)+" to "+clock(s.to))
		if s.class == Leader && width > 80 {
			d.Text("quietly", d.x(s.from)+4, y+barAt-4, says)
		}
	}
	for _, r := range d.t.Records {
		if r.Manager != lane.NodeID || !d.within(r.Time) {
			continue
		}
		name, x := d.t.Name(r.Manager), d.x(r.Time)
		switch r.Kind {
		case Silent:
			d.Line("silence", d.x(r.Time.Add(-r.Took)), y+barAt-4, x, y+barAt-4, "")
			d.Dot("missed", x, y+barAt-4, 3, fmt.Sprintf("%s heard nothing of %s for %s", name, d.t.Name(r.Node), Lasted(r.Took)))
		case Refused:
			d.Dot("missed", x, y+barAt-4, 3, fmt.Sprintf("%s found that nobody listens at %s any more", name, d.t.Name(r.Node)))
		case Heard:
			d.Line("silence", d.x(r.Time.Add(-r.Took)), y+barAt-4, x, y+barAt-4, "")
			d.Dot("heard", x, y+barAt-4, 3, fmt.Sprintf("%s heard %s again after %s", name, d.t.Name(r.Node), Lasted(r.Took)))
		case Ready:
			d.Line("ready", x, y+barAt-2, x, y+barAt+barHigh+2, fmt.Sprintf("%s takes writes in term %d", name, r.Term))
		case Started:
			d.Line("started", x, y+barAt-6, x, y+barAt+barHigh+6, fmt.Sprintf("%s started", name))
		}
	}
}

// contacts draws for how long the leader had no answer of a manager.
func (d *draft) contacts() {
	since := map[string]Record{}
	lost := func(r Record, to time.Time) {
		y, has := d.lanes[r.Node]
		if from := r.Time.Add(-r.Took); has && to.After(d.from) && !from.After(d.to) {
			d.Rect("away", d.x(from), y+barAt, max(1, d.x(to)-d.x(from)), barHigh, fmt.Sprintf("%s had no answer of %s from %s to %s", d.t.Name(r.Manager), d.t.Name(r.Node), clock(from), clock(to)))
		}
	}
	roles := map[string]string{}
	for _, r := range d.t.Records {
		if role := roleBy(r); role != "" {
			roles[r.Manager] = role
		}
		switch {
		case r.Kind == Lost && (roles[r.Manager] == "" || roles[r.Manager] == Leader):
			since[r.Node] = r
		case r.Kind == Found && since[r.Node].Kind != "":
			lost(since[r.Node], r.Time)
			delete(since, r.Node)
		case r.Kind == Role && r.Word == Leader: // Another one sees for itself.
			for id, before := range since {
				if before.Manager != r.Manager {
					lost(before, r.Time)
					delete(since, id)
				}
			}
		}
	}
	for _, r := range since {
		lost(r, d.t.At)
	}
}

// states draws which nodes weren't ready.
func (d *draft) states() {
	since := map[string]Record{}
	ends := func(r Record, to time.Time) {
		y, has := d.lanes[r.Node]
		if !has || r.Word == "ready" || !to.After(d.from) || r.Time.After(d.to) {
			return
		}
		class, at := "other", y+barAt+barHigh
		if r.Word == "down" {
			class = r.Word
		}
		if !slices.ContainsFunc(d.t.Managers, func(l Lane) bool { return l.NodeID == r.Node }) {
			at = y + barAt/2
		}
		d.Rect(class, d.x(r.Time), at, max(1, d.x(to)-d.x(r.Time)), barHigh/2, fmt.Sprintf("%s is %s from %s to %s: %s", d.t.Name(r.Node), r.Word, clock(r.Time), clock(to), r.Why))
	}
	for _, r := range d.t.Records {
		if r.Kind != NodeState {
			continue
		}
		if before, was := since[r.Node]; was {
			ends(before, r.Time)
		}
		since[r.Node] = r
		if r.Word == Removed {
			delete(since, r.Node)
		}
	}
	for _, r := range since {
		ends(r, d.t.At)
	}
}

// messages draws what went from one manager to another: questions about the leader, votes, hand-overs.
func (d *draft) messages() {
	type ask struct {
		from, to string
		term     uint64
	}
	asked, voted, stood := map[ask]Record{}, map[ask]Record{}, map[ask]bool{}
	for _, r := range d.t.Records {
		switch r.Kind {
		case AsksVote:
			asked[ask{r.Manager, r.Node, r.Term}] = r
		case Voted:
			voted[ask{r.Node, r.Manager, r.Term}] = r
		}
	}
	for _, r := range d.t.Records {
		there, has := d.lanes[r.Node]
		if !has || !d.within(r.Time) {
			continue
		}
		here := d.lanes[r.Manager] + barAt + barHigh/2
		there += barAt + barHigh/2
		name, node, x := d.t.Name(r.Manager), d.t.Name(r.Node), d.x(r.Time)
		switch r.Kind {
		case Asked:
			d.Line("asks", x, here, x, there, fmt.Sprintf("%s asked %s: %s", name, node, r.Word))
		case HandOver:
			d.Line("hands", x, here, x, there, fmt.Sprintf("%s hands over to %s", name, node))
			d.Dot("hands", x, there, 3, "")
		case AsksVote:
			if key := (ask{from: r.Manager, term: r.Term}); !stood[key] {
				stood[key] = true
				d.Text("quietly", x+3, here+barHigh/2+11, fmt.Sprintf("term %d", r.Term))
			}
		case Vote:
			key := ask{r.Manager, r.Node, r.Term}
			question, known := asked[key]
			if !known {
				question = r
			}
			middle := question.Time.Add(r.Time.Sub(question.Time) / 2)
			if answer, known := voted[key]; known && answer.Time.After(question.Time) && answer.Time.Before(r.Time) {
				middle = answer.Time
			}
			says := fmt.Sprintf("%s asked %s for its vote in term %d: %s after %s", name, node, r.Term, r.Word, Lasted(r.Took))
			d.Line("asks", d.x(question.Time), here, d.x(middle), there, says)
			if r.Word == NoAnswer {
				d.Text("none mid", d.x(middle), there+4, "×")
				continue
			}
			d.Line(r.Word, d.x(middle), there, x, here, says)
			d.Dot(r.Word, d.x(middle), there, 3, says)
		}
	}
}

// writes draws how many writes were accepted each second, and how long the slowest took.
func (d *draft) writes(y float64) {
	most := 1
	for _, r := range d.t.Records {
		if r.Kind == Writes && d.within(r.Time) {
			most = max(most, r.Count)
		}
	}
	base, high := y+writeHigh-6, writeHigh-16
	d.Rect("lane", gutter, base-high, drawWidth-margin-gutter, high, "")
	last := time.Duration(0)
	for _, r := range d.t.Records {
		if r.Kind != Writes || !d.within(r.Time) {
			continue
		}
		says := fmt.Sprintf("%s accepted %s from %s on, the slowest after %s", d.t.Name(r.Manager), plural(r.Count, "write"), clock(r.Time), Lasted(r.Took))
		h := max(1, high*float64(r.Count)/float64(most))
		end := r.Time.Add(time.Second)
		if end.After(d.t.At) {
			end = d.t.At
		}
		d.Rect("write", d.x(r.Time), base-h, max(1, d.x(end)-d.x(r.Time)-0.5), h, says)
		d.Dot("took", d.x(r.Time)+1, base-high*tookHigh(r.Took), 2, says)
		last = max(last, r.Took)
	}
	d.Text("end", gutter-10, base-high+9, "writes/s")
	d.Text("quietly end", gutter-10, base-high+22, fmt.Sprintf("up to %d", most))
	d.Text("quietly end", gutter-10, base-high+35, "● up to "+Lasted(last))
}

// tookHigh is how high a latency is drawn, from 0 for 0.1 ms to 1 for 10 s, the same step for each power of ten.
func tookHigh(took time.Duration) float64 {
	return min(max((math.Log10(max(float64(took), 1))-5)/5, 0), 1)
}

// short is a time of which milliseconds are shown rather than the clock.
const short = 20 * time.Second

// axis draws the time: the clock's or, where little is shown, from the first sentence on; from zero on where that is given.
func (d *draft) axis(story []Sentence, bottom float64) {
	length := d.to.Sub(d.from)
	step := time.Duration(svg.Nice(length.Seconds()/8) * float64(time.Second))
	zero := d.from.Truncate(step)
	switch {
	case !d.zero.IsZero():
		zero = d.zero
	case length <= short && len(story) > 0:
		zero = story[0].From
	}
	first := zero.Add(d.from.Sub(zero).Truncate(step))
	for at := first.Add(-step); !at.After(d.to); at = at.Add(step) {
		if at.Before(d.from) {
			continue
		}
		label := at.Format("15:04:05")
		if length <= short || !d.zero.IsZero() {
			label = fmt.Sprintf("%g ms", float64(at.Sub(zero))/1e6)
			if step >= time.Second {
				label = fmt.Sprintf("%g s", at.Sub(zero).Seconds())
			}
		}
		d.Line("axis", d.x(at), topHigh-4, d.x(at), bottom, "")
		if d.x(at) < drawWidth-3*margin {
			d.Text("quietly mid", d.x(at), bottom+15, label)
		}
	}
}

// numbers marks where sentences begin.
func (d *draft) numbers(story []Sentence, bottom float64) {
	last := math.Inf(-1)
	for i, s := range story {
		x := d.x(s.From)
		badge := max(x, last+18)
		last = badge
		if badge > drawWidth-margin/2 {
			return // There is no room for more.
		}
		d.Line("mark", x, 18, x, bottom, "")
		d.Dot("badge", badge, 10, 8, s.Words(d.t.Name))
		d.Text("badgetext", badge, 13.7, fmt.Sprint(i+1))
	}
}

func clock(at time.Time) string { return at.Format("15:04:05.000") }

// zooms is how many elections and hand-overs are shown more closely, the last ones.
const zooms = 4

// Closely is an election or a hand-over with the times between which it is to be drawn.
type Closely struct {
	Sentence
	From, To time.Time
}

// Near are the last elections and hand-overs of a story: in a picture of the whole time they are as narrow as a line.
func Near(story []Sentence) (near []Closely) {
	for _, s := range story {
		if s.About == AboutElection || s.About == AboutHandOver {
			around := max(s.To.Sub(s.From)/8, 2*time.Millisecond)
			near = append(near, Closely{s, s.From.Add(-around), s.To.Add(around)})
		}
	}
	return near[max(0, len(near)-zooms):]
}

// Page is a picture that stands alone: the whole Timeline, its last elections and hand-overs from near, and
// its story.
func Page(t Timeline) string {
	from := t.Since
	if len(t.Records) > 0 && t.Records[0].Time.After(from) {
		first := t.Records[0].Time
		from = first.Add(-t.At.Sub(first) / 50)
	}
	story := Between(Story(t), from, t.At)
	p := &page{width: drawWidth}
	p.heading(fmt.Sprintf("%s to %s", from.Format("2006-01-02 15:04:05"), t.At.Format("15:04:05 MST")))
	p.picture(draw(time.Time{}, t, from, t.At))
	for i, s := range story {
		p.sentence(fmt.Sprintf("%d  %s  %s", i+1, clock(s.From), s.Words(t.Name)))
	}
	for _, near := range Near(story) {
		p.heading("From near: " + clock(near.Sentence.From))
		p.picture(draw(time.Time{}, t, near.From, near.To))
		p.sentence(near.Words(t.Name))
	}
	return p.done()
}

// page puts pictures and texts below each other.
type page struct {
	svg.Picture
	width, y float64
}

func (p *page) heading(text string) {
	p.y += 34
	p.Text("heading", margin, p.y, text)
	p.y += 10
}

func (p *page) picture(picture *svg.Picture, height float64) {
	p.Add(`<g transform="translate(0 %.1f)">%s</g>`, p.y, picture.String())
	p.y += height + 8
}

// sentence adds lines of text that are no wider than the page.
func (p *page) sentence(text string) {
	const wide = 160
	line := ""
	flush := func() {
		p.y += 16
		p.Text("", margin, p.y, line)
		line = ""
	}
	for _, word := range strings.SplitAfter(text, " → ") {
		if line != "" && utf8.RuneCountInString(line+word) > wide {
			flush()
			line = "      "
		}
		line += word
	}
	flush()
	p.y += 4
}

func (p *page) done() string {
	height := p.y + margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" class="timeline" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f">`, p.width, height, p.width, height) +
		"\n<style>" + svg.Style + "</style>\n" + svg.Hatch + `<rect class="paper" width="100%" height="100%"/>` + "\n" + p.String() + "</svg>\n"
}
