package scenario

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNamed_EveryScenarioReads(t *testing.T) {
	if len(Names()) < 14 {
		t.Errorf("only %d scenarios: %v", len(Names()), Names())
	}
	for _, name := range Names() {
		s, err := Named(name)
		if err != nil {
			t.Error(err)
			continue
		}
		measures := 0
		for _, step := range s.Steps {
			measures += len(step.Measures)
		}
		if measures == 0 {
			t.Errorf("%s measures nothing", name)
		}
	}
	if _, err := Named("leader-crush"); err == nil || !strings.Contains(err.Error(), "leader-crash") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestPage_NamesEveryWord(t *testing.T) {
	var words []string
	words = append(words, Verbs()...)
	words = append(words, Waits()...)
	for _, m := range Meanings {
		words = append(words, m.Name)
	}
	for _, v := range verbs {
		words = append(append(words, v.options...), v.required...)
	}
	for _, word := range words {
		if !regexp.MustCompile(`[ \x60]` + regexp.QuoteMeta(word) + `[:\x60 ]`).MatchString(Page()) {
			t.Errorf("scenarios.md says nothing of %q", word)
		}
	}
	// What it shows as an example must be one.
	_, rest, _ := strings.Cut(Page(), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	if _, err := Parse("example", example); err != nil {
		t.Error(err)
	}
}

func TestParse_Everything(t *testing.T) {
	s, err := Parse("x", `
about: >
  Two lines
  of text.
managers: 5
workers: 2
driver: simulate
load: {writers: 4, pause: 20ms}
services:
  - {name: web, replicas: 6, on: workers, parallelism: 2, monitor: 1s, on-failure: rollback, start-delay: 10ms}
steps:
  - wait: 1500ms
  - cut: [leader, 2 followers]
    only: incoming
    as: lost
    measure: {next-write: "median 350ms, worst 0.8s", refused: worst 7, noticed: none, down: shown}
  - heal: lost
  - wait: down
    of: m1
    limit: 5s
  - scale: web
    to: 9
`)
	if err != nil {
		t.Fatal(err)
	}
	if s.About != "Two lines of text." || s.Managers != 5 || s.Workers != 2 || s.Driver != "simulate" || s.Load != (Load{Writers: 4, Pause: 20 * time.Millisecond}) {
		t.Errorf("%+v", s)
	}
	if want := (Service{Name: "web", Replicas: 6, On: "workers", StartDelay: 10 * time.Millisecond, Parallelism: 2, Monitor: time.Second, OnFailure: "rollback"}); len(s.Services) != 1 || s.Services[0] != want {
		t.Errorf("services %+v", s.Services)
	}
	if s.Steps[0].Pause != 1500*time.Millisecond || s.Steps[3].Limit != 5*time.Second || s.Steps[4].Count != 9 {
		t.Errorf("steps %+v", s.Steps)
	}
	cut := s.Steps[1]
	if cut.Line != 13 || cut.Only != "incoming" || cut.As != "lost" || cut.Text != "cut leader, 2 followers, incoming only" {
		t.Errorf("cut %+v", cut)
	}
	var bounds []string
	for _, m := range cut.Measures {
		bounds = append(bounds, m.Name+": "+m.Bound())
	}
	if got := strings.Join(bounds, "; "); got != "next-write: median 350 ms, worst 800 ms; refused: worst 7; noticed: none; down: " {
		t.Errorf("bounds %s", got)
	}
	if s.Needs() != (Needs{Links: true}) {
		t.Errorf("needs %+v", s.Needs())
	}
}

func TestParse_Networks(t *testing.T) {
	s, err := Parse("x", `
about: x
driver: docker
load: {requests: {of: web, clients: 4}, lookups: {of: web, pause: 1s}}
services:
  - {name: web, publish: 8080, network: net}
steps:
  - cut-power: follower
    measure: {failing: worst 1s, failed: none}
  - restart: leader
    times: 3
`)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Load{3, 5 * time.Millisecond, Asking{"web", 4, 50 * time.Millisecond}, Asking{"web", 16, time.Second}}); s.Load != want {
		t.Errorf("load %+v", s.Load)
	}
	if s.Services[0].Publish != 8080 || s.Services[0].Network != "net" || s.Needs() != (Needs{Hosts: true}) {
		t.Errorf("services %+v, needs %+v", s.Services, s.Needs())
	}
	if restart := s.Steps[1]; restart.Times != 3 || restart.Text != "restart leader 3 times" {
		t.Errorf("restart %+v", restart)
	}
}

func TestParse_RefusesWithLineAndWhatIsAllowed(t *testing.T) {
	const head = "about: x\nservices: [{name: web}]\nsteps:\n"
	for name, test := range map[string]struct{ text, want string }{
		"nothing":                   {"", "empty"},
		"two documents":             {"about: x\nsteps: [{wait: 1s}]\n---\nabout: y\n", "one document"},
		"no mapping":                {"- x\n", "line 1: want a scenario with the keys about"},
		"broken YAML":               {"about: [x\n", "line 1"},
		"unknown key":               {"about: x\nnodes: 3\n", `line 2: a scenario has no key "nodes": allowed are about, managers`},
		"key twice":                 {"about: x\nabout: y\n", `line 2: "about" is given twice`},
		"no steps":                  {"about: x\n", `want "steps"`},
		"no about":                  {"steps: [{wait: 1s}]\n", `want "about"`},
		"steps empty":               {"about: x\nsteps: []\n", "line 2: steps: want a list"},
		"too many managers":         {"about: x\nmanagers: 9\n", `line 2: managers "9": want a number from 1 to 7`},
		"driver":                    {"about: x\ndriver: podman\n", `line 2: driver "podman": want one of docker, simulate`},
		"load":                      {"about: x\nload: {readers: 3}\n", `line 2: load has no key "readers": allowed are writers, pause`},
		"requests of nothing":       {"about: x\nload: {requests: {clients: 3}}\n", `line 2: requests: want "of"`},
		"requests of another":       {"about: x\ndriver: docker\nload: {requests: {of: db}}\nsteps: [{wait: 1s}]\n", `requests of "db": there is no such service`},
		"requests of no port":       {"about: x\ndriver: docker\nload: {requests: {of: a}}\nservices: [{name: a}]\nsteps: [{wait: 1s}]\n", `give the service a port to "publish"`},
		"look-ups of no network":    {"about: x\ndriver: docker\nload: {lookups: {of: a}}\nservices: [{name: a}]\nsteps: [{wait: 1s}]\n", `give the service a "network"`},
		"networks of none":          {"about: x\nservices: [{name: a, network: net}]\nsteps: [{wait: 1s}]\n", `want "driver: docker"`},
		"service without a name":    {"about: x\nservices:\n  - {replicas: 3}\n", `line 3: want a "name"`},
		"service twice":             {"about: x\nservices: [{name: a}, {name: a}]\n", "there is a service a already"},
		"service on":                {"about: x\nservices: [{name: a, on: m1}]\n", `on "m1": want one of all, workers, managers`},
		"no verb":                   {head + "  - {crash: leader}\n", "line 4: want a step with one of cut, cut-power, delay"},
		"two verbs":                 {head + "  - {kill: leader, start: leader}\n", `line 4: "kill" and "start" in one step`},
		"unknown option":            {head + "  - {kill: leader, by: 1s}\n", `line 4: the step "kill" has no key "by": allowed are kill, as, measure`},
		"missing option":            {head + "  - delay: leader\n", `line 4: "delay" wants the key "by" too`},
		"unknown target":            {head + "  - kill: leaders\n", `line 4: "leaders" is no target: want a node such as`},
		"half a target":             {head + "  - kill: [leader, 0 workers]\n", `line 4: "0 workers" is no target`},
		"no target":                 {head + "  - kill: []\n", "line 4: want a node such as"},
		"name not bound":            {head + "  - start: old\n", `line 4: "old" is no target`},
		"as is a target":            {head + "  - {kill: leader, as: w1}\n", `line 4: as "w1": want one word`},
		"as two words":              {head + "  - {kill: leader, as: a b}\n", `line 4: as "a b"`},
		"unknown wait":              {head + "  - wait: forever\n", `line 4: wait "forever": want a duration such as 2s, or one of down, even, ready`},
		"wait of nothing":           {head + "  - wait: 0s\n", `wait "0s"`},
		"wait too long":             {head + "  - wait: 2h\n", `wait "2h"`},
		"wait without of":           {head + "  - wait: down\n", `line 4: wait down wants "of": which nodes`},
		"wait with of":              {head + "  - {wait: writes, of: web}\n", `wait writes has no "of"`},
		"wait of unknown service":   {head + "  - {wait: update, of: db}\n", `line 4: service "db": want one of web`},
		"wait measures":             {head + "  - {wait: 1s, measure: {down: shown}}\n", `the step "wait" has no key "measure"`},
		"unknown measure":           {head + "  - {kill: leader, measure: {pain: shown}}\n", `line 4: "pain" is no measure: want one of next-write`},
		"measure twice":             {head + "  - kill: leader\n    measure:\n      down: shown\n      down: shown\n", `line 7: "down" is given twice`},
		"bound":                     {head + "  - {kill: leader, measure: {down: fast}}\n", `"fast" bounds nothing: want "shown"`},
		"bound twice":               {head + "  - {kill: leader, measure: {down: 'worst 1s, worst 2s'}}\n", "bounds nothing"},
		"none of a time":            {head + "  - {kill: leader, measure: {down: none}}\n", "bounds nothing"},
		"a time of a count":         {head + "  - {kill: leader, measure: {refused: worst 3s}}\n", "bounds nothing"},
		"share":                     {head + "  - {lose: leader, share: 0.05}\n", `share "0.05": want a part of the packets such as 5%`},
		"image":                     {head + "  - {update: web, image: nginx}\n", `image "nginx": want one of old, new, missing`},
		"join":                      {head + "  - join: some workers\n", `join "some workers": want a number such as`},
		"store":                     {head + "  - store: secrets\n", `store "secrets": want how many`},
		"starve":                    {head + "  - starve: 8\n", `starve "8": want how many busy loops`},
		"feed":                      {head + "  - feed: leader\n", `want "machine"`},
		"no services":               {"about: x\nsteps: [{scale: web, to: 3}]\n", `"web": the scenario has no services`},
		"update measured of two":    {"about: x\nservices: [{name: a}, {name: b}]\nsteps: [{kill: leader, measure: {update: shown}}]\n", "have one service only"},
		"a value where a list is":   {"about: x\nservices: web\n", "line 2: services: want a list"},
		"a mapping where a text is": {"about: {x: y}\n", "line 1: about: want a text"},
		"an alias":                  {"about: &a x\nmanagers: *a\n", "line 2: managers"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("file", test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("have %v\nwant %s", err, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		s, err := Named(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("fuzz", text)
		switch {
		case err != nil && !strings.HasPrefix(err.Error(), "scenario fuzz: "):
			t.Errorf("%q: the error doesn't say where it is: %v", text, err)
		case err == nil && (len(s.Steps) == 0 || s.About == "" || s.Text != text):
			t.Errorf("%q was read as %+v", text, s)
		}
	})
}

func TestTarget_Choose(t *testing.T) {
	now := Nodes{
		Managers: []string{"m1", "m2", "m3"}, Workers: []string{"w1", "w2", "w3", "w4", "w5"}, Leader: "m2",
		Touched:  map[string]bool{"w1": true},
		Sessions: map[string]string{"w2": "m2", "w3": "m1", "w5": "m2", "m1": "m2"},
		Bound:    map[string][]string{"old": {"m1", "w1"}},
	}
	for text, want := range map[string]string{
		"leader":                "m2",
		"follower":              "m1",
		"2 followers":           "m1 m3",
		"manager":               "m1",
		"worker":                "w2",
		"3 workers":             "w2 w3 w4",
		"half the workers":      "w2 w3 w4",
		"all workers":           "w1 w2 w3 w4 w5",
		"all managers":          "m1 m2 m3",
		"everything":            "m1 m2 m3 w1 w2 w3 w4 w5",
		"leader and its agents": "m2 w2 w5",
		"w4":                    "w4",
		"old":                   "m1 w1",
		"worker+worker":         "w2 w3",
		"leader+old+leader":     "m2 m1 w1",
		"5 workers":             "error: 5 wanted, and only 4 are untouched",
		"w9":                    "error: there is no node w9",
	} {
		t.Run(text, func(t *testing.T) {
			var target Target
			for part := range strings.SplitSeq(text, "+") {
				p, err := parseTarget(part, []string{"old"})
				if err != nil {
					t.Fatal(err)
				}
				target.picks = append(target.picks, p)
			}
			names, err := target.Choose(now)
			got := strings.Join(names, " ")
			if err != nil {
				_, reason, _ := strings.Cut(err.Error(), ": ")
				got = "error: " + reason
			}
			if got != want {
				t.Errorf("chose %s, want %s", got, want)
			}
		})
	}
	now.Leader = ""
	for _, text := range []string{"leader", "follower", "leader and its agents"} {
		p, err := parseTarget(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if names, err := (Target{picks: []pick{p}}).Choose(now); err == nil {
			t.Errorf("%s without a leader: %v", text, names)
		}
	}
	if !slices.Equal(now.Workers, []string{"w1", "w2", "w3", "w4", "w5"}) {
		t.Error("choosing changed what it chose from")
	}
}
