package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Sentence is what belongs together in a Timeline, in words.
type Sentence struct {
	// Of names it: it is the first of its records, by manager and number. A later Timeline of the same time
	// has the same sentence, perhaps with more steps.
	Of    Mark
	About About
	// From and To are the times of the first step and the last one.
	From, To time.Time
	// Manager is whom it is mostly about: in an election who won or stood last. Term is the last term in it.
	Manager string
	Term    uint64
	// Open is set while it isn't over: there is no leader yet, or what is lost isn't back.
	Open  bool
	Steps []Step
}

// Mark names a record.
type Mark struct {
	Manager string
	Seq     uint64
}

// About is what a Sentence is about.
type About string

// What sentences are about.
const (
	AboutStart    About = "start"     // a manager's process started
	AboutElection About = "election"  // the leader was missed
	AboutHandOver About = "hand-over" // the leader handed over
	AboutContact  About = "contact"   // the leader lost a manager
	AboutNode     About = "node"      // a node's state changed
)

// Step is a part of a Sentence.
type Step struct {
	At time.Time
	// Manager is whose step it is, Text what it did, beginning with a verb.
	Manager, Text string
}

// Words is the sentence in one line, with an arrow between steps and each manager's name where another one
// goes on.
func (s Sentence) Words(name func(id string) string) string { return s.WordsFrom(0, name) }

// WordsFrom is Words without the first steps.
func (s Sentence) WordsFrom(step int, name func(id string) string) string {
	var parts []string
	last := ""
	for _, step := range s.Steps[min(step, len(s.Steps)):] {
		text := step.Text
		if step.Manager != last {
			text = name(step.Manager) + " " + text
		}
		last = step.Manager
		parts = append(parts, text)
	}
	return strings.Join(parts, " → ")
}

// Story says a Timeline in sentences, in the order in which they began.
func Story(t Timeline) []Sentence {
	s := &teller{name: t.Name, roles: map[string]string{}, wrote: map[Mark]Record{}, starts: map[string]*Sentence{}, contacts: map[[2]string]*Sentence{}, nodes: map[string]*Sentence{}}
	for _, r := range t.Records {
		if at := (Mark{r.Manager, r.Term}); r.Kind == Writes && s.wrote[at].Kind == "" {
			s.wrote[at] = r
		}
	}
	for _, r := range t.Records {
		s.take(r)
	}
	s.close()
	slices.SortStableFunc(s.said, func(a, b *Sentence) int { return a.From.Compare(b.From) })
	var all []Sentence
	for _, sentence := range s.said {
		all = append(all, *sentence)
	}
	return all
}

// teller goes through the records of a Timeline once.
type teller struct {
	name func(string) string
	said []*Sentence
	// roles are what managers are, wrote the first Writes of a manager in a term.
	roles map[string]string
	wrote map[Mark]Record
	// starts, contacts and nodes are the sentences that aren't over, by manager, by leader and manager, and
	// by node.
	starts   map[string]*Sentence
	contacts map[[2]string]*Sentence
	nodes    map[string]*Sentence
	// race is what belongs to the election that isn't over; nil when there is none.
	race *race
}

// begin begins a sentence with a record.
func (s *teller) begin(about About, r Record) *Sentence {
	sentence := &Sentence{Of: Mark{r.Manager, r.Seq}, About: about, From: r.Time, Manager: r.Manager, Open: true}
	s.said = append(s.said, sentence)
	return sentence
}

func (s *Sentence) step(r Record, format string, args ...any) {
	s.To, s.Term = r.Time, max(s.Term, r.Term)
	s.Steps = append(s.Steps, Step{r.Time, r.Manager, fmt.Sprintf(format, args...)})
}

