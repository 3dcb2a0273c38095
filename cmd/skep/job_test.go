package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"skep/cluster"
)

func TestJob(t *testing.T) {
	node := newFakeNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	node.answer("GET /skep/v1/jobs", `[{"Name":"dump","Schedule":"30 3 * * *","Zone":"Europe/Berlin","Next":"2026-12-01T02:30:00Z","Run":4,"Began":"2026-11-30T02:30:00Z","Ended":"2026-11-30T02:31:00Z","Outcome":"1 completed"},
		{"Name":"once","Run":1,"Began":"2026-11-30T02:30:00Z","Outcome":"1 running, 0 completed"},{"Name":"sweep","Schedule":"@daily","Paused":true}]`)
	r := skep(t, env, "job", "ls")
	for _, line := range []string{
		"NAME SCHEDULE NEXT LAST RUN ENDED OUTCOME",
		"dump 30 3 * * * Europe/Berlin 2026-12-01T02:30:00Z 2026-11-30T02:30:00Z 2026-11-30T02:31:00Z 1 completed",
		"once - - 2026-11-30T02:30:00Z - 1 running, 0 completed",
		"sweep @daily paused - - -",
	} {
		if r.status != 0 || !hasLine(r.stdout, line) {
			t.Errorf("no line %q in %+v", line, r)
		}
	}
	var jobs []cluster.JobState
	if r := skep(t, env, "job", "ls", "--json"); json.Unmarshal([]byte(r.stdout), &jobs) != nil || len(jobs) != 3 || jobs[0].Run != 4 {
		t.Errorf("%+v", r)
	}
	for _, verb := range []string{"run", "pause", "resume"} {
		path := "/skep/v1/jobs/dump/" + verb
		node.answer("POST "+path, `{}`)
		r := skep(t, env, "job", verb, "dump")
		if asked := node.asked(path); r.status != 0 || r.stdout != "dump\n" || len(asked) != 1 || asked[0].Method != http.MethodPost {
			t.Errorf("%s: %+v", verb, r)
		}
		if r := skep(t, env, "job", verb, "none"); r.status != 1 {
			t.Errorf("%s of none: %+v", verb, r)
		}
	}
}
