package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"skep/cluster/timeline"
	"skep/cmd/lab/scenario"
)

func bound(v float64) *float64 { return &v }

// crash is a round in which m1, the leader, is killed at 1 s and w1 with it; m2 leads
// from 1.4 s on, and both are back at 4 s.
func crash() Round {
	all := map[string]string{"m1": "ready", "m2": "ready", "w1": "ready", "w2": "ready"}
	but := func(changes ...string) map[string]string {
		states := map[string]string{}
		for name, state := range all {
			states[name] = state
		}
		for i := 0; i < len(changes); i += 2 {
			states[changes[i]] = changes[i+1]
		}
		return states
	}
	web := func(w1, w2 int) map[string]map[string]int {
		return map[string]map[string]int{"web": {"w1": w1, "w2": w2}}
	}
	wanted := map[string]int{"web": 2}
	return Round{
		Number: 1, Length: 6000,
		Nodes: []Node{{Name: "m1", Role: "manager"}, {Name: "m2", Role: "manager"}, {Name: "w1", Role: "worker"}, {Name: "w2", Role: "worker"}},
		Steps: []Step{
			{Verb: "wait", Text: "wait 1s"},
			{Verb: "kill", Text: "kill leader, worker", Nodes: []string{"m1", "w1"}, Began: 1000, Ended: 1010, Agents: map[string]string{"w1": "m1", "w2": "m2", "m2": "m2"},
				Measures: []scenario.Measure{{Name: "next-write", Median: bound(350), Worst: bound(800)}, {Name: "down", Worst: bound(900)}, {Name: "whole"}, {Name: "moved"},
					{Name: "write-gap"}, {Name: "refused"}, {Name: "noticed", Worst: bound(0)}, {Name: "update"}}},
			{Verb: "start", Text: "start lost", Nodes: []string{"m1", "w1"}, Began: 4000, Ended: 4100, Measures: []scenario.Measure{{Name: "ready"}}},
		},
		Writes: []Write{
			{Writer: 0, Through: "m1", Began: 900, Ended: 910, Accepted: true},
			{Writer: 1, Through: "m2", Began: 950, Ended: 960, Accepted: true},
			{Writer: 0, Through: "m1", Began: 1001, Ended: 1002, Accepted: true}, // begun while the leader still lived
			{Writer: 0, Through: "m1", Began: 1020, Ended: 1021, Why: 0},
			{Writer: 1, Through: "m2", Began: 1000, Ended: 1050, Why: 1},
			{Writer: 1, Through: "m2", Began: 1060, Ended: 1420, Accepted: true},
			{Writer: 1, Through: "m2", Began: 1430, Ended: 1440, Accepted: true},
			{Writer: 0, Through: "m1", Began: 4200, Ended: 4210, Accepted: true},
		},
		Refusals: []string{"connection refused", "leadership lost"},
		Views: []View{
			{At: 10, Until: 995, Through: "m1", Leader: "m1", Nodes: all, Wanted: wanted, Running: web(1, 1)},
			// What a manager says in its last moments is no news.
			{At: 1005, Until: 1005, Through: "m1", Leader: "m1", Nodes: but("w1", "down", "m1", "down"), Wanted: wanted, Running: web(0, 2)},
			{At: 12, Until: 1600, Through: "m2", Leader: "m1", Nodes: all, Wanted: wanted, Running: web(1, 1)},
			{At: 1700, Until: 1900, Through: "m2", Leader: "m2", Nodes: but("m1", "down"), Wanted: wanted, Running: web(1, 1)},
			{At: 2000, Until: 2050, Through: "m2", Leader: "m2", Nodes: but("m1", "down", "w1", "down"), Wanted: wanted, Running: web(0, 1)},
			{At: 2200, Until: 4150, Through: "m2", Leader: "m2", Nodes: but("m1", "down", "w1", "down"), Wanted: wanted, Running: web(0, 2)},
			{At: 4200, Until: 4300, Through: "m2", Leader: "m2", Nodes: but("w1", "down"), Wanted: wanted, Running: web(0, 2)},
			{At: 4400, Until: 6000, Through: "m2", Leader: "m2", Nodes: all, Wanted: wanted, Running: web(0, 2)},
		},
		Sessions: []Session{
			{At: 500, Node: "w2", What: "session opened"},  // before
			{At: 1100, Node: "w1", What: "session opened"}, // the step's own
			{At: 1200, Node: "w2", What: "no session with a manager"},
			{At: 1300, Node: "w2", What: "session opened"}, // the same agent
		},
		ContainerStart: 150,
	}
}

