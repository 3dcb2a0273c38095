package scenario

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// longest is the most that any duration of a file may be.
const longest = time.Hour

// farthest is how far a clock may be set from the right time.
const farthest = 100 * 365 * 24 * time.Hour

// verb is a kind of step.
type verb struct {
	// object is what stands after the colon: "nodes", "members", "loops", "secrets", "service"
	// or "wait".
	object string
	// options are the keys that may stand beside it, required those that must.
	options, required []string
	// needs is "links", "disks", "engine", "clocks" or "hosts" when not every machine can do it.
	needs string
}

var verbs = map[string]verb{
	"kill":           {object: "nodes", options: []string{"as"}},
	"stop":           {object: "nodes", options: []string{"as"}},
	"restart":        {object: "nodes", options: []string{"as", "times"}},
	"cut-power":      {object: "nodes", options: []string{"as"}, needs: "hosts"},
	"start":          {object: "nodes", options: []string{"within"}},
	"pause":          {object: "nodes", options: []string{"as"}},
	"resume":         {object: "nodes"},
	"cut":            {object: "nodes", options: []string{"as", "only"}, needs: "links"},
	"delay":          {object: "nodes", options: []string{"as", "jitter"}, required: []string{"by"}, needs: "links"},
	"lose":           {object: "nodes", options: []string{"as"}, required: []string{"share"}, needs: "links"},
	"heal":           {object: "nodes", needs: "links"},
	"fill":           {object: "nodes", options: []string{"as"}, needs: "disks"},
	"free":           {object: "nodes", needs: "disks"},
	"freeze":         {object: "nodes", options: []string{"as"}, needs: "disks"},
	"thaw":           {object: "nodes", needs: "disks"},
	"restart-engine": {object: "nodes", options: []string{"as"}, needs: "engine"},
	"move":           {object: "nodes", options: []string{"as"}, needs: "links"},
	"set-clock":      {object: "nodes", required: []string{"ahead"}, needs: "clocks"},
	"join":           {object: "members", options: []string{"as"}},
	"leave":          {object: "nodes", options: []string{"as"}},
	"store":          {object: "secrets"},
	"starve":         {object: "loops"},
	"feed":           {object: "nothing"},
	"update":         {object: "service", required: []string{"image"}},
	"scale":          {object: "service", required: []string{"to"}},
	"rollback":       {object: "service"},
	"wait":           {object: "wait", options: []string{"of", "limit"}},
}

// waits are what can be waited for, besides a duration; true when "of" must say of what.
var waits = map[string]string{
	"writes":   "",        // twenty more writes are accepted
	"whole":    "",        // every service has what it wants
	"even":     "",        // and that as evenly spread as at the beginning
	"ready":    "",        // all nodes are ready
	"voting":   "",        // all managers that are there have a vote
	"down":     "nodes",   // the nodes of "of" are marked down
	"update":   "service", // the update of the service "of" is completed
	"rollback": "service", // so is its rollback
}

// Parse reads a scenario file. An error names the line and what is allowed there.
func Parse(name, text string) (Scenario, error) {
	s := Scenario{Name: name, Managers: 3, Workers: 5, Load: Load{Writers: 3, Pause: 5 * time.Millisecond}, Text: text}
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return s, fmt.Errorf("scenario %s: it is empty", name)
	} else if err != nil {
		return s, fmt.Errorf("scenario %s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("scenario %s: want one document only", name)
	}
	p := parser{s: &s}
	p.file(doc.Content[0])
	if p.err != nil {
		return s, fmt.Errorf("scenario %s: %w", name, p.err)
	}
	return s, nil
}

// parser keeps the first error, so that reading looks like the form that is read.
type parser struct {
	s     *Scenario
	bound []string // names given with "as" so far
	err   error
}

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %w", n.Line, fmt.Errorf(format, args...))
	}
}