func (s *teller) take(r Record) {
	switch r.Kind {
	case Started:
		if open := s.starts[r.Manager]; open != nil {
			open.Open = false
		}
		s.starts[r.Manager] = s.begin(AboutStart, r)
		s.starts[r.Manager].step(r, "started, in term %d", r.Term)
		delete(s.roles, r.Manager)
	case Lost:
		if role := s.roles[r.Manager]; role != "" && role != Leader {
			break // It stood still, and was deposed meanwhile.
		}
		key := [2]string{r.Manager, r.Node}
		s.contacts[key] = s.begin(AboutContact, r)
		s.contacts[key].step(r, "got no answer of %s%s", s.name(r.Node), lasting(r.Took))
	case Found:
		key := [2]string{r.Manager, r.Node}
		if open := s.contacts[key]; open != nil {
			open.step(r, "heard it again after %s", Lasted(r.Took))
			open.Open = false
			delete(s.contacts, key)
		}
	case NodeState:
		s.node(r)
	case Writes:
	default:
		s.raft(r)
		s.roles[r.Manager] = cmp.Or(roleBy(r), s.roles[r.Manager])
	}
	if open := s.starts[r.Manager]; open != nil {
		switch r.Kind {
		case Follows:
			open.step(r, "follows %s in term %d", s.name(r.Node), r.Term)
		case Ready:
			open.step(r, "leads in term %d", r.Term)
		default:
			return
		}
		open.Open = false
		delete(s.starts, r.Manager)
	}
}

// roleBy is the role that a record says; "" when it says none.
func roleBy(r Record) string {
	switch r.Kind {
	case Role:
		return r.Word
	case Follows:
		return Follower
	case Ready:
		return Leader
	}
	return ""
}

// node is a change of a node's state. What isn't ready is told until it is.
func (s *teller) node(r Record) {
	open := s.nodes[r.Node]
	if open == nil {
		open = s.begin(AboutNode, r)
		open.Manager = r.Node
		s.nodes[r.Node] = open
	}
	text := "is " + r.Word
	if len(open.Steps) > 0 && r.Word == "ready" {
		text += " after " + Lasted(r.Time.Sub(open.From))
	}
	if r.Why != "" {
		text += ": " + r.Why
	}
	whole := r
	whole.Manager = r.Node
	open.step(whole, "%s", text)
	if r.Word == "ready" || r.Word == Removed {
		open.Open = false
		delete(s.nodes, r.Node)
	}
}

// race is an election, or what could have become one.
type race struct {
	records []event
	// troubled are the managers that miss a leader, or stand.
	troubled map[string]bool
	// leader is who leads and takes writes since then; "" for nobody yet.
	leader string
}

// event is a record of an election. Deposed is set where the manager led until then.
type event struct {
	Record
	deposed bool
}

// calm is for how long nothing may happen after somebody leads until what happens next is another election,
// even if one manager doesn't know yet who leads.
const calm = 2 * time.Second

// opens tells whether a record can be the first of an election.
func (e event) opens() bool {
	switch e.Kind {
	case Silent, Refused, HandOver:
		return true
	case Role:
		return e.Word == Candidate || e.Word == Leader || e.deposed
	}
	return false
}

// over tells whether the election is over before an event that opens one.
func (c *race) over(e event) bool {
	late := e.Time.Sub(c.records[len(c.records)-1].Time) > calm
	if c.leader != "" && !late && (e.Kind == Silent || e.Kind == Refused) && e.Node != c.leader {
		return false // One more finds out what the others have dealt with.
	}
	return len(c.troubled) == 0 || c.leader != "" && late
}

// raft is a record of what raft did.
func (s *teller) raft(r Record) {
	e := event{r, r.Kind == Role && r.Word == Follower && s.roles[r.Manager] == Leader}
	if s.race != nil && e.opens() && s.race.over(e) {
		s.close()
	}
	if s.race == nil {
		if !e.opens() {
			return // What it belongs to began before this Timeline, or was no election.
		}
		s.race = &race{troubled: map[string]bool{}}
	}
	s.race.records = append(s.race.records, e)
	switch {
	case e.opens():
		s.race.troubled[r.Manager] = true
	case r.Kind == Ready:
		s.race.leader = r.Manager
		delete(s.race.troubled, r.Manager)
	case r.Kind == Heard, r.Kind == Follows, r.Kind == HandedOver && r.Why != "":
		delete(s.race.troubled, r.Manager)
	}
}