func TestMeasure(t *testing.T) {
	for name, test := range map[string]struct {
		step int
		want float64
	}{
		"next-write": {1, 420},
		"down":       {1, 1000},
		"whole":      {1, 1200},
		"moved":      {1, 1050},
		"write-gap":  {1, 460},
		"refused":    {1, 1},
		"noticed":    {1, 1},
		"update":     {1, -1},
		"ready":      {2, 400},
	} {
		t.Run(name, func(t *testing.T) {
			v, ok := crash().measure(test.step, scenario.Measure{Name: name})
			if !ok {
				v = -1
			}
			if v != test.want {
				t.Errorf("%v, want %v", v, test.want)
			}
		})
	}
}

func TestMeasure_RequestsThatFail(t *testing.T) {
	r := Round{Length: 9000, Steps: []Step{
		{Verb: "cut-power", Nodes: []string{"m2"}, Began: 1000, Ended: 1010},
		{Verb: "wait", Began: 1010, Ended: 1010},
		{Verb: "start", Nodes: []string{"m2"}, Began: 5000, Ended: 6000},
	}, Requests: []Request{
		{Through: "m1", Began: 500, Ended: 900}, // before
		{Through: "m1", Began: 950, Ended: 1200},
		{Through: "m1", Began: 1500, Ended: 4500},
		{Through: "m2", Began: 1600, Ended: 4600}, // of the machine that is off
		{Through: "m1", Began: 1700, Ended: 1710, Answered: true},
		{Through: "m2", Began: 7000, Ended: 7100},
		// It refuses until its daemon carries, and then no more.
		{Through: "m2", Began: 5500, Ended: 5501, Why: 1},
		{Through: "m2", Began: 6200, Ended: 6201, Why: 1},
		{Through: "m2", Began: 7110, Ended: 7120, Answered: true},
		{Through: "m1", Began: 6300, Ended: 6301, Why: 1},
		{Through: "m2", Began: 7500, Ended: 7501, Why: 1},
	}, Refusals: []string{"it took too long", "dial tcp 10.77.0.3: connect: connection refused"}}
	for name, want := range map[string][2]float64{"failed": {2, 3}, "failing": {500, 2500}} {
		for i, step := range []int{0, 2} {
			if v, ok := r.measure(step, scenario.Measure{Name: name}); !ok || v != want[i] {
				t.Errorf("%s of step %d: %v %v, want %v", name, step, v, ok, want[i])
			}
		}
	}
	if v, ok := r.measure(2, scenario.Measure{Name: "carries"}); !ok || v != 2120 {
		t.Errorf("it carries after %v, %v", v, ok)
	}
	r.Requests = nil
	if v, ok := r.measure(2, scenario.Measure{Name: "carries"}); ok {
		t.Errorf("it carries after %v though nobody asked", v)
	}
	if v, ok := r.measure(0, scenario.Measure{Name: "failed"}); ok {
		t.Errorf("%v failed of none", v)
	}
}