// each calls read for every key of a mapping. Keys that aren't allowed, or given twice, are errors.
func (p *parser) each(n *yaml.Node, what string, allowed []string, read func(key string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "want %s with the keys %s", what, strings.Join(allowed, ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case !slices.Contains(allowed, key.Value):
			p.fail(key, "%s has no key %q: allowed are %s", what, key.Value, strings.Join(allowed, ", "))
		case seen[key.Value]:
			p.fail(key, "%q is given twice", key.Value)
		}
		seen[key.Value] = true
		if p.err != nil {
			return
		}
		read(key.Value, n.Content[i+1])
	}
}

func (p *parser) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		p.fail(n, "%s: want a text", what)
	}
	return n.Value
}

func (p *parser) oneOf(n *yaml.Node, what string, allowed ...string) string {
	if v := n.Value; n.Kind == yaml.ScalarNode && slices.Contains(allowed, v) {
		return v
	}
	p.fail(n, "%s %q: want one of %s", what, n.Value, strings.Join(allowed, ", "))
	return ""
}

func (p *parser) number(n *yaml.Node, what string, least, most int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < least || v > most {
		p.fail(n, "%s %q: want a number from %d to %d", what, n.Value, least, most)
	}
	return v
}

func (p *parser) duration(n *yaml.Node, what string) time.Duration {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < 0 || d > longest {
		p.fail(n, "%s %q: want a duration such as 500ms or 10s, at most %v", what, n.Value, longest)
	}
	return d
}

// list calls read for every element of a sequence.
func (p *parser) list(n *yaml.Node, what string, read func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		p.fail(n, "%s: want a list, each element after a \"- \"", what)
		return
	}
	for _, element := range n.Content {
		if p.err == nil {
			read(element)
		}
	}
}

func (p *parser) file(n *yaml.Node) {
	s := p.s
	var steps *yaml.Node
	p.each(n, "a scenario", []string{"about", "managers", "workers", "driver", "load", "services", "steps"}, func(key string, v *yaml.Node) {
		switch key {
		case "about":
			s.About = strings.Join(strings.Fields(p.text(v, key)), " ")
		case "managers":
			s.Managers = p.number(v, key, 1, 7)
		case "workers":
			s.Workers = p.number(v, key, 0, 50)
		case "driver":
			s.Driver = p.oneOf(v, key, "docker", "simulate")
		case "load":
			p.load(v)
		case "services":
			p.list(v, key, p.service)
		case "steps":
			steps = v
		}
	})
	// Steps speak of services, so they are read last, wherever they stand.
	switch {
	case p.err != nil:
	case s.About == "":
		p.fail(n, "want \"about\": a sentence that says what is to be seen")
	case steps == nil:
		p.fail(n, "want \"steps\": what is done")
	default:
		p.list(steps, "steps", p.step)
		p.hosts(n)
	}
}

// hosts checks what belongs together where nodes are machines with an engine each.
func (p *parser) hosts(n *yaml.Node) {
	service := func(asking, of string) (s Service) {
		i := slices.IndexFunc(p.s.Services, func(s Service) bool { return s.Name == of })
		if of != "" && i < 0 {
			p.fail(n, "%s of %q: there is no such service", asking, of)
		}
		if i >= 0 {
			s = p.s.Services[i]
		}
		return s
	}
	requests, lookups := p.s.Load.Requests, p.s.Load.Lookups
	asked, named := service("requests", requests.Of), service("lookups", lookups.Of)
	switch {
	case p.err != nil:
	case requests.Of != "" && asked.Publish == 0:
		p.fail(n, "requests of %q: give the service a port to \"publish\"", requests.Of)
	case lookups.Of != "" && named.Network == "":
		p.fail(n, "lookups of %q: give the service a \"network\"", lookups.Of)
	case p.s.Needs().Hosts && p.s.Driver != "docker":
		p.fail(n, "want \"driver: docker\": simulated tasks have no networks")
	}
}