// close says what became of the election.
func (s *teller) close() {
	race := s.race
	if s.race = nil; race == nil {
		return
	}
	first := race.records[0]
	sentence := s.begin(AboutElection, first.Record)
	sentence.Open = len(race.troubled) > 0 && race.leader == ""
	tells, polls, runs := race.tellers(), race.polls(), race.runs()
	handing, led := false, false
	for _, e := range race.records {
		handing = handing || e.Kind == HandOver
		led = led || e.Kind == Role && e.Word == Leader
	}
	var leads Record
	for i, e := range race.records {
		if !tells[e.Manager] {
			continue
		}
		r := e.Record
		switch r.Kind {
		case Silent:
			sentence.step(r, "heard nothing of %s%s", s.name(r.Node), lasting(r.Took))
		case Refused:
			sentence.step(r, "found that nobody listens at %s any more", s.name(r.Node))
		case Heard:
			sentence.step(r, "heard %s again after %s", s.name(r.Node), Lasted(r.Took))
		case Asked:
			if run := runs[i]; run != nil {
				sentence.step(run[len(run)-1], "asked %s", s.answers(run))
			}
		case Waits:
			sentence.step(r, "let %s go first", others(r.Count))
		case HandOver:
			sentence.About = AboutHandOver
			if r.Node == "" {
				sentence.step(r, "handed over")
			} else {
				sentence.step(r, "handed over to %s", s.name(r.Node))
			}
		case HandedOver:
			if r.Why != "" {
				sentence.step(r, "leads on: %s", r.Why)
			}
		case Role:
			switch {
			case r.Word == Candidate:
				sentence.Manager = r.Manager
				if r.Why == ByHandOver {
					sentence.About = AboutHandOver
				}
				if !race.asksVotes(i) {
					sentence.step(r, "found too few that would vote for it")
				}
			case r.Word == Leader:
				sentence.Manager, leads = r.Manager, r
				if polls[Mark{r.Manager, r.Term}] != nil {
					sentence.step(r, "leads")
				} else {
					sentence.step(r, "leads in term %d", r.Term)
				}
			case e.deposed && !handing:
				sentence.step(r, "leads no more")
			}
		case AsksVote:
			if poll := polls[Mark{r.Manager, r.Term}]; poll.first == i {
				sentence.Manager = r.Manager
				sentence.step(r, "stood for term %d%s", r.Term, race.because(i, handing))
			}
		case Vote:
			if poll := polls[Mark{r.Manager, r.Term}]; poll != nil && poll.told == i {
				sentence.step(r, "got %d of %s", poll.granted, plural(len(poll.voters)+1, "vote"))
			}
		case Voted:
			if !led && r.Word == Granted {
				sentence.step(r, "voted for %s in term %d", s.name(r.Node), r.Term)
			}
		case Follows:
			if !led {
				sentence.step(r, "follows %s in term %d", s.name(r.Node), r.Term)
			}
		}
	}
	s.wrotes(sentence, race, leads)
	if len(sentence.Steps) == 0 {
		s.said = s.said[:len(s.said)-1]
	}
}

// soon is how long after somebody leads a first write may come for the time until then to say something: later
// there just was nothing to write.
const soon = 5 * time.Second

// wrotes adds the first write of who leads, or that it takes writes, counted from the first step.
func (s *teller) wrotes(sentence *Sentence, race *race, leads Record) {
	if leads.Kind == "" {
		return
	}
	if write, wrote := s.wrote[Mark{leads.Manager, leads.Term}]; wrote && write.Time.Sub(leads.Time) < soon {
		sentence.step(write, "first write accepted after %s", Lasted(write.Time.Sub(sentence.From)))
		return
	}
	for _, e := range race.records {
		if e.Kind == Ready && e.Manager == leads.Manager && e.Term == leads.Term {
			sentence.step(e.Record, "takes writes after %s", Lasted(e.Time.Sub(sentence.From)))
			return
		}
	}
}

