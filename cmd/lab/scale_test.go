package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cmd/lab/report"
)

func TestScale_RefusesWhatMakesNoSense(t *testing.T) {
	for args, want := range map[string]string{
		"-agents 0":              "-agents 0: want at least 1",
		"-agents 70000":          "at most 60,000",
		"-latency moon":          "-latency",
		"-steps create":          "the first one must be join",
		"-steps join,dance":      `-steps "dance"`,
		"-agents 3 -tasks -1":    "-tasks -1: want at least 1",
		"-agents 2 -processes 3": "-processes 3",
	} {
		if _, err := parseScale(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
	o, err := parseScale(nil)
	if err != nil || o.processes != 8 || o.services != 100 {
		t.Errorf("%+v, %v; want 8 processes and 100 services", o, err)
	}
}

// TestScale has all that the instrument measures at a size that takes moments.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	o, err := parseScale([]string{"-agents", "50", "-processes", "2", "-tasks", "400", "-services", "2", "-idle", "1s", "-limit", "1m",
		"-steps", "join,create,update,drain,leader,zero", "-out", t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = scale(ctx, lab{bin: binaries(t, "skep/cmd/lab"), engine: defaultEngine}, o, &out)
	t.Logf("%s", &out)
	if err != nil {
		for _, log := range []string{"m1.log", "m2.log", "m3.log"} {
			text, _ := os.ReadFile(filepath.Join(o.out, log))
			t.Logf("%s ends: %s", log, text[max(0, len(text)-2000):])
		}
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(o.out, "scale.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := report.ReadScaleJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Processes) != 5 || len(s.Steps) != 9 || len(s.Samples) < 5 {
		t.Fatalf("%d processes, %d steps, %d samples; want 5, 9, some", len(s.Processes), len(s.Steps), len(s.Samples))
	}
	if last := s.Samples[len(s.Samples)-1]; last.Sessions != 50 || last.Running != 0 {
		t.Errorf("%d sessions and %d tasks at the end; want 50 and 0", last.Sessions, last.Running)
	}
	steps := map[string]report.ScaleStep{}
	for _, step := range s.Steps {
		steps[step.Name] = step
		for i, p := range s.Processes {
			if step.CPU[i] < 0 || step.Wire[i] < 0 || step.Written[i] < 0 || step.State.RSS[i] < 1<<20 || step.State.RSS[i] > 1<<30 {
				t.Errorf("%s, %s: %+v", step.Name, p.Name, step)
			}
			if p.Manager && (step.State.Heap[i] < 1<<20 || step.State.Stack[i] < 1<<10 || step.State.Disk[i] < 1<<10) {
				t.Errorf("%s, %s: %+v", step.Name, p.Name, step.State)
			}
		}
		if len(step.Profiles) == 0 {
			t.Errorf("%s has no profile", step.Name)
		}
	}
	for _, busy := range []string{"join", "create", "update", "drain", "leader"} {
		step := steps[busy]
		if step.CPU[0]+step.CPU[1]+step.CPU[2] < 0.02 || step.Written[0]+step.Written[1]+step.Written[2] < 4096 || step.Wire[3]+step.Wire[4] < 1000 {
			t.Errorf("%s cost nothing: %+v", busy, step)
		}
		if busy != "join" && len(step.Small) == 0 {
			t.Errorf("%s: the small user has no service", busy)
		}
	}
	if next := steps["leader"].NextWrite; next == nil || *next < 1 || *next > 20_000 {
		t.Errorf("next write after %v", next)
	}
	if steps["drain"].NextWrite != nil || len(steps["create"].Lists) != 3 || steps["create"].Lists[1].Count != 400 {
		t.Errorf("drain %v, lists %+v", steps["drain"].NextWrite, steps["create"].Lists)
	}
	for _, r := range report.ScaleRows(s) {
		if r.Verdict == "not run" && !strings.Contains(r.What, "killed at once") {
			t.Errorf("no number: %+v", r)
		}
	}
	page, err := os.ReadFile(filepath.Join(o.out, "scale.html"))
	if err != nil || bytes.Count(page, []byte("<polyline")) < 8 || bytes.Contains(page, []byte("ZgotmplZ")) {
		t.Errorf("the page has %d lines, %v", bytes.Count(page, []byte("<polyline")), err)
	}
}