func (p *parser) asking(n *yaml.Node, what string) (a Asking) {
	a = Asking{Clients: 16, Pause: 50 * time.Millisecond}
	p.each(n, what, []string{"of", "clients", "pause"}, func(key string, v *yaml.Node) {
		switch key {
		case "of":
			a.Of = p.text(v, key)
		case "clients":
			a.Clients = p.number(v, key, 2, 64)
		case "pause":
			a.Pause = p.duration(v, key)
		}
	})
	if a.Of == "" {
		p.fail(n, "%s: want \"of\": which service", what)
	}
	return a
}

func (p *parser) load(n *yaml.Node) {
	p.each(n, "load", []string{"writers", "pause", "requests", "lookups"}, func(key string, v *yaml.Node) {
		switch key {
		case "writers":
			p.s.Load.Writers = p.number(v, key, 1, 64)
		case "pause":
			p.s.Load.Pause = p.duration(v, key)
		case "requests":
			p.s.Load.Requests = p.asking(v, key)
		case "lookups":
			p.s.Load.Lookups = p.asking(v, key)
		}
	})
}

func (p *parser) service(n *yaml.Node) {
	service := Service{Replicas: 1, On: "all", Parallelism: 1, OnFailure: "pause", Monitor: 500 * time.Millisecond}
	p.each(n, "a service", []string{"name", "replicas", "on", "publish", "network", "start-delay", "parallelism", "monitor", "on-failure"}, func(key string, v *yaml.Node) {
		switch key {
		case "name":
			service.Name = p.text(v, key)
		case "replicas":
			service.Replicas = p.number(v, key, 0, 1000)
		case "on":
			service.On = p.oneOf(v, key, "all", "workers", "managers")
		case "publish":
			service.Publish = p.number(v, key, 1, 65535)
		case "network":
			service.Network = p.text(v, key)
		case "start-delay":
			service.StartDelay = p.duration(v, key)
		case "parallelism":
			service.Parallelism = p.number(v, key, 0, 1000)
		case "monitor":
			service.Monitor = p.duration(v, key)
		case "on-failure":
			service.OnFailure = p.oneOf(v, key, "pause", "continue", "rollback")
		}
	})
	switch {
	case service.Name == "":
		p.fail(n, "want a \"name\" for the service")
	case slices.ContainsFunc(p.s.Services, func(s Service) bool { return s.Name == service.Name }):
		p.fail(n, "there is a service %s already", service.Name)
	}
	p.s.Services = append(p.s.Services, service)
}

func (p *parser) serviceName(n *yaml.Node) string {
	var names []string
	for _, s := range p.s.Services {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		p.fail(n, "%q: the scenario has no services", n.Value)
		return ""
	}
	return p.oneOf(n, "service", names...)
}

func (p *parser) target(n *yaml.Node) Target {
	parts := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		parts = n.Content
	}
	var t Target
	var words []string
	for _, part := range parts {
		chosen, err := parseTarget(part.Value, p.bound)
		if part.Kind != yaml.ScalarNode || err != nil {
			p.fail(part, "%q is no target: want %s", part.Value, targetForm)
			return t
		}
		t.picks, words = append(t.picks, chosen), append(words, part.Value)
	}
	if len(parts) == 0 {
		p.fail(n, "want %s", targetForm)
	}
	t.Text = strings.Join(words, ", ")
	return t
}

