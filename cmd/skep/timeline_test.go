package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cluster/timeline"
)

// elected is the timeline of a cluster whose leader n1 was lost, as n2 tells it.
func elected() timeline.Timeline {
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	t := timeline.Timeline{
		At: at(9000), Since: noon.Add(-10 * time.Minute), By: "b2", Names: map[string]string{"d4": "w1"},
		Managers: []timeline.Lane{
			{NodeID: "a1", Name: "n1", Missing: "it didn't answer within 1s"},
			{NodeID: "b2", Name: "n2", Role: timeline.Leader, Term: 7},
			{NodeID: "c3", Name: "n3", Role: timeline.Follower, Term: 7, Offset: -1200 * time.Millisecond},
		},
	}
	for i, r := range []timeline.Record{
		{Time: at(0), Manager: "b2", Kind: timeline.Silent, Node: "a1", Took: 300 * time.Millisecond},
		{Time: at(1), Manager: "b2", Kind: timeline.Asked, Node: "c3", Word: timeline.Misses},
		{Time: at(1), Manager: "b2", Kind: timeline.Role, Word: timeline.Candidate, Why: timeline.BySilence},
		{Time: at(2), Manager: "b2", Kind: timeline.AsksVote, Term: 7, Node: "a1"},
		{Time: at(2), Manager: "b2", Kind: timeline.AsksVote, Term: 7, Node: "c3"},
		{Time: at(3), Manager: "c3", Kind: timeline.Voted, Term: 7, Node: "b2", Word: timeline.Granted},
		{Time: at(4), Manager: "b2", Kind: timeline.Vote, Term: 7, Node: "c3", Word: timeline.Granted, Took: 2 * time.Millisecond},
		{Time: at(4), Manager: "b2", Kind: timeline.Role, Word: timeline.Leader, Term: 7},
		{Time: at(9), Manager: "b2", Kind: timeline.Ready, Term: 7, Took: 5 * time.Millisecond},
		{Time: at(34), Manager: "b2", Kind: timeline.Writes, Term: 7, Count: 2, Took: 3 * time.Millisecond},
		{Time: at(2000), Manager: "b2", Kind: timeline.NodeState, Node: "d4", Word: "down", Why: "no session and gone for gossip"},
	} {
		r.Seq = uint64(i + 1)
		t.Records = append(t.Records, r)
	}
	return t
}

func tells(t *testing.T, answers ...timeline.Timeline) *fakeNode {
	node := newFakeNode(t)
	var bodies []string
	for _, answer := range answers {
		body, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(body))
	}
	node.answer("GET /skep/v1/timeline", bodies...)
	return node
}

func TestClusterTimeline_TellsIt(t *testing.T) {
	node := tells(t, elected())
	r := skep(t, []string{"SKEP_HOST=" + node.url, "TZ=UTC"}, "cluster", "timeline", "--since", "5m")
	want := `2026-11-30
12:00:00.000  n2 heard nothing of n1 for 300 ms → asked n3 (misses it too) → stood for term 7 → got 2 of 3 votes → leads → first write accepted after 34 ms
12:00:02.000  w1 is down: no session and gone for gossip

n2 leads in term 7.
n1 doesn't tell what it did: it didn't answer within 1s.
The clock of n3 is 1.2 s behind; its times are corrected.
`
	if r.stdout != want || r.status != 0 || r.stderr != "" {
		t.Errorf("status %d, %s\n%s", r.status, r.stderr, r.stdout)
	}
	if asked := node.asked("/timeline"); len(asked) != 1 || asked[0].URL.Query().Get("since") != "5m" {
		t.Errorf("it asked %v", asked)
	}
}

func TestClusterTimeline_JSONIsARecordALine(t *testing.T) {
	node := tells(t, elected())
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "cluster", "timeline", "--json")
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	var last struct {
		timeline.Record
		ManagerName, NodeName string
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	all := elected().Records
	if len(lines) != len(all) || last.Record != all[len(all)-1] || last.ManagerName != "n2" || last.NodeName != "w1" {
		t.Errorf("%d lines, the last is %+v", len(lines), last)
	}
}

func TestClusterTimeline_DrawsIt(t *testing.T) {
	node := tells(t, elected())
	env, file := []string{"SKEP_HOST=" + node.url}, filepath.Join(t.TempDir(), "timeline.svg")
	if r := skep(t, env, "cluster", "timeline", "--svg", file); r.status != 0 || r.stdout != "" {
		t.Fatalf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	picture, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for dec := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"n2 leads, term 7", "n2 heard nothing of n1 for 300 ms", "w1 is down"} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("%q isn't in the picture", want)
		}
	}
	for _, also := range []string{"--json", "--follow"} {
		if r := skep(t, env, "cluster", "timeline", "--svg", file, also); r.status == 0 || !strings.Contains(r.stderr, "leave --follow and --json out") {
			t.Errorf("with %s: status %d, %s", also, r.status, r.stderr)
		}
	}
}

// What comes in parts is told once: a sentence when nothing was added to it for a moment, and only its new steps later.
func TestFollower_TellsNothingTwice(t *testing.T) {
	whole := elected()
	back := whole.Records[10]
	back.Time, back.Seq, back.Word, back.Why = back.Time.Add(10*time.Second), 12, "ready", ""
	whole.Records = append(whole.Records, back)
	noon := whole.Records[0].Time
	f := newFollower()
	var lines []string
	records := 0
	for ms := 0; ms <= 15000; ms += 500 {
		part := whole
		part.At, part.Records = noon.Add(time.Duration(ms)*time.Millisecond), nil
		for _, r := range whole.Records {
			if !r.Time.After(part.At) && part.At.Sub(r.Time) < followBack {
				part.Records = append(part.Records, r)
			}
		}
		said, printed := f.news(part)
		for _, line := range said {
			_, text, _ := strings.Cut(line, "  ")
			lines = append(lines, text)
		}
		records += len(printed)
	}
	want := []string{
		"n2 heard nothing of n1 for 300 ms → asked n3 (misses it too) → stood for term 7 → got 2 of 3 votes → leads → first write accepted after 34 ms",
		"w1 is down: no session and gone for gossip",
		"… w1 is ready after 10 s",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") || records != len(whole.Records) {
		t.Errorf("%d records, and:\n%s", records, strings.Join(lines, "\n"))
	}
}