func TestMeasure_GapOfAClientThatSawNoMore(t *testing.T) {
	r := crash()
	r.Writes = append(r.Writes, Write{Writer: 2, Through: "m2", Began: 930, Ended: 940, Accepted: true})
	if v, ok := r.measure(1, scenario.Measure{Name: "write-gap"}); !ok || v != 3060 {
		t.Errorf("%v %v: the third client waited from 940 to 4000", v, ok)
	}
	// Clients of slow nodes count: those nodes are there.
	r.Steps[1].Verb = "delay"
	if v, ok := r.measure(1, scenario.Measure{Name: "write-gap"}); !ok || v <= 3060-1 {
		t.Errorf("%v %v: clients of slow managers were left out", v, ok)
	}
}

func TestMeasure_CalmGap(t *testing.T) {
	r := Round{Length: 3000, Steps: []Step{{Verb: "kill", Began: 2000, Ended: 2001}}, Writes: []Write{
		{Writer: 0, Ended: 500, Accepted: true}, // too long ago
		{Writer: 0, Ended: 1200, Accepted: true},
		{Writer: 1, Ended: 1250, Accepted: true},
		{Writer: 0, Ended: 1300},
		{Writer: 0, Ended: 1500, Accepted: true},
		{Writer: 1, Ended: 1400, Accepted: true},
		{Writer: 0, Ended: 2500, Accepted: true}, // what the step did
	}}
	if v, ok := r.measure(0, scenario.Measure{Name: "calm-gap"}); !ok || v != 300 {
		t.Errorf("%v %v, want 300", v, ok)
	}
}

func TestMeasure_Update(t *testing.T) {
	r := Round{Length: 100, Steps: []Step{{Verb: "update", Service: "web", Began: 10, Ended: 12}}, Views: []View{
		{At: 5, Until: 11, Through: "m1", Updates: map[string]string{"web": "completed"}}, // the one before
		{At: 15, Until: 40, Through: "m1", Updates: map[string]string{"web": "updating", "db": "completed"}},
		{At: 50, Until: 60, Through: "m1", Updates: map[string]string{"web": "completed"}},
		{At: 70, Until: 90, Through: "m1", Updates: map[string]string{"web": "rollback_completed"}},
	}}
	for name, want := range map[string]float64{"update": 40, "rollback": 60} {
		if v, ok := r.measure(0, scenario.Measure{Name: name}); !ok || v != want {
			t.Errorf("%s: %v %v, want %v", name, v, ok, want)
		}
	}
}