// step reads one element of steps: a mapping with one verb and its options.
func (p *parser) step(n *yaml.Node) {
	step := Step{Line: n.Line, Limit: time.Minute, Times: 1}
	var object *yaml.Node
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if _, ok := verbs[n.Content[i].Value]; !ok {
				continue
			}
			if step.Verb != "" {
				p.fail(n.Content[i], "%q and %q in one step: begin each with a \"- \" of its own", step.Verb, n.Content[i].Value)
				return
			}
			step.Verb, object = n.Content[i].Value, n.Content[i+1]
		}
	}
	if step.Verb == "" {
		p.fail(n, "want a step with one of %s", strings.Join(Verbs(), ", "))
		return
	}
	verb := verbs[step.Verb]
	given := map[string]*yaml.Node{}
	allowed := slices.Concat([]string{step.Verb}, verb.required, verb.options)
	if step.Faulty() {
		allowed = append(allowed, "measure")
	}
	p.each(n, fmt.Sprintf("the step %q", step.Verb), allowed, func(key string, v *yaml.Node) { given[key] = v })
	for _, key := range verb.required {
		if given[key] == nil {
			p.fail(n, "%q wants the key %q too", step.Verb, key)
		}
	}
	if p.err != nil {
		return
	}
	p.object(&step, verb.object, object)
	for _, key := range slices.Concat(verb.required, verb.options) {
		if v := given[key]; v != nil {
			p.option(&step, key, v)
		}
	}
	if step.Verb == "wait" {
		p.wait(&step, n, given["of"])
	}
	if measure := given["measure"]; measure != nil {
		p.measures(&step, measure)
	}
	step.Text = step.words()
	p.s.Steps = append(p.s.Steps, step)
}