// tellers are the managers whose records tell the election: those that stood, led or handed over; if there are
// none, those that missed the leader.
func (c *race) tellers() map[string]bool {
	acted, missed := map[string]bool{}, map[string]bool{}
	for _, e := range c.records {
		if e.Kind == AsksVote || e.Kind == HandOver || e.Kind == Role && e.Word == Leader || e.deposed {
			acted[e.Manager] = true
		}
		missed[e.Manager] = true
	}
	if len(acted) > 0 {
		return acted
	}
	return missed
}

// poll is what came of standing once: first is the first question, told the vote that decided, or the last one
// if none did, and granted is how many had been given by then, its own among them.
type poll struct {
	voters      map[string]bool
	first, told int
	granted     int
}

// polls are those of the election, by manager and term.
func (c *race) polls() map[Mark]*poll {
	all := map[Mark]*poll{}
	for i, e := range c.records {
		if e.Kind != AsksVote {
			continue
		}
		at := Mark{e.Manager, e.Term}
		if all[at] == nil {
			all[at] = &poll{voters: map[string]bool{}, first: i, told: -1, granted: 1}
		}
		all[at].voters[e.Node] = true
	}
	for i, e := range c.records {
		p := all[Mark{e.Manager, e.Term}]
		if e.Kind != Vote || p == nil || p.granted > (len(p.voters)+1)/2 {
			continue
		}
		if e.Word != NoAnswer || p.told < 0 { // What comes too late may come much later.
			p.told = i
		}
		if e.Word == Granted {
			p.granted++
		}
	}
	return all
}

// runs are the answers that a manager got in a row, by the place of the first; of each other manager, the last.
func (c *race) runs() map[int][]Record {
	all, begun := map[int][]Record{}, map[string]int{}
	for i, e := range c.records {
		if e.Kind != Asked {
			delete(begun, e.Manager)
			continue
		}
		first, goesOn := begun[e.Manager]
		if !goesOn {
			first = i
			begun[e.Manager] = i
		}
		all[first] = append(slices.DeleteFunc(all[first], func(r Record) bool { return r.Node == e.Node }), e.Record)
	}
	return all
}

// answers says who was asked, and what they answered.
func (s *teller) answers(asked []Record) string {
	var words []string
	by := map[string][]string{}
	for _, r := range asked {
		if by[r.Word] == nil {
			words = append(words, r.Word)
		}
		by[r.Word] = append(by[r.Word], s.name(r.Node))
	}
	for i, word := range words {
		if says := answerOfMany[word]; len(by[word]) > 1 && says != "" {
			word = says
		}
		words[i] = fmt.Sprintf("%s (%s)", list(by[words[i]]), word)
	}
	return list(words)
}

// answerOfMany are answers as several managers give them.
var answerOfMany = map[string]string{Misses: "miss it too", Hears: "hear it", NewTerm: "have a newer term"}

// asksVotes tells whether a manager that became a candidate came so far as to ask for votes.
func (c *race) asksVotes(candidate int) bool {
	for _, e := range c.records[candidate+1:] {
		if e.Manager == c.records[candidate].Manager && (e.Kind == AsksVote || e.Kind == Role) {
			return e.Kind == AsksVote || e.Word == Leader
		}
	}
	return false
}

// because is why a manager stood, where that isn't clear from the steps before.
func (c *race) because(stood int, handing bool) string {
	for i := stood - 1; i >= 0; i-- {
		e := c.records[i]
		if e.Manager != c.records[stood].Manager || e.Kind != Role || e.Word != Candidate {
			continue
		}
		switch {
		case e.Why == ByTimeout:
			return ", as it heard of no leader"
		case e.Why == ByHandOver && !handing:
			return ", as the leader handed over to it"
		}
		return ""
	}
	return ""
}

func others(n int) string {
	if n == 1 {
		return "another"
	}
	return fmt.Sprintf("%d others", n)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// list is words with commas and an and.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// lasting is for how long, if that is known.
func lasting(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return " for " + Lasted(d)
}

// Lasted is a duration as people say it.
func Lasted(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