func TestRound_WhoIsThere(t *testing.T) {
	r := crash()
	spans := r.spans()
	for at, want := range map[Ms]bool{999: false, 1000: true, 4050: true, 4100: false, 5000: false} {
		if away(spans["m1"], at) != want {
			t.Errorf("m1 away at %v: %v", at, !want)
		}
	}
	if names := r.called("down"); len(names) > 0 {
		t.Errorf("called down, of those that were there: %v", names)
	}
	r.Views[3].Nodes["w2"] = "down"
	r.Views[1].Nodes["m2"] = "down" // said by m1, which is dead
	if names := r.called("down"); !reflect.DeepEqual(names, []string{"w2"}) {
		t.Errorf("called down, of those that were there: %v", names)
	}
	// A frozen disk that thaws, a pause in a pause, a fault without an end.
	r = Round{Steps: []Step{
		{Verb: "freeze", Nodes: []string{"a"}, Began: 1, Ended: 2}, {Verb: "kill", Nodes: []string{"a"}, Began: 5, Ended: 6},
		{Verb: "start", Nodes: []string{"a"}, Began: 8, Ended: 9}, {Verb: "delay", Nodes: []string{"b"}, Began: 1, Ended: 1}, {Verb: "cut", Nodes: []string{"b"}, Began: 3, Ended: 3},
	}}
	want := map[string][]span{
		"a": {{1, 5, "disk hangs", true}, {5, 9, "killed", true}},
		"b": {{1, Ms(math.Inf(1)), "slow", false}, {3, Ms(math.Inf(1)), "cut off", true}},
	}
	if got := r.spans(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// several is a run of five rounds; the third couldn't be completed, in the fourth no
// write was ever accepted again.
func several() Run {
	run := Run{Subject: "skep", Scenario: "leader-crash", About: "A <b>leader</b> dies & comes back.", Text: "about: x # <script>", Driver: "simulate", Isolated: true,
		Managers: 2, Workers: 2, Machine: "2 processors", Began: time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)}
	for i := range 5 {
		r := crash()
		r.Number = i + 1
		for j := range r.Writes {
			if r.Writes[j].Began > 1010 {
				r.Writes[j].Ended += Ms(100 * i)
			}
		}
		run.Rounds = append(run.Rounds, r)
	}
	run.Rounds[2].Failure, run.Rounds[2].Steps = "line 3: it <failed>", run.Rounds[2].Steps[:1]
	run.Rounds[3].Writes = run.Rounds[3].Writes[:3]
	return run
}

func TestRows(t *testing.T) {
	rows := Rows(several())
	find := func(what string) Row {
		for _, r := range rows {
			if r.What == what {
				return r
			}
		}
		t.Fatalf("no row %q", what)
		return Row{}
	}
	next := find("next accepted write")
	if !reflect.DeepEqual(next.Values, []float64{420, 520, -1, 820}) || next.Median != 520 || next.Worst != 820 || next.Missing() != 1 || next.Kept {
		t.Errorf("%+v", next)
	}
	if next.worst() != "never in 1" {
		t.Errorf("worst is shown as %q", next.worst())
	}
	if r := find("agents on other managers that notice"); r.Kept || r.Worst != 1 || r.Verdict() != "NO" {
		t.Errorf("%+v", r)
	}
	if r := find("update completed"); r.Show(r.Median) != "never" || r.Verdict() != "" {
		t.Errorf("%+v", r)
	}
	if r := find("accepted writes lost"); !r.Kept || len(r.Values) != 4 {
		t.Errorf("%+v", r)
	}
	never := several()
	for i := range never.Rounds {
		never.Rounds[i] = Round{Number: i + 1, Failure: "start n1: no such file or directory"}
	}
	for _, r := range Rows(never) {
		if r.Kept || r.Verdict() == "yes" || r.Bound != "" && r.Verdict() != "not run" {
			t.Errorf("no round ran, and %q is called %q", r.What, r.Verdict())
		}
	}
	never.Rounds[1].Lost = []string{"write-1-7"}
	for _, r := range Rows(never) {
		if r.What == "accepted writes lost" && (r.Verdict() != "NO" || r.Worst != 1) {
			t.Errorf("a round lost a write before it failed: %+v", r)
		}
	}
	for _, test := range []struct {
		values        []float64
		median, worst *float64
		kept          bool
	}{
		{[]float64{1, 2, 3}, bound(2), bound(3), true},
		{[]float64{1, 2.1, 3}, bound(2), bound(3), false},
		{[]float64{1, 2, 3.1}, bound(2), bound(3), false},
		{[]float64{1, -1, 3}, nil, bound(3), false},
		{[]float64{1, -1, 3}, nil, nil, true},
		{[]float64{-1}, nil, nil, false},
		{nil, nil, bound(1), false},
	} {
		r := Row{Values: test.values, MedianBound: test.median, WorstBound: test.worst}
		if r.judge(); r.Kept != test.kept {
			t.Errorf("%+v: kept %v", test, r.Kept)
		}
	}
}

func TestRows_LostWrites(t *testing.T) {
	run := several()
	run.Rounds[1].Lost = []string{"write-1-7"}
	if lost, failed := run.Lost(); lost != 1 || failed != 1 {
		t.Errorf("%d lost, %d failed", lost, failed)
	}
	var out bytes.Buffer
	Table(&out, []Run{run})
	for _, want := range []string{"LOST 1 accepted writes, the first is write-1-7", "leader-crash, round 3: could not be completed: line 3", "median 350 ms, worst 800 ms   NO", "kill leader, worker"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestCompare(t *testing.T) {
	ours, theirs := several(), several()
	theirs.Subject = "Docker Swarm"
	for i := range theirs.Rounds {
		for j := range theirs.Rounds[i].Writes {
			if theirs.Rounds[i].Writes[j].Began > 1010 {
				theirs.Rounds[i].Writes[j].Ended += 10_000
			}
		}
	}
	var out bytes.Buffer
	Compare(&out, []Run{ours, theirs})
	if !regexp.MustCompile(`next accepted write +520 ms +never in 1 +10\.5 s +never in 1 +20 ×`).MatchString(out.String()) {
		t.Errorf("%s", out.String())
	}
}

func TestJSON_ThereAndBack(t *testing.T) {
	run := several()
	var out bytes.Buffer
	if err := WriteJSON(&out, []Run{run}); err != nil {
		t.Fatal(err)
	}
	back, err := ReadJSON(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(Rows(back[0]), Rows(run)) {
		t.Errorf("measured anew, it is %+v\nwant %+v", Rows(back[0]), Rows(run))
	}
	if !reflect.DeepEqual(back[0].Rounds[0].Writes, run.Rounds[0].Writes) {
		t.Errorf("writes %+v", back[0].Rounds[0].Writes)
	}
	if _, err := ReadJSON(strings.NewReader(`{"Runs":[{"Rounds":[{"Writes":[{"x":1}]}]}]}`)); err == nil {
		t.Error("a write that is none was read")
	}
	var any map[string]any
	if err := json.Unmarshal(out.Bytes(), &any); err != nil || any["Rows"] == nil {
		t.Errorf("%v", err)
	}
}

func TestPage(t *testing.T) {
	for name, runs := range map[string][]Run{
		"one run":           {several()},
		"several":           {several(), several()},
		"an empty run":      {{Scenario: "x", Rounds: []Round{{Number: 1, Failure: "no cluster"}}}},
		"what managers say": {{Scenario: "leader-crash", Rounds: []Round{elected()}}},
		"another's run":     {{Subject: "Docker Swarm", Scenario: "leader-crash", Rounds: []Round{crash()}}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := WritePage(&out, runs); err != nil {
				t.Fatal(err)
			}
			page := out.String()
			if strings.Contains(page, "<script") || strings.Contains(page, "<b>leader") || strings.Contains(page, "<failed>") {
				t.Error("what people wrote isn't escaped")
			}
			// It must need nothing else: no file, no network.
			if found := regexp.MustCompile(`(src|href)="[^#][^"]*"|@import|url\([^#)]`).FindString(page); found != "" {
				t.Errorf("it asks for %s", found)
			}
			if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
				t.Error("a picture has a number that is none")
			}
			pictures := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
			for _, picture := range pictures {
				dec := xml.NewDecoder(strings.NewReader(picture))
				for {
					if _, err := dec.Token(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						t.Fatalf("%v in %s", err, picture)
					}
				}
			}
			if len(pictures) < 8 {
				t.Errorf("only %d pictures", len(pictures))
			}
		})
	}
}

func TestDrawRound_ShowsWhoLed(t *testing.T) {
	picture, marks := drawRound(crash())
	for _, want := range []string{
		"m1 leader, 0s to 1.7s", "m2 leader, 1.7s to 6s", "w1 down, 2s to 4.4s", "m1 killed, 1s to 4.1s", `class="tasks"`, `class="write"`, `class="refused"`,
	} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("the timeline lacks %q", want)
		}
	}
	if len(marks) != 2 || marks[0].Text != "kill leader, worker (m1, w1)" || marks[1].At != "4s" {
		t.Errorf("%+v", marks)
	}
}