// Verbs are the words that a step can begin with.
func Verbs() []string {
	var names []string
	for name := range verbs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// object reads what stands after the verb.
func (p *parser) object(step *Step, kind string, n *yaml.Node) {
	switch kind {
	case "nodes":
		step.Target = p.target(n)
	case "service":
		step.Service = p.serviceName(n)
	case "nothing":
		if n.Kind != yaml.ScalarNode || n.Value != "machine" {
			p.fail(n, "%s %q: want \"machine\"", step.Verb, n.Value)
		}
	case "members":
		words := strings.Fields(n.Value)
		if len(words) == 2 {
			step.Count, _ = strconv.Atoi(words[0])
			step.Kind = strings.TrimSuffix(words[1], "s")
		}
		if step.Count < 1 || step.Count > 50 || step.Kind != "worker" && step.Kind != "manager" {
			p.fail(n, "join %q: want a number such as \"3 workers\" or \"1 manager\", at most 50", n.Value)
		}
	case "loops":
		words := strings.Fields(n.Value)
		if len(words) == 2 && strings.TrimSuffix(words[1], "s") == "loop" {
			step.Count, _ = strconv.Atoi(words[0])
		}
		if step.Count < 1 || step.Count > 64 {
			p.fail(n, "starve %q: want how many busy loops, such as \"8 loops\", at most 64", n.Value)
		}
	case "secrets":
		words := strings.Fields(n.Value)
		if len(words) == 2 && strings.TrimSuffix(words[1], "s") == "secret" {
			step.Count, _ = strconv.Atoi(words[0])
		}
		if step.Count < 1 || step.Count > 1000 {
			p.fail(n, "store %q: want how many of the largest secrets, such as \"200 secrets\", at most 1000", n.Value)
		}
	case "wait":
		step.Until = p.text(n, "wait")
		if _, ok := waits[step.Until]; ok {
			return
		}
		d, err := time.ParseDuration(step.Until)
		if err != nil || d <= 0 || d > longest {
			p.fail(n, "wait %q: want a duration such as 2s, or one of %s", n.Value, strings.Join(Waits(), ", "))
		}
		step.Until, step.Pause = "pause", d
	}
}

// Waits are the words that a wait can wait for.
func Waits() []string {
	var names []string
	for name := range waits {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (p *parser) option(step *Step, key string, n *yaml.Node) {
	switch key {
	case "as":
		step.As = p.text(n, key)
		if _, err := parseTarget(step.As, nil); err == nil || strings.ContainsAny(step.As, " ,") {
			p.fail(n, "as %q: want one word that isn't a target already", step.As)
		}
		if !slices.Contains(p.bound, step.As) {
			p.bound = append(p.bound, step.As)
		}
	case "only":
		step.Only = p.oneOf(n, key, "incoming", "outgoing")
	case "by":
		step.By = p.duration(n, key)
	case "within":
		step.Within = p.duration(n, key)
	case "jitter":
		step.Jitter = p.duration(n, key)
	case "ahead":
		var err error
		if step.Ahead, err = time.ParseDuration(n.Value); n.Kind != yaml.ScalarNode || err != nil || step.Ahead.Abs() > farthest {
			p.fail(n, "ahead %q: want a duration such as 2400h or -1m, at most %v", n.Value, farthest)
		}
	case "times":
		step.Times = p.number(n, key, 1, 1000)
	case "limit":
		step.Limit = p.duration(n, key)
	case "image":
		step.Image = p.oneOf(n, key, "old", "new", "missing")
	case "to":
		step.Count = p.number(n, key, 0, 1000)
	case "share":
		percent, err := strconv.ParseFloat(strings.TrimSuffix(n.Value, "%"), 64)
		if !strings.HasSuffix(n.Value, "%") || err != nil || !(percent > 0 && percent <= 100) {
			p.fail(n, "share %q: want a part of the packets such as 5%%", n.Value)
		}
		step.Share = percent / 100
	}
}

// wait completes a wait by what it waits for.
func (p *parser) wait(step *Step, n, of *yaml.Node) {
	kind := waits[step.Until]
	switch {
	case p.err != nil:
	case kind == "" && of != nil:
		p.fail(of, "wait %s has no \"of\"", step.Until)
	case kind != "" && of == nil:
		p.fail(n, "wait %s wants \"of\": which %s", step.Until, kind)
	case kind == "nodes":
		step.Target = p.target(of)
	case kind == "service":
		step.Service = p.serviceName(of)
	}
}

func (p *parser) measures(step *Step, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "measure: want lines such as \"next-write: worst 1s\"")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		m, err := parseMeasure(n.Content[i].Value, n.Content[i+1].Value)
		switch {
		case err != nil:
			p.fail(n.Content[i], "%w", err)
		case slices.ContainsFunc(step.Measures, func(other Measure) bool { return other.Name == m.Name }):
			p.fail(n.Content[i], "%q is given twice", m.Name)
		case (m.Name == "update" || m.Name == "rollback") && step.Service == "" && len(p.s.Services) != 1:
			p.fail(n.Content[i], "%q in a step without a service: have one service only, or measure from its update", m.Name)
		}
		step.Measures = append(step.Measures, m)
	}
}

// words is the step as a person would say it.
func (s Step) words() string {
	say := strings.ReplaceAll(s.Verb, "-", " ")
	switch verbs[s.Verb].object {
	case "nodes":
		say += " " + s.Target.Text
	case "members":
		say = fmt.Sprintf("%s %d %s", say, s.Count, plural(s.Kind, s.Count))
	case "loops":
		say = fmt.Sprintf("%s with %d %s", say, s.Count, plural("loop", s.Count))
	case "secrets":
		say = fmt.Sprintf("%s %d %s", say, s.Count, plural("secret", s.Count))
	case "nothing":
		say += " machine"
	case "service":
		say += " " + s.Service
	case "wait":
		switch s.Until {
		case "pause":
			say += " " + s.Pause.String()
		case "down":
			say += " down of " + s.Target.Text
		default:
			say = strings.TrimSpace(say + " " + s.Until + " " + s.Service)
		}
	}
	switch {
	case s.Only != "":
		say += ", " + s.Only + " only"
	case s.Times > 1:
		say += fmt.Sprintf(" %d times", s.Times)
	case s.Within > 0:
		say += " within " + s.Within.String()
	case s.Verb == "set-clock":
		say += " ahead by " + s.Ahead.String()
	case s.By > 0:
		say += " by " + s.By.String()
	case s.Share > 0:
		say += fmt.Sprintf(" %g%%", s.Share*100)
	case s.Image != "":
		say += " to " + s.Image + " image"
	case s.Verb == "scale":
		say += fmt.Sprintf(" to %d", s.Count)
	}
	return say
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