// elected is what the managers of crash told: m2 missed m1, and was elected.
func elected() Round {
	r := crash()
	r.Began = time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return r.Began.Add(time.Duration(ms) * time.Millisecond) }
	r.Timeline = &timeline.Timeline{At: at(7000), Since: r.Began, By: "id2", Managers: []timeline.Lane{
		{NodeID: "id1", Name: "m1", Missing: "connection <refused>"}, {NodeID: "id2", Name: "m2", Role: timeline.Leader, Term: 3}, {NodeID: "id3", Name: "m3", Role: timeline.Follower, Term: 3},
	}, Records: []timeline.Record{
		{Manager: "id2", Seq: 1, Time: at(1300), Kind: timeline.Silent, Node: "id1", Took: 300 * time.Millisecond},
		{Manager: "id2", Seq: 2, Time: at(1302), Kind: timeline.Role, Word: timeline.Candidate, Why: timeline.BySilence},
		{Manager: "id2", Seq: 3, Time: at(1303), Kind: timeline.AsksVote, Term: 3, Node: "id3"},
		{Manager: "id2", Seq: 4, Time: at(1305), Kind: timeline.Vote, Term: 3, Node: "id3", Word: timeline.Granted, Took: 2 * time.Millisecond},
		{Manager: "id2", Seq: 5, Time: at(1305), Kind: timeline.Role, Word: timeline.Leader, Term: 3},
		{Manager: "id2", Seq: 6, Time: at(1310), Kind: timeline.Ready, Term: 3, Took: 5 * time.Millisecond},
		{Manager: "id2", Seq: 7, Time: at(6500), Kind: timeline.Lost, Node: "id3", Took: time.Second}, // after the round
	}}
	return r
}

// What the managers say of a round is drawn as everywhere, with its story, and the election from near.
func TestPage_ShowsWhatTheManagersSay(t *testing.T) {
	shown := newManagers(elected())
	if len(shown.Story) != 1 || shown.Story[0].At != "1.3s" || !strings.HasPrefix(shown.Story[0].Text, "m2 heard nothing of m1 for 300 ms → stood for term 3 → got 2 of 2 votes → leads") {
		t.Errorf("%+v", shown.Story)
	}
	if !strings.Contains(string(shown.SVG), ">1 s</text>") || strings.Contains(string(shown.SVG), ">-") {
		t.Errorf("its times aren't those of the round: %s", shown.SVG)
	}
	if len(shown.Near) != 1 || shown.Near[0].Says != shown.Story[0].Text || !strings.Contains(string(shown.Near[0].SVG), "ms</text>") {
		t.Errorf("%+v", shown.Near)
	}
	run := several()
	run.Rounds[0] = elected()
	var out bytes.Buffer
	if err := WriteJSON(&out, []Run{run}); err != nil {
		t.Fatal(err)
	}
	back, err := ReadJSON(&out) // also in a report that is made anew
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := WritePage(&page, back); err != nil {
		t.Fatal(err)
	}
	for what, n := range map[string]int{string(shown.SVG): 1, string(shown.Near[0].SVG): 1, "What the managers say": 1, `id="hatch"`: 1, ".candidate {": 1, "<refused>": 0} {
		if got := strings.Count(page.String(), what); got != n {
			t.Errorf("%d times on the page, want %d: %.100s", got, n, what)
		}
	}
}

func TestMeasure_Even(t *testing.T) {
	view := func(at Ms, w1, w2, m1 int) View {
		return View{At: at, Until: at, Through: "m1", Wanted: map[string]int{"web": 4}, Running: map[string]map[string]int{"web": {"w1": w1, "w2": w2, "m1": m1}}}
	}
	first := view(10, 2, 2, 0)
	delete(first.Running["web"], "m1") // where none may be
	r := Round{Length: 9000, Steps: []Step{{Verb: "start", Began: 1000, Ended: 1001}}, Views: []View{first, view(1100, 4, 0, 0), view(1200, 2, 1, 0), view(1300, 1, 3, 0), view(1400, 1, 2, 1)}}
	if v, ok := r.measure(0, scenario.Measure{Name: "even"}); !ok || v != 400 {
		t.Errorf("%v %v", v, ok)
	}
}
